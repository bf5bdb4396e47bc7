"""Attention of Qwen's vision towers within pictures and windows, all of one length at once.

Without FlashAttention the library takes them one by one: a picture of 1,000 tokens has about 60 windows in each of 28
layers, and a GPU waits for the processor to send them. Sequences of equal length are here one batch; windows have
few lengths (only those at a picture's edges are smaller), pictures of a task mostly one. Nothing is padded.
"""

from __future__ import annotations

import itertools
import types
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_ATTENTIONS = ("Qwen2_5_VLVisionAttention", "VisionAttention")


@dataclass(frozen=True)
class _Layout:
    """Sequences sorted by length: their number and length, for each length; where each position of this order is in
    the given one and the other way round (None: the orders are the same)."""

    shapes: list[tuple[int, int]]
    order: Tensor | None = None
    back: Tensor | None = None


class _Layouts:
    """Of the boundaries that were seen last (windows and pictures)."""

    def __init__(self) -> None:
        self._last: list[tuple[Tensor, _Layout]] = []

    def of(self, ends: Tensor) -> _Layout:
        """Make it once for all layers: it waits for the device."""
        for known, layout in self._last:
            if known is ends:
                return layout
        starts: dict[int, list[int]] = {}
        for start, stop in itertools.pairwise(ends.tolist()):
            starts.setdefault(stop - start, []).append(start)
        shapes = [(len(found), length) for length, found in starts.items()]
        layout = _Layout(shapes)
        if len(shapes) > 1:
            positions = [(torch.tensor(found)[:, None] + torch.arange(n)).flatten() for n, found in starts.items()]
            order = torch.cat(positions)
            layout = _Layout(shapes, order.to(ends.device), order.argsort().to(ends.device))
        self._last = [(ends, layout), *self._last[:1]]
        return layout


def batch_vision_attention(model: Any) -> None:
    """Let the attention modules of a vision tower take sequences of equal length at once."""
    layouts = _Layouts()
    for module in model.modules():
        if type(module).__name__ in _ATTENTIONS:
            module.layouts, module.alone = layouts, module.forward
            module.forward = types.MethodType(_forward, module)


def _forward(
    self: Any, hidden_states: Tensor, cu_seqlens: Tensor, position_embeddings: tuple[Tensor, ...], **kwargs: Any
) -> Tensor:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
    from transformers.models.qwen2_vl.modeling_qwen2_vl import apply_rotary_pos_emb_vision, eager_attention_forward

    kind = self.config._attn_implementation
    if "flash" in kind:  # has kernels for sequences of any lengths
        out: Tensor = self.alone(hidden_states, cu_seqlens, position_embeddings=position_embeddings, **kwargs)
        return out
    kwargs.pop("max_seqlen", None)
    attend: Any = ALL_ATTENTION_FUNCTIONS.get_interface(kind, eager_attention_forward)
    layout = self.layouts.of(cu_seqlens)
    if layout.order is not None:
        hidden_states = hidden_states.index_select(0, layout.order)
        position_embeddings = tuple(table.index_select(0, layout.order) for table in position_embeddings)
    query_SHD, key_SHD, value_SHD = self.qkv(hidden_states).unflatten(-1, (3, self.num_heads, -1)).unbind(1)
    query_SHD, key_SHD = apply_rotary_pos_emb_vision(query_SHD, key_SHD, *position_embeddings)
    sizes = [num * length for num, length in layout.shapes]
    parts = zip(*(states.split(sizes) for states in (query_SHD, key_SHD, value_SHD)), strict=True)
    attended = []
    for shape, states in zip(layout.shapes, parts, strict=True):
        heads_NHLD = (part.unflatten(0, shape).transpose(1, 2) for part in states)
        found = attend(self, *heads_NHLD, attention_mask=None, scaling=self.scaling, is_causal=False, **kwargs)[0]
        attended.append(found.reshape(shape[0] * shape[1], -1))
    out_SE = torch.cat(attended)
    projected: Tensor = self.proj(out_SE if layout.back is None else out_SE.index_select(0, layout.back))
    return projected
