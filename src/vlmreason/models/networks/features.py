"""What a frozen vision-language model sees of a prompt, as vectors for small networks."""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from vlmreason.models.contract import Prompt
from vlmreason.models.vlm.learner import Learner

_WAVELENGTHS = (4.0, 16.0, 64.0, 256.0)  # tokens
_CACHE_BYTES = 2**27


@dataclass(frozen=True)
class ActorSettings:
    """`options`: in the order of their numbers; `width`: of both layers; `grid`: places of a picture's features along a
    side; `pictures`: whether prompts have one."""

    options: tuple[str, ...]
    width: int
    grid: int
    pictures: bool


class FrozenFeatures:
    """What a frozen model sees in prompts. Features of the latest ones are kept: they never change."""

    def __init__(self, base: Learner, settings: ActorSettings) -> None:
        self.base, self.settings = base, settings
        self._kept: OrderedDict[bytes, Tensor] = OrderedDict()
        base.model.eval().requires_grad_(False)

    def __call__(self, prompts: Sequence[Prompt]) -> Tensor:
        """(B, F), on the CPU. Raises ValueError for a model whose vision tower has no fixed places."""
        for prompt in prompts:
            if (prompt.image is not None) != self.settings.pictures:
                held = "a picture" if self.settings.pictures else "no picture"
                raise ValueError(
                    f"env.view, evaluation.views: the prompts of this policy have {held}, and these differ"
                )
        keys = [_key(prompt) for prompt in prompts]
        new = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in self._kept}
        found = dict(zip(new, self._compute(list(new.values())), strict=True)) if new else {}
        rows = [found[key] if key in found else self._kept[key] for key in keys]
        self._kept |= found
        while len(self._kept) * rows[0].nbytes > _CACHE_BYTES:
            self._kept.popitem(last=False)
        return torch.stack(rows)

    @torch.no_grad()
    def _compute(self, prompts: Sequence[Prompt]) -> Tensor:
        with torch.autocast(self.base.model.device.type, enabled=False):
            parts = [torch.stack([self._text(prompt.text) for prompt in prompts])]
            if self.settings.pictures:
                parts.append(self._picture(prompts))
            found_BF: Tensor = torch.cat(parts, dim=1).cpu()
        return found_BF

    def _text(self, text: str) -> Tensor:
        """((1 + 2 W) * D): sums of the embeddings of a text's tokens, with W waves of their positions."""
        table_VD = self.base.model.get_input_embeddings().weight
        ids = torch.tensor(self.base.processor.prompt_ids(text, None), device=table_VD.device)
        embedded_LD = table_VD[ids].float() / table_VD.float().std()
        at_L = torch.arange(len(ids), device=table_VD.device).float()
        waves = [wave(2 * math.pi * at_L / length) for length in _WAVELENGTHS for wave in (torch.cos, torch.sin)]
        sums_WD: Tensor = torch.stack([torch.ones_like(at_L), *waves]) @ embedded_LD
        return sums_WD.flatten()

    def _picture(self, prompts: Sequence[Prompt]) -> Tensor:
        """(B, D * grid * grid), or fewer places where the tower has fewer."""
        return placed_states(self.base, prompts, self.settings.grid)


def placed_states(base: Learner, prompts: Sequence[Prompt], grid: int) -> Tensor:
    """Return `tower_states` in one row of each picture (B, D * grid * grid), means of places where there are more."""
    states_BPD = tower_states(base, prompts)
    side = math.isqrt(states_BPD.shape[1])
    assert side**2 == states_BPD.shape[1]
    states_BDHW = states_BPD.transpose(1, 2).reshape(len(prompts), -1, side, side)
    if side > grid:
        states_BDHW = F.adaptive_avg_pool2d(states_BDHW, grid)
    flat_BF: Tensor = states_BDHW.flatten(1)
    return flat_BF


def tower_states(base: Learner, prompts: Sequence[Prompt]) -> Tensor:
    """Return what a model's vision tower gives its projector (B, places, D), with mean 0 and deviation 1 at each place.

    Raises ValueError for a model whose vision tower has no fixed places.
    """
    inner = base.model.model
    batch = base.processor.collate_prompts([Prompt("", prompt.image) for prompt in prompts])
    pixels, config = batch.get("pixel_values"), inner.config
    layer = getattr(config, "vision_feature_layer", None)
    if pixels is None or pixels.ndim != 4 or not isinstance(layer, int) or not hasattr(inner, "vision_tower"):
        raise ValueError(
            f"model_type={config.model_type}: the features of its pictures have no fixed places; models of LLaVA's "
            "layout with one tower have (nano, nano_first, llava_1_5_7b)"
        )
    tower = inner.vision_tower
    states_BPD: Tensor = tower(pixels.to(tower.device, tower.dtype), output_hidden_states=True).hidden_states[layer]
    if config.vision_feature_select_strategy == "default":
        states_BPD = states_BPD[:, 1:]  # without the class token
    states_BPD = states_BPD.float()
    return F.layer_norm(states_BPD, states_BPD.shape[2:])  # some towers have channels a hundred times others


def _key(prompt: Prompt) -> bytes:
    digest = hashlib.blake2b(prompt.text.encode(errors="surrogatepass"), digest_size=16)
    if prompt.image is not None:
        digest.update(b"\0" + repr(prompt.image.shape).encode() + prompt.image.tobytes())
    return digest.digest()
