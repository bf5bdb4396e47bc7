"""Frozen encoders of pictures and questions, whose states are kept on disk: what a small network sees with."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vlmreason.models.composed.loading import find_part, load_part, load_whole
from vlmreason.models.composed.towers import features, square, vision_config
from vlmreason.models.nano.model import BASES, load_nano
from vlmreason.models.networks.smarter_settings import Eye, Reader
from vlmreason.models.networks.store import FeatureStore, Vectors, content_key, picture_key
from vlmreason.pictures import Picture


class Tower:
    """A frozen vision tower: states of the places of pictures, pooled to grid x grid where there are more."""

    def __init__(self, name: str, settings: Eye, grid: int, folder: Path | None) -> None:
        """Raises ValueError where the tower cannot be loaded."""
        self.settings, self.grid = settings, grid
        self.side, self.mean, self.std = settings.side, settings.mean, settings.std
        self.source: dict[str, str] | None = None
        self.layer: int | None = None
        if settings.id in BASES:
            nano, processor = load_nano(BASES[settings.id])
            pictures: Any = processor.pictures
            self.model: nn.Module = nano.model.vision_tower
            self.side, self.layer = pictures.side, nano.config.vision_feature_layer
            self.mean, self.std = (pictures.pixel_mean,) * 3, (pictures.pixel_std,) * 3
        else:
            place = find_part(f"model.vision.{name}", settings.id, settings.revision)
            self.model, self.source = _hub_tower(place), place.source() if place.commit else None
        freeze(self.model)
        states = self._states([np.zeros((self.side, self.side, 3), np.uint8)])
        self.places, self.width = states.shape[1:]
        what = digest(self.model, self.side, self.mean, self.std, grid, self.layer)
        self.store = FeatureStore(folder, f"{name}-{what}", self.places * self.width)

    def numbers(self, images: Sequence[Picture]) -> list[int]:
        """Return the rows of pictures in the store; those that are not there are computed."""
        keys = [picture_key(image) for image in images]
        return self.store.computed(keys, lambda some: halves(self._states([images[at] for at in some]).flatten(1)))

    def states(self, numbers: Sequence[int]) -> Vectors:
        """Return states (N, places, width) of rows."""
        return self.store.vectors(numbers).reshape(len(numbers), self.places, self.width)

    @torch.no_grad()
    def _states(self, images: Sequence[Picture]) -> Tensor:
        mean, std = (torch.tensor(value).view(3, 1, 1) for value in (self.mean, self.std))
        squares = np.stack([square(image, self.side, "stretch", [0, 0, 0]) for image in images])
        pixels = (torch.from_numpy(squares).permute(0, 3, 1, 2).float() / 255 - mean) / std
        device = next(self.model.parameters()).device
        grid_NHWD = features(self.model, pixels.to(device), self.layer).float()
        if self.layer is not None:  # without the tower's last norm some channels are a hundred times others
            grid_NHWD = F.layer_norm(grid_NHWD, grid_NHWD.shape[3:])
        grid_NDHW = grid_NHWD.permute(0, 3, 1, 2)
        if grid_NDHW.shape[-1] > self.grid:
            grid_NDHW = F.adaptive_avg_pool2d(grid_NDHW, self.grid)
        return grid_NDHW.flatten(2).transpose(1, 2)


class Texts:
    """A frozen text encoder: states of the first tokens of texts."""

    def __init__(self, settings: Reader, folder: Path | None) -> None:
        """Raises ValueError where the encoder cannot be loaded."""
        self.settings = settings
        self.source: dict[str, str] | None = None
        self._ids: Callable[[str], list[int]]
        if settings.id in BASES:
            nano, processor = load_nano(BASES[settings.id])
            self.model: Any = nano.model.language_model
            self._ids = lambda text: processor.prompt_ids(text, None)
            self.width = int(nano.config.text_config.hidden_size)
        else:
            place = find_part("model.text", settings.id, settings.revision)
            self.model, tokenizer = _hub_text(place)
            self.source = place.source() if place.commit else None
            options: dict[str, Any] = {"truncation": True, "max_length": settings.tokens}
            if settings.padded:
                options["padding"] = "max_length"
            self._ids = lambda text: tokenizer(text, **options)["input_ids"]
            self.width = int(self.model.config.hidden_size)
        freeze(self.model)
        what = digest(self.model, settings.tokens, settings.padded)
        self.store = FeatureStore(folder, f"text-{what}", 1 + settings.tokens * self.width)

    def numbers(self, texts: Sequence[str]) -> list[int]:
        """Return the rows of texts in the store; those that are not there are computed."""
        keys = [content_key(text.encode(errors="surrogatepass")) for text in texts]
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))  # filled up to one of like length
        ordered = [texts[place] for place in order]
        rows = self.store.computed(
            [keys[place] for place in order], lambda some: halves(self._states([ordered[at] for at in some]))
        )
        found = dict(zip(order, rows, strict=True))
        return [found[place] for place in range(len(texts))]

    def states(self, numbers: Sequence[int]) -> tuple[Vectors, list[int]]:
        """Return states (N, tokens, width) of rows, and how many tokens each text has."""
        rows = self.store.vectors(numbers)
        lengths = [int(length) for length in rows[:, 0]]
        return rows[:, 1:].reshape(len(rows), self.settings.tokens, self.width), lengths

    @torch.no_grad()
    def _states(self, texts: Sequence[str]) -> Tensor:
        """Of each text its number of tokens and their states, filled up with zeros."""
        ids = [self._ids(text)[: self.settings.tokens] for text in texts]
        lengths, device = [len(some) for some in ids], next(self.model.parameters()).device
        longest = max(lengths)
        input_ids = torch.tensor([[*some, *[0] * (longest - len(some))] for some in ids], device=device)
        mask = torch.tensor([[1] * num + [0] * (longest - num) for num in lengths], device=device)
        masked = {} if self.settings.padded else {"attention_mask": mask}
        found_NLD = self.model(input_ids=input_ids, **masked).last_hidden_state.float() * mask[:, :, None]
        rows = torch.zeros(len(texts), 1 + self.settings.tokens * self.width)
        rows[:, 0] = torch.tensor(lengths)
        rows[:, 1 : 1 + longest * self.width] = found_NLD.flatten(1).cpu()
        return rows


def freeze(model: nn.Module) -> None:
    """Bring a model to where it never changes."""
    model.eval().requires_grad_(False)


def digest(model: nn.Module, *settings: object) -> str:
    """Return 16 hexadecimal digits of all weights of an encoder and of how it is used."""
    found = hashlib.blake2b(repr(settings).encode(), digest_size=8)
    for name, tensor in sorted(model.state_dict().items()):
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _hub_tower(place: Any) -> nn.Module:
    from transformers import AutoConfig, AutoModel

    config = vision_config(load_part(place, AutoConfig.from_pretrained))
    if hasattr(config, "mask_ratio"):
        config.mask_ratio = 0.0  # MAE: nothing is hidden; its places come in any order
    tower: nn.Module = load_whole(place, AutoModel, {"config": config, "dtype": torch.float32})
    return tower


def _hub_text(place: Any) -> tuple[Any, Any]:
    from transformers import AutoConfig, AutoModel, AutoTokenizer, SiglipTextModel

    config = load_part(place, AutoConfig.from_pretrained)
    config = getattr(config, "text_config", None) or config
    tokenizer: Any = load_part(place, AutoTokenizer.from_pretrained)
    kind = SiglipTextModel if config.model_type == "siglip_text_model" else AutoModel  # which AutoModel does not know
    return load_whole(place, kind, {"config": config, "dtype": torch.float32}), tokenizer


def halves(values: Tensor) -> Vectors:
    """Return numbers in float16; what is beyond its range becomes its end."""
    most = float(np.finfo(np.float16).max)
    return values.clamp(-most, most).cpu().numpy().astype(np.float16)


def eyes(vision: Mapping[str, Eye], grid: int, folder: Path | None) -> list[Tower]:
    """Open all towers. Raises ValueError where their places differ, so that their states cannot be joined."""
    found = [Tower(name, settings, grid, folder) for name, settings in vision.items()]
    if len({tower.places for tower in found}) > 1:
        sizes = ", ".join(f"{name} {tower.places}" for name, tower in zip(vision, found, strict=True))
        raise ValueError(f"model.vision: the towers see different places ({sizes}); a smaller model.grid joins them")
    return found
