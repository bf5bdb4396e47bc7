"""Features of one or several vision towers into the tokens of a language model.

channel: the features of all towers, resampled to one grid, side by side in the channels (Eagle; with one tower:
LLaVA). additive: alpha of the first tower's and 1 - alpha of the second's features (A-MoF). interleaved: place by
place the tokens of all towers in turn, the order of places kept (I-MoF). Both MoF: chapter 3 of Tong et al.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Grid = tuple[int, int]


@dataclass(frozen=True)
class Fusion:
    """How towers are joined, in conf/model. Raises ValueError.

    adapters: one projector for all towers (shared), or one for each (own); None: shared, of interleaved own, as in the
    papers. additive with shared adapters mixes before the projector, with own ones after.
    grid: (height, width) to which all features are resampled; None: of channel the first tower's, else all must
    have the same.
    """

    kind: Literal["channel", "additive", "interleaved"] = "channel"
    projector: Literal["linear", "mlp2x_gelu"] = "mlp2x_gelu"
    alpha: float | None = None
    adapters: Literal["shared", "own"] | None = None
    grid: Grid | None = None

    def __post_init__(self) -> None:
        if self.kind == "additive" and (self.alpha is None or not 0 <= self.alpha <= 1):
            raise ValueError(f"model.fusion.alpha={self.alpha}: the first tower's share, 0 to 1, is expected")
        if self.kind != "additive" and self.alpha is not None:
            raise ValueError(f"model.fusion.alpha={self.alpha}: has no effect with kind={self.kind}")
        if self.kind == "channel" and self.adapters == "own":
            raise ValueError("model.fusion.adapters=own: kind=channel has one projector for all towers")
        if self.grid is not None and min(self.grid) < 1:
            raise ValueError(f"model.fusion.grid={list(self.grid)}: two numbers of 1 or more are expected")

    @property
    def own_adapters(self) -> bool:
        return (self.adapters or ("own" if self.kind == "interleaved" else "shared")) == "own"

    def on(self, towers: Sequence[Mapping[str, Any]]) -> Fusion:
        """Return it with the grid of the joined features; `towers`: `grid` and `channels` of each.

        Raises ValueError where they cannot be joined in this way.
        """
        grids = [(int(tower["grid"][0]), int(tower["grid"][1])) for tower in towers]
        channels = [tower["channels"] for tower in towers]
        where = f"model.fusion.kind={self.kind}"
        if self.kind == "additive" and len(grids) != 2:
            raise ValueError(f"{where}: needs two towers, model.towers has {len(grids)}")
        if self.kind == "interleaved" and len(grids) < 2:
            raise ValueError(f"{where}: needs two towers or more, model.towers has {len(grids)}")
        if self.kind != "channel" and not self.own_adapters and len(set(channels)) > 1:
            raise ValueError(
                f"{where}: the towers have {_and(channels)} channels, one adapter for all needs the same "
                "(model.fusion.adapters=own)"
            )
        if self.kind != "channel" and self.grid is None and len(set(grids)) > 1:
            shown = _and(f"{height} x {width}" for height, width in grids)
            raise ValueError(
                f"{where}: the towers have grids of {shown} places, the same are needed: choose their sides so, "
                "or resample with model.fusion.grid"
            )
        return replace(self, grid=self.grid or grids[0])

    def num_tokens(self, num_towers: int) -> int:
        """Return tokens of a picture."""
        assert self.grid is not None
        return self.grid[0] * self.grid[1] * (num_towers if self.kind == "interleaved" else 1)


class Projector(nn.Module):
    """Features to the width of the language model, as in LLaVA: one linear layer, or two with a GELU between."""

    def __init__(self, kind: str, num_channels: int, width: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(num_channels, width)
        self.linear_2 = nn.Linear(width, width) if kind == "mlp2x_gelu" else None

    def forward(self, features: Tensor) -> Tensor:
        hidden: Tensor = self.linear_1(features)
        return hidden if self.linear_2 is None else self.linear_2(F.gelu(hidden))


class FusionProjector(nn.Module):
    """Feature grids (P, h, w, channels) of each tower to tokens (P, N, width)."""

    def __init__(self, settings: Fusion, channels: Sequence[int], grid: Grid, width: int) -> None:
        super().__init__()
        self.settings, self.channels, self.grid = settings, tuple(channels), grid
        if settings.kind == "channel":
            sizes = [sum(channels)]
        else:
            sizes = list(channels) if settings.own_adapters else [channels[0]]
        self.adapters = nn.ModuleList(Projector(settings.projector, size, width) for size in sizes)

    def forward(self, grids: Sequence[Tensor]) -> Tensor:
        features = [resample(grid, self.grid).flatten(1, 2) for grid in grids]
        if self.settings.kind == "channel":
            features = [torch.cat(features, dim=-1)]
        elif self.settings.kind == "additive" and not self.settings.own_adapters:
            features = [self._mix(features)]
        adapters = self.adapters if len(self.adapters) > 1 else [self.adapters[0]] * len(features)
        tokens = [adapter(feature) for adapter, feature in zip(adapters, features, strict=True)]
        if self.settings.kind == "additive" and len(tokens) == 2:
            return self._mix(tokens)
        return torch.stack(tokens, dim=2).flatten(1, 2)

    def nothing(self) -> Tensor:
        """Return zero that depends on all weights: a batch without pictures then has a gradient for them."""
        return sum((parameter.sum() for parameter in self.parameters()), start=torch.zeros(())) * 0.0

    def _mix(self, features: Sequence[Tensor]) -> Tensor:
        alpha = self.settings.alpha
        assert alpha is not None
        return alpha * features[0] + (1 - alpha) * features[1]


def resample(features_PHWD: Tensor, grid: Grid) -> Tensor:
    """Return features on another grid, bilinearly; the same tensor where the grid is the same."""
    if tuple(features_PHWD.shape[1:3]) == grid:
        return features_PHWD
    resized = F.interpolate(features_PHWD.permute(0, 3, 1, 2).float(), size=grid, mode="bilinear", align_corners=False)
    return resized.permute(0, 2, 3, 1).to(features_PHWD.dtype)


def _and(things: Iterable[object]) -> str:
    return " and ".join(map(str, things))
