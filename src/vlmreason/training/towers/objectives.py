"""Two ways to teach a small tower: by captions, which leave out what they leave out, and by the pictures alone.

captions (CLIP): a picture is drawn to every caption of the batch that holds of it. A caption names some of a picture's
facts, so several pictures fit it; all of them are right ones. What no caption ever names, nothing asks for.

views: of two views of a picture, each shifted by itself and changed in shade and noise, one vector is told from those
of other pictures (instance discrimination), and the places of the second view, of which some are blanked, tell the
pixels of all places as they are (masked reconstruction). Told apart by place and colour alone a tower would be blind to
form; the second task asks every place what it shows, which no caption does.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vlmreason.models.embedders import HubEncoder, vectors_in

Facts = Mapping[str, str]

MOST_SCALE = 100.0  # of cosines, as CLIP bounds it
_BRIGHTNESS, _CONTRAST, _NOISE = 0.15, 0.15, 0.05
_HALVED = 2  # pixels are told at half of their resolution


def named(facts: Facts, allowed: Sequence[str], rng: random.Random) -> Facts:
    """Return what a caption names of a picture: some of the facts that captions may name, one or more."""
    kept = rng.sample(list(allowed), rng.randint(1, len(allowed)))
    return {name: facts[name] for name in allowed if name in kept}


def fits(pictures: Sequence[Facts], captions: Sequence[Facts]) -> Tensor:
    """Tell which captions hold of which pictures, (N, M) of 0 and 1."""
    rows = [[caption.items() <= facts.items() for caption in captions] for facts in pictures]
    return torch.tensor(rows, dtype=torch.float32)


def caption_loss(encoder: HubEncoder, pixels_BCHW: Tensor, texts: Sequence[str], fits_BB: Tensor) -> Tensor:
    """Return the cross entropy of pictures over captions and of captions over pictures, right ones of equal weight."""
    model = encoder.model
    pictures_BD = F.normalize(vectors_in(model.get_image_features(pixel_values=pixels_BCHW)))
    tokens = encoder.tokens(texts).to(pixels_BCHW.device)
    texts_BD = F.normalize(vectors_in(model.get_text_features(**tokens)))
    logits_BB = model.logit_scale.exp().clamp(max=MOST_SCALE) * pictures_BD @ texts_BD.T
    wanted = fits_BB / fits_BB.sum(dim=1, keepdim=True), fits_BB.T / fits_BB.T.sum(dim=1, keepdim=True)
    return (F.cross_entropy(logits_BB, wanted[0]) + F.cross_entropy(logits_BB.T, wanted[1])) / 2


class ViewLoss(nn.Module):
    """The task of views, with the layer that tells pixels, which is thrown away afterwards.

    shift: most of a view (px); blanked: share of the places of the second view; temperature: of the cosines.
    """

    def __init__(self, width: int, patch: int, shift: int, blanked: float, temperature: float, seed: int) -> None:
        super().__init__()
        self.patch, self.shift, self.blanked, self.temperature = patch, shift, blanked, temperature
        self.tell = nn.Linear(width, 3 * (patch // _HALVED) ** 2)
        drawn = torch.Generator().manual_seed(seed)
        nn.init.normal_(self.tell.weight, std=0.02, generator=drawn)
        nn.init.zeros_(self.tell.bias)

    def forward(self, tower: Any, pixels_BCHW: Tensor, generator: torch.Generator) -> Tensor:
        """Return the loss of one batch; `tower`: the side for pictures of a CLIP."""
        first, second = (shifted(pixels_BCHW, self.shift, generator) for _ in range(2))
        shown_BP = torch.rand(len(second), (second.shape[-1] // self.patch) ** 2, generator=generator) >= self.blanked
        seen = blank(changed(second, generator), shown_BP, self.patch)
        one_BD = F.normalize(tower(pixel_values=changed(first, generator)).pooler_output)
        out = tower(pixel_values=seen)
        logits_BB = one_BD @ F.normalize(out.pooler_output).T / self.temperature
        own_B = torch.arange(len(logits_BB))
        apart = (F.cross_entropy(logits_BB, own_B) + F.cross_entropy(logits_BB.T, own_B)) / 2
        wanted_BPF = in_places(F.avg_pool2d(second, _HALVED), self.patch // _HALVED)
        told: Tensor = F.mse_loss(self.tell(out.last_hidden_state[:, 1:]), wanted_BPF)
        return apart + told


def shifted(pixels_BCHW: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Move every picture by itself, up to `most` px across and down; its edge is continued."""
    side = pixels_BCHW.shape[-1]
    wide = F.pad(pixels_BCHW, (most,) * 4, mode="replicate")
    moves = torch.randint(0, 2 * most + 1, (len(pixels_BCHW), 2), generator=generator).tolist()
    return torch.stack([one[:, y : y + side, x : x + side] for one, (y, x) in zip(wide, moves, strict=True)])


def changed(pixels_BCHW: Tensor, generator: torch.Generator) -> Tensor:
    """Change every picture's contrast and brightness by itself, and add noise."""
    contrast, brightness = torch.rand(2, len(pixels_BCHW), 1, 1, 1, generator=generator) * 2 - 1
    noise = torch.randn(pixels_BCHW.shape, generator=generator)
    found: Tensor = pixels_BCHW * (1 + _CONTRAST * contrast) + _BRIGHTNESS * brightness + _NOISE * noise
    return found


def blank(pixels_BCHW: Tensor, shown_BP: Tensor, patch: int) -> Tensor:
    """Set the places that are not shown to the ground's value, 0."""
    places = pixels_BCHW.shape[-1] // patch
    mask_B1HW = shown_BP.reshape(-1, 1, places, places).float()
    return pixels_BCHW * F.interpolate(mask_B1HW, scale_factor=patch, mode="nearest")


def in_places(pixels_BCHW: Tensor, patch: int) -> Tensor:
    """Cut pictures into places, row by row, (B, P, C patch patch)."""
    return F.unfold(pixels_BCHW, patch, stride=patch).transpose(1, 2)
