"""The trained part of the SmarterVLM reasoner (arXiv 2407.04212): from states of frozen encoders to an answer.

    r1  the picture, by an image encoder of its kind of puzzle      r3  the question, the mean of its tokens
    r2  the QF layer: the question's tokens attend to each other, then to the picture; a residual block
    composite [r1, r3, r2], QV fusion, a decoder of the kind of puzzle

As published the QF layer gets one vector of the question and one of the picture, many times over, so that attention
gives back the picture's whatever the question is; here it gets token states and places by default (`qf`). A sequence is
written element by element from the fused vector and the element before; as published a recurrent layer ran over the
examples of the batch, its state taken for logits (`sequence=published`).

Shapes: B examples, P places of a picture, L tokens, D width of states, R `repr`, T steps of an answer, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vlmreason.answers import AnswerSpace
from vlmreason.models.networks.smarter_settings import Sizes

SHARED = "shared"
GROUP = 32
"""Texts of like length that are read together, at least."""


def activation(sizes: Sizes) -> nn.Module:
    """Make the non-linearity of all layers."""
    return nn.GELU() if sizes.activation == "gelu" else nn.ReLU()


class QuestionFusion(nn.Module):
    """The QF layer: (B, L, D) of a question and (B, P, R) of a picture to (B, W)."""

    def __init__(self, text_width: int, sizes: Sizes) -> None:
        super().__init__()
        self.sizes, self.residuals = sizes, sizes.residuals
        self.width = sizes.qf_width or text_width
        self.narrow = nn.Identity() if self.width == text_width else nn.Linear(text_width, self.width)
        self.own = nn.MultiheadAttention(self.width, sizes.heads, batch_first=True)
        self.cross = nn.MultiheadAttention(self.width, sizes.heads, kdim=sizes.repr, vdim=sizes.repr, batch_first=True)
        self.block = nn.Sequential(
            nn.Linear(self.width, sizes.hidden),
            activation(sizes),
            nn.Dropout(sizes.dropout),
            nn.Linear(sizes.hidden, self.width),
            nn.Dropout(sizes.dropout),
        )
        self.norm = nn.LayerNorm(self.width, eps=sizes.norm_eps)

    def forward(self, text_BLD: Tensor, image_BPR: Tensor, padding_BL: Tensor) -> Tensor:
        """`padding_BL` is true where there is no token, behind all that there are."""
        groups = by_length(padding_BL)
        found = [self._mean(text_BLD[rows, :end], image_BPR[rows], padding_BL[rows, :end]) for rows, end in groups]
        mean_BW = torch.cat(found)[torch.cat([rows for rows, _ in groups]).argsort()]
        made = self.block(mean_BW)
        out: Tensor = self.norm(mean_BW + made if "qf" in self.residuals else made)
        return out

    def _mean(self, text_BLD: Tensor, image_BPR: Tensor, padding_BL: Tensor) -> Tensor:
        """Both attentions, mean over the words, (B, W)."""
        words = self.narrow(text_BLD)
        found = self._asked(words, padding_BL)
        words = words + found if "attention" in self.residuals else found
        mean_BW = self._seen(words, image_BPR, padding_BL)
        return mean_BW + masked_mean(words, padding_BL) if "attention" in self.residuals else mean_BW

    def _asked(self, words_BLW: Tensor, padding_BL: Tensor) -> Tensor:
        """Self-attention, (B, L, W), with the weights of `own`, whose own way copies its projections once more."""
        joint_BL3W = F.linear(words_BLW, self.own.in_proj_weight, self.own.in_proj_bias)
        query, key, value = (self._heads(one) for one in joint_BL3W.chunk(3, dim=2))
        found_BHLV = F.scaled_dot_product_attention(query, key, value, ~padding_BL[:, None, None])
        found: Tensor = self.own.out_proj(found_BHLV.transpose(1, 2).flatten(2))
        return found

    def _heads(self, values_BLW: Tensor) -> Tensor:
        """Divide vectors among heads, (B, H, L, W / H)."""
        return values_BLW.view(*values_BLW.shape[:2], self.sizes.heads, -1).transpose(1, 2)

    def _seen(self, words_BLW: Tensor, image_BPR: Tensor, padding_BL: Tensor) -> Tensor:
        """Cross attention, mean over the words, (B, W). Only the weights depend on the word, so their mean is taken:
        values and the last layer are then computed once for an example and not for each word."""
        cross = self.cross
        joint = cross.in_proj_weight  # one matrix where picture and words are equally wide
        three = (cross.q_proj_weight, cross.k_proj_weight, cross.v_proj_weight) if joint is None else joint.chunk(3)
        query_BLW, key_BPW, value_BPW = (
            F.linear(values, weight, bias)
            for values, weight, bias in zip(
                (words_BLW, image_BPR, image_BPR), three, cross.in_proj_bias.chunk(3), strict=True
            )
        )
        query, key, value = (self._heads(one) for one in (query_BLW, key_BPW, value_BPW))
        weights_BHLP = (query @ key.transpose(2, 3) / query.shape[3] ** 0.5).softmax(dim=3)
        kept_BL = (~padding_BL).to(weights_BHLP.dtype)
        mean_BH1P = (kept_BL / kept_BL.sum(dim=1, keepdim=True).clamp(min=1))[:, None, None] @ weights_BHLP
        seen: Tensor = cross.out_proj((mean_BH1P @ value).flatten(1))
        return seen


class QuestionGru(nn.Module):
    """A question without QF, as in SMART's baseline: a GRU in both directions over its tokens, (B, L, D) to (B, R)."""

    def __init__(self, text_width: int, sizes: Sizes) -> None:
        super().__init__()
        self.gru = nn.GRU(text_width, sizes.hidden, batch_first=True, bidirectional=True)
        self.out = nn.Sequential(nn.Linear(2 * sizes.hidden, sizes.repr), activation(sizes))

    def forward(self, text_BLD: Tensor, padding_BL: Tensor) -> Tensor:
        lengths = (~padding_BL).sum(dim=1).cpu()
        packed = nn.utils.rnn.pack_padded_sequence(text_BLD, lengths, batch_first=True, enforce_sorted=False)
        _, state_2BH = self.gru(packed)
        out: Tensor = self.out(torch.cat((state_2BH[0], state_2BH[1]), dim=1))
        return out


class Classes(nn.Module):
    """A decoder of answers of one element: (B, R) to logits (B, 1, C)."""

    def __init__(self, space: AnswerSpace, sizes: Sizes) -> None:
        super().__init__()
        second = activation(sizes) if sizes.decoder_activations == 2 else nn.Identity()
        self.residual = "decoder" in sizes.residuals
        self.first = nn.Sequential(nn.Linear(sizes.repr, sizes.repr), activation(sizes))
        self.second = nn.Sequential(nn.Linear(sizes.repr, sizes.repr), second)
        self.out = nn.Linear(sizes.repr, space.num_classes)

    def forward(self, fused_BR: Tensor, numbers_BT: Tensor | None = None) -> Tensor:
        return classes_of([self], fused_BR, [len(fused_BR)])[0]


def classes_of(decoders: Sequence[Classes], fused_BR: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """Return logits (b, 1, C) by each decoder of so many rows in turn."""
    first, second, residual = decoders[0].first, decoders[0].second, decoders[0].residual
    hidden = first[1](each([decoder.first[0] for decoder in decoders], fused_BR, sizes))
    found = second[1](each([decoder.second[0] for decoder in decoders], hidden, sizes))
    pieces = torch.split(hidden + found if residual else found, list(sizes))
    return [decoder.out(piece)[:, None] for decoder, piece in zip(decoders, pieces, strict=True)]


class Steps(nn.Module):
    """A decoder of sequences over time: each element from the fused vector and the element before."""

    def __init__(self, space: AnswerSpace, sizes: Sizes) -> None:
        super().__init__()
        self.num_steps, self.begin = space.steps, space.num_classes
        self.before = nn.Embedding(space.num_classes + 1, sizes.repr)
        kind = nn.LSTM if sizes.sequence == "lstm" else nn.GRU
        self.layer = kind(2 * sizes.repr, sizes.repr, batch_first=True)
        self.out = nn.Linear(sizes.repr, space.num_classes)

    def forward(self, fused_BR: Tensor, numbers_BT: Tensor | None = None) -> Tensor:
        """Return logits (B, T, C): given the right elements before each where they are given, else after its own."""
        begin_B = fused_BR.new_full((len(fused_BR),), self.begin, dtype=torch.long)
        if numbers_BT is not None:
            before_BT = torch.cat((begin_B[:, None], numbers_BT[:, : self.num_steps - 1]), dim=1)
            hidden, _ = self.layer(self._inputs(fused_BR, before_BT))
            return self.out(hidden)  # type: ignore[no-any-return]
        found, state, before_B = [], None, begin_B
        for _ in range(self.num_steps):
            hidden, state = self.layer(self._inputs(fused_BR, before_B[:, None]), state)
            found.append(self.out(hidden[:, 0]))
            before_B = found[-1].argmax(dim=1)
        return torch.stack(found, dim=1)

    def _inputs(self, fused_BR: Tensor, before_BT: Tensor) -> Tensor:
        again = fused_BR[:, None].expand(-1, before_BT.shape[1], -1)
        return torch.cat((again, self.before(before_BT)), dim=2)


class PublishedSteps(nn.Module):
    """A decoder of sequences as it was published: (B, R) read as one sequence of B, the state its logits."""

    def __init__(self, space: AnswerSpace, sizes: Sizes) -> None:
        super().__init__()
        self.num_steps = space.steps
        self.layer = nn.GRU(sizes.repr, space.num_classes)

    def forward(self, fused_BR: Tensor, numbers_BT: Tensor | None = None) -> Tensor:
        found, state = [], None
        for _ in range(self.num_steps):
            out, state = self.layer(fused_BR, state)
            found.append(out)
        return torch.stack(found, dim=1)


class SmarterNet(nn.Module):
    """All that is trained, for these kinds of puzzles; `widths`: of states of pictures and of texts."""

    lm_head = None

    def __init__(self, kinds: Mapping[str, AnswerSpace], widths: tuple[int, int], sizes: Sizes) -> None:
        super().__init__()
        self.kinds, self.sizes, self.names = dict(kinds), sizes, list(kinds)
        image_width, text_width = widths
        repr = sizes.repr
        heads = [SHARED] if sizes.image_heads == "shared" else self.names
        self.images = nn.ModuleDict({key(name): _encoder(image_width, sizes) for name in heads})
        fusing = {"image": repr, "text": text_width, "qf": sizes.qf_width or text_width}
        if sizes.qf == "none":
            self.question: nn.Module = QuestionGru(text_width, sizes) if sizes.question == "gru" else nn.Sequential(
                nn.Linear(text_width, sizes.hidden), activation(sizes),
                nn.Linear(sizes.hidden, repr), activation(sizes),
            )  # fmt: skip
            composite = 2 * repr
        else:
            composite = sum(fusing[part] for part in sizes.composite)
            self.qf = QuestionFusion(text_width, sizes) if "qf" in sizes.composite else None
        self.composite_norm = nn.LayerNorm(composite, eps=sizes.norm_eps)
        self.fuse_in = nn.Sequential(nn.Linear(composite, repr), activation(sizes))
        self.fuse_out = nn.Sequential(nn.Linear(repr, repr), activation(sizes))
        self.fuse_norm = nn.LayerNorm(repr, eps=sizes.norm_eps)
        self.spaces = decoded_spaces(kinds, shared=sizes.decoders == "shared")
        self.decoders = nn.ModuleDict({key(name): _decoder(space, sizes) for name, space in self.spaces.items()})

    @property
    def device(self) -> torch.device:
        return self.fuse_norm.weight.device

    def decoder_of(self, kind: str) -> str:
        """Name the decoder that answers a kind of puzzle."""
        return kind if self.sizes.decoders == "puzzle" else shared_name(self.kinds[kind])

    def forward(self, image_BPD: Tensor, text_BLD: Tensor, padding_BL: Tensor, kinds_B: Sequence[str]) -> Tensor:
        """Return the fused vectors (B, R) of pictures and questions."""
        sizes = self.sizes
        names = [SHARED if sizes.image_heads == "shared" else kind for kind in kinds_B]
        mean_B1D = image_BPD.mean(dim=1, keepdim=True)
        places = [mean_B1D, image_BPD] if sizes.qf == "tokens" and "qf" in sizes.composite else [mean_B1D]
        encoded_BPR = self._encoded(torch.cat(places, dim=1), names)
        image_BR, seen_BPR = encoded_BPR[:, 0], encoded_BPR[:, 1:]
        text_BD = masked_mean(text_BLD, padding_BL)
        if sizes.qf == "none":
            asked = self.question(text_BLD, padding_BL) if sizes.question == "gru" else self.question(text_BD)
            parts = {"image": image_BR, "text": asked}
        else:
            parts = {"image": image_BR, "text": text_BD}
            if self.qf is not None and sizes.qf == "tokens":
                parts["qf"] = self.qf(text_BLD, seen_BPR, padding_BL)
            elif self.qf is not None:
                parts["qf"] = self.qf(text_BD[:, None], image_BR[:, None], torch.zeros_like(padding_BL[:, :1]))
        composite = self.composite_norm(torch.cat([parts[name] for name in sizes.composite if name in parts], dim=1))
        first = self.fuse_in(composite)
        fused: Tensor = self.fuse_norm(
            first + self.fuse_out(first) if "fusion" in sizes.residuals else self.fuse_out(first)
        )
        return fused

    def decode(self, kind: str, fused_BR: Tensor, numbers_BT: Tensor | None = None) -> Tensor:
        """Return logits (B, T, C) of answers to puzzles of one kind, over the classes of its decoder."""
        found: Tensor = self.decoders[key(self.decoder_of(kind))](fused_BR, numbers_BT)
        return found

    def answers(self, kinds_B: Sequence[str], fused_BR: Tensor, numbers_BT: Tensor) -> Tensor:
        """Return the cross entropy (B) of the right answers."""
        rows = by_name([self.decoder_of(kind) for kind in kinds_B])
        single = [name for name in rows if not self.spaces[name].is_sequence]
        names = [*single, *(name for name in rows if self.spaces[name].is_sequence)]
        order = torch.tensor([row for name in names for row in rows[name]], device=fused_BR.device)
        sizes = [len(rows[name]) for name in names]
        fused, numbers = torch.split(fused_BR[order], sizes), torch.split(numbers_BT[order], sizes)
        found: list[Tensor] = []
        if single:
            decoders: Any = [self.decoders[key(name)] for name in single]
            found = classes_of(decoders, torch.cat(fused[: len(single)]), sizes[: len(single)])
        for name, some, right in list(zip(names, fused, numbers, strict=True))[len(single) :]:
            found.append(self.decoders[key(name)](some, right))
        of_each = [
            losses(logits.float(), right, self.spaces[name])
            for name, logits, right in zip(names, found, numbers, strict=True)
        ]
        return torch.cat(of_each)[order.argsort()]

    def _encoded(self, values_BPD: Tensor, names: Sequence[str]) -> Tensor:
        """Apply to each row the image encoder of its name."""
        rows = by_name(names)
        encoders: list[Any] = [self.images[key(name)] for name in rows]
        if len(encoders) == 1:
            return encoders[0](values_BPD)  # type: ignore[no-any-return]
        order = torch.tensor([row for some in rows.values() for row in some], device=values_BPD.device)
        sizes = [len(some) for some in rows.values()]
        hidden = encoders[0][1](each([encoder[0] for encoder in encoders], values_BPD[order], sizes))
        found = encoders[0][3](each([encoder[2] for encoder in encoders], hidden, sizes))
        return found[order.argsort()]  # type: ignore[no-any-return]


def each(layers: Sequence[nn.Module], values: Tensor, sizes: Sequence[int]) -> Tensor:
    """Apply each layer to so many rows in turn; what is the same for all of them is left to whoever calls."""
    return torch.cat([layer(piece) for layer, piece in zip(layers, torch.split(values, list(sizes)), strict=True)])


def by_length(padding_BL: Tensor) -> list[tuple[Tensor, int]]:
    """Return the rows of a batch in groups of like length, each with its longest: a short text is then not filled up to
    the longest of all. Where a batch has one length it is one group."""
    lengths_B, order_B = (~padding_BL).sum(dim=1).sort(stable=True)
    ends = lengths_B.tolist()
    cuts = [at for at in range(GROUP, len(ends) - GROUP + 1, GROUP) if ends[at - 1] < ends[-1]]
    pieces = order_B.tensor_split(cuts)
    return [(rows, max(1, ends[cut - 1])) for rows, cut in zip(pieces, [*cuts, len(ends)], strict=True)]


def by_name(names: Sequence[str]) -> dict[str, list[int]]:
    """Return the rows of each name."""
    found: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        found.setdefault(name, []).append(row)
    return found


def decoded_spaces(kinds: Mapping[str, AnswerSpace], shared: bool) -> dict[str, AnswerSpace]:
    """Return the decoders that there are with their answers: of each kind, or one for all sequences of a form and one
    for all single values, over the texts that any kind has."""
    if not shared:
        return dict(kinds)
    found: dict[str, AnswerSpace] = {}
    for space in kinds.values():
        name = shared_name(space)
        old = found.get(name)
        elements = tuple(dict.fromkeys((*(old.elements if old else ()), *space.elements)))
        steps = max(space.steps, old.steps if old else 1)
        found[name] = AnswerSpace(elements, steps, space.joint, space.head)
    return found


def shared_name(space: AnswerSpace) -> str:
    """Name the decoder that kinds with such answers share."""
    return f"sequence{'_spaced' if space.joint else ''}" if space.is_sequence else "value"


def masked_mean(values_BLD: Tensor, padding_BL: Tensor) -> Tensor:
    """Return the mean over what is there."""
    kept = (~padding_BL).to(values_BLD.dtype)[:, :, None]
    return (values_BLD * kept).sum(dim=1) / kept.sum(dim=1).clamp(min=1)


def losses(logits_BTC: Tensor, numbers_BT: Tensor, space: AnswerSpace) -> Tensor:
    """Return the cross entropy (B) of answers: mean over the elements up to the first that ends a sequence."""
    num = logits_BTC.shape[1]
    if not space.is_sequence:
        return F.cross_entropy(logits_BTC[:, 0], numbers_BT[:, 0], reduction="none")
    each_BT = F.cross_entropy(logits_BTC.flatten(0, 1), numbers_BT[:, :num].flatten(), reduction="none").view(-1, num)
    kept_BT = counted(numbers_BT[:, :num], space)
    return (each_BT * kept_BT).sum(dim=1) / kept_BT.sum(dim=1)


def counted(numbers_BT: Tensor, space: AnswerSpace) -> Tensor:
    """Mark the steps that belong to an answer, its first end included."""
    ended_BT = (numbers_BT == space.end) if space.is_sequence else torch.zeros_like(numbers_BT, dtype=torch.bool)
    after_BT = ended_BT.cumsum(dim=1) - ended_BT.long()
    return after_BT == 0


def key(name: str) -> str:
    """Return a name under which PyTorch keeps a module: without points, and none of its own attributes."""
    return f"of_{name.replace('.', '_')}"


def _encoder(width: int, sizes: Sizes) -> nn.Module:
    return nn.Sequential(
        nn.Linear(width, sizes.repr), activation(sizes), nn.Linear(sizes.repr, sizes.repr), activation(sizes)
    )


def _decoder(space: AnswerSpace, sizes: Sizes) -> nn.Module:
    if not space.is_sequence:
        return Classes(space, sizes)
    return PublishedSteps(space, sizes) if sizes.sequence == "published" else Steps(space, sizes)
