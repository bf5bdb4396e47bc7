"""Vision towers of composed models: any Hugging Face vision model as a grid of features.

What differs between towers is read off one pass on the meta device: a feature map (ConvNeXt) is a grid already; a
sequence (CLIP, SigLIP, DINOv2) is one behind its class and register tokens.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from vlmreason.models.vlm.processor import Pictures
from vlmreason.pictures import Picture
from vlmreason.structure import first_line

Fit = Literal["pad", "stretch"]


@dataclass(frozen=True)
class Tower:
    """A vision tower of conf/model: where it is, and how it sees pictures.

    layer: number of the hidden state that is taken, -2 the last but one; None: the tower's own last one, with its
    final norm. mean, std: of pixels in [0, 1], per colour; side (px): pictures are resized to side x side.
    """

    id: str
    side: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    layer: int | None = None
    revision: str | None = None

    def __post_init__(self) -> None:
        if self.side < 1:
            raise ValueError(f"side={self.side} of tower {self.id}: 1 px or more is expected")
        if min(self.std) <= 0:
            raise ValueError(f"std={list(self.std)} of tower {self.id}: more than 0 is expected")


def vision_config(config: Any) -> Any:
    """Return the vision part of a configuration, which may be that of a model of pictures and texts (CLIP, SigLIP)."""
    return getattr(config, "vision_config", None) or config


def build_tower(config: Mapping[str, Any], attention: str | None = None) -> nn.Module:
    """Return an untrained tower from its configuration as a mapping with `model_type`."""
    from transformers import CONFIG_MAPPING, AutoModel

    made = CONFIG_MAPPING[config["model_type"]].from_dict(dict(config))
    # other kernels only where a tower supports them: its own choice
    chosen = attention if attention == "eager" else None
    tower: nn.Module = AutoModel.from_config(  # type: ignore[no-untyped-call]
        made,
        attn_implementation=chosen,
        dtype=torch.get_default_dtype(),  # not as it was once saved: as the whole is
    )
    return tower


def tower_grid(config: Mapping[str, Any], side: int, layer: int | None) -> tuple[int, int, int]:
    """Return height, width and channels of the features of a picture. Raises ValueError where they are no grid."""
    where = f"tower {config['model_type']} at side={side}"
    with torch.device("meta"):
        try:
            tower = build_tower(config).eval()
            _, height, width, channels = features(tower, torch.zeros(1, 3, side, side), layer).shape
        except ImportError as error:  # timm's towers
            raise ValueError(f"{where}: {first_line(error)}") from error
        except (ValueError, RuntimeError, IndexError, TypeError, AttributeError) as error:
            raise ValueError(f"{where}: gives no grid of features ({first_line(error)})") from error
    return height, width, channels


def describe(towers: Mapping[str, tuple[Tower, Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Return of each tower what a composed model's configuration holds. Raises ValueError."""
    described = []
    for name, (tower, config) in towers.items():
        try:
            height, width, channels = tower_grid(config, tower.side, tower.layer)
        except ValueError as error:
            raise ValueError(f"model.towers.{name}: {error}") from error
        own = {"side": tower.side, "mean": list(tower.mean), "std": list(tower.std), "layer": tower.layer}
        found = {"grid": [height, width], "channels": channels}
        described.append({"name": name, "config": dict(config)} | own | found)
    return described


def features(tower: nn.Module, pixels_PCHW: Tensor, layer: int | None) -> Tensor:
    """Return features (P, h, w, D) of P pictures."""
    config: Any = tower.config
    options: dict[str, Any] = {} if layer is None else {"output_hidden_states": True}
    if "interpolate_pos_encoding" in inspect.signature(tower.forward).parameters:
        options["interpolate_pos_encoding"] = pixels_PCHW.shape[-1] != getattr(config, "image_size", None)
    out = tower(pixels_PCHW, return_dict=True, **options)
    found: Tensor = out.last_hidden_state if layer is None else out.hidden_states[layer]
    if found.ndim == 4:  # a feature map (P, D, h, w)
        return found.permute(0, 2, 3, 1)
    if found.ndim != 3:
        raise ValueError(f"a tensor of {found.ndim} dimensions")
    places = _places(found.shape[1], pixels_PCHW.shape[-1], getattr(config, "patch_size", None))
    return found[:, -places * places :].reshape(len(found), places, places, -1)


def _places(length: int, side: int, patch: Any) -> int:
    """Side of the square grid at the end of a sequence; a few tokens (class, registers) may lie before it."""
    places = math.isqrt(length)
    if isinstance(patch, int) and (side // patch) ** 2 <= length:
        places = side // patch
    if places == 0 or length - places * places > max(places, 8):
        raise ValueError(f"{length} tokens, of which {places} x {places} would be the picture")
    return places


class ComposedPictures(Pictures):
    """Pictures of any size, resized for each tower; `pixel_values` (P, sum of 3 side side) holds all in a row.

    fit: pad (to a square, in the towers' mean colour, so that nothing is lost or distorted) or stretch.
    """

    def __init__(self, placeholder_id: int, num_tokens: int, towers: Sequence[Mapping[str, Any]], fit: Fit) -> None:
        self.placeholder_id, self.num_tokens, self.towers, self.fit = placeholder_id, num_tokens, towers, fit

    def expand(self, height: int, width: int) -> list[int]:
        return [self.placeholder_id] * self.num_tokens

    def inputs(self, input_ids_BL: Tensor, images: Sequence[Sequence[Picture]]) -> dict[str, Tensor]:
        flat = [image for row in images for image in row]
        if not flat:
            return {}
        return {"pixel_values": torch.cat([self._pixels(flat, tower) for tower in self.towers], dim=1)}

    def _pixels(self, images: Sequence[Picture], tower: Mapping[str, Any]) -> Tensor:
        """Pixels (P, 3 side side) for one tower."""
        mean, std = (torch.tensor(tower[key]).view(3, 1, 1) for key in ("mean", "std"))
        colour = [round(255 * value) for value in tower["mean"]]
        squares = np.stack([square(image, tower["side"], self.fit, colour) for image in images])
        pixels_PCHW = torch.from_numpy(squares).permute(0, 3, 1, 2)
        return ((pixels_PCHW.float() / 255 - mean) / std).flatten(1)


def square(picture: Picture, side: int, fit: Fit, colour: Sequence[int]) -> Picture:
    """Return the picture at side x side px."""
    height, width = picture.shape[:2]
    if (height, width) == (side, side):
        return picture
    scale = side / max(height, width)
    size = (side, side) if fit == "stretch" else (max(1, round(width * scale)), max(1, round(height * scale)))
    resized = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))
    whole = np.empty((side, side, 3), np.uint8)
    whole[:] = colour
    top, left = (side - size[1]) // 2, (side - size[0]) // 2
    whole[top : top + size[1], left : left + size[0]] = resized
    return whole
