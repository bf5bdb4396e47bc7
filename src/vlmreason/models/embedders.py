"""Give whole pictures one vector each, and texts too where a model has both: what pairs are mined and matched by.

An embedder is an `Embedder` of the contract with the width of its vectors and a name for all that decides them. Of a
model of pictures and texts (CLIP, SigLIP) its vectors are those that it compares; of a tower alone what it pools itself
(DINOv2: the class token behind the last norm), else its class token, else the mean over places; of a model of the
suite the mean over what its tower gives the projector; of none the pixels. What is seen once is kept on disk.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vlmreason.files import write_json_atomic
from vlmreason.models.composed.loading import Place, find_part, load_part, load_whole
from vlmreason.models.composed.towers import square
from vlmreason.models.contract import Prompt
from vlmreason.models.networks.encoders import digest, freeze, halves
from vlmreason.models.networks.features import placed_states, tower_states
from vlmreason.models.networks.store import FeatureStore, picture_key
from vlmreason.models.vlm.hugging_face import download
from vlmreason.models.vlm.learner import Learner
from vlmreason.models.vlm.saved import read_config
from vlmreason.pictures import Picture

_SEEN = "preprocessor_config.json"
PIXELS = 32  # px, side of pictures that are compared as they are


class PictureEmbedder(Protocol):
    """What gives pictures vectors. identity: names it to the last weight, in a few characters; both: whether it gives
    vectors of texts, too, that are compared with them."""

    width: int
    identity: str
    both: bool

    def embed(self, prompts: Sequence[Prompt]) -> Tensor:
        """Give one vector for each prompt, (B, D) in float32. Raises ValueError where it has none."""


class Pixels:
    """The pixels of pictures, stretched to a square, from -1 to 1."""

    width = 3 * PIXELS**2
    identity = f"pixels-{PIXELS}"
    both = False

    def embed(self, prompts: Sequence[Prompt]) -> Tensor:
        """Return pixels (B, D). Raises ValueError for a text."""
        squares = np.stack([square(_picture(prompt), PIXELS, "stretch", (0, 0, 0)) for prompt in prompts])
        return torch.from_numpy(squares).flatten(1).float() / 127.5 - 1


class TowerOf:
    """The vision tower of a model of the suite that has LLaVA's layout."""

    both = False

    def __init__(self, base: Learner) -> None:
        """Raises ValueError for another layout."""
        self.base, self.side = base, getattr(base.processor.pictures, "side", None)
        freeze(base.model)
        self.width = int(self.embed([Prompt("", np.full((8, 8, 3), 127, np.uint8))]).shape[1])
        inner = base.model.model
        seen = repr(vars(base.processor.pictures))
        self.identity = digest(inner.vision_tower, seen, inner.config.vision_feature_layer)

    @torch.no_grad()
    def embed(self, prompts: Sequence[Prompt]) -> Tensor:
        """Return means over places (B, D). Raises ValueError for a text."""
        shown = [Prompt("", self._sized(_picture(prompt))) for prompt in prompts]
        return tower_states(self.base, shown).mean(dim=1).cpu()

    @torch.no_grad()
    def places(self, prompts: Sequence[Prompt], grid: int) -> Tensor:
        """Return what the projector gets of pictures (B, F), of grid x grid places."""
        return placed_states(self.base, [Prompt("", self._sized(_picture(one))) for one in prompts], grid).cpu()

    def _sized(self, picture: Picture) -> Picture:
        """A picture at the side of a model that takes one size alone."""
        return picture if self.side is None else square(picture, self.side, "stretch", (0, 0, 0))


@dataclass(frozen=True)
class Sight:
    """How an encoder sees: pictures are resized to resized x resized (crop: their shorter edge alone), and the middle
    side x side is what is seen (px); `resample`: PIL's number of the way; mean, std: of pixels in [0, 1]."""

    side: int
    resized: int
    crop: bool
    resample: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def pixels(self, images: Sequence[Picture]) -> Tensor:
        """Return pictures as an encoder gets them (B, 3, side, side)."""
        mean, std = (torch.tensor(value).view(3, 1, 1) for value in (self.mean, self.std))
        seen = torch.from_numpy(np.stack([self._square(image) for image in images])).permute(0, 3, 1, 2)
        return (seen.float() / 255 - mean) / std

    def save(self, directory: Path) -> None:
        """Write it where an encoder's directory says how it sees."""
        write_json_atomic(
            directory / _SEEN,
            {
                "size": self.resized, "do_center_crop": self.crop, "crop_size": self.side, "resample": self.resample,
                "image_mean": list(self.mean), "image_std": list(self.std),
            },
        )  # fmt: skip

    def _square(self, picture: Picture) -> Picture:
        image, way = Image.fromarray(picture), Image.Resampling(self.resample)
        if not self.crop:
            return np.asarray(image.resize((self.side, self.side), way))
        scale = self.resized / min(image.size)
        width, height = (max(self.side, round(length * scale)) for length in image.size)
        left, top = (width - self.side) // 2, (height - self.side) // 2
        return np.asarray(image.resize((width, height), way).crop((left, top, left + self.side, top + self.side)))


class HubEncoder:
    """An encoder of the hub or of a directory, of pictures or of pictures and texts."""

    def __init__(self, where: str, id: str, revision: str | None = None) -> None:
        """Load it; `where`: the setting that names it. Raises ValueError."""
        from transformers import AutoConfig, AutoModel, AutoTokenizer

        place = find_part(where, id, revision)
        config: Any = load_part(place, AutoConfig.from_pretrained)
        self.both = hasattr(config, "vision_config") and hasattr(config, "text_config")
        self.sight = _sight(place)
        self.source = place.source() if place.commit else None
        self.model: Any = load_whole(place, AutoModel, _without_pooler(config) | {"dtype": torch.float32})
        if self.both and not hasattr(self.model, "get_image_features"):
            raise ValueError(f"{where}={id}: {type(self.model).__name__} has no vectors of whole pictures")
        self.tokenizer: Any = load_part(place, AutoTokenizer.from_pretrained) if self.both else None
        freeze(self.model)
        self.identity = digest(self.model, self.sight)
        try:
            self.width = int(self._pictures([np.full((8, 8, 3), 127, np.uint8)]).shape[1])
        except (ValueError, TypeError, AttributeError, RuntimeError, IndexError) as error:
            raise ValueError(f"{where}={id}: {type(self.model).__name__} is no encoder of pictures") from error

    def embed(self, prompts: Sequence[Prompt]) -> Tensor:
        """Return vectors (B, D) of pictures, or of texts. Raises ValueError for a text where there is no side for it,
        and for both in one prompt."""
        if all(prompt.image is None for prompt in prompts):
            return self._texts([prompt.text for prompt in prompts])
        return self._pictures([_picture(prompt) for prompt in prompts])

    @torch.no_grad()
    def _pictures(self, images: Sequence[Picture]) -> Tensor:
        pixels = self.sight.pixels(images).to(self.model.device)
        if self.both:
            return vectors_in(self.model.get_image_features(pixel_values=pixels)).float().cpu()
        out = self.model(pixel_values=pixels)
        if (pooled := getattr(out, "pooler_output", None)) is not None:
            found: Tensor = pooled.flatten(1)
            return found.float().cpu()
        states_BLD = out.last_hidden_state
        classes = states_BLD.shape[1] > (self.sight.side // self.model.config.patch_size) ** 2
        whole: Tensor = states_BLD[:, 0] if classes else states_BLD.mean(dim=1)
        return whole.float().cpu()

    @torch.no_grad()
    def _texts(self, texts: Sequence[str]) -> Tensor:
        if not self.both:
            raise ValueError(f"{type(self.model).__name__}: it sees pictures alone, and has no vectors of texts")
        found = self.model.get_text_features(**self.tokens(texts).to(self.model.device))
        return vectors_in(found).float().cpu()

    def tokens(self, texts: Sequence[str]) -> Any:
        """Return texts as the model gets them, what is too long cut off."""
        most = int(self.model.config.text_config.max_position_embeddings)
        fill = "max_length" if self.model.config.model_type.startswith("siglip") else "longest"
        return self.tokenizer(list(texts), padding=fill, truncation=True, max_length=most, return_tensors="pt")

    def save(self, directory: Path) -> None:
        """Write what opens again by the directory's name."""
        self.model.save_pretrained(directory, safe_serialization=True)
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(directory)
        self.sight.save(directory)


class KeptVectors:
    """Vectors of pictures, computed once and kept on disk by the pictures' content."""

    def __init__(self, name: str, embedder: PictureEmbedder, folder: Path | None) -> None:
        """Raises ValueError where the file is of another embedder. folder: None for this run only."""
        self.name, self.embedder = name, embedder
        self.store = FeatureStore(folder, f"whole-{embedder.identity}", embedder.width)

    def numbers(self, images: Sequence[Picture]) -> list[int]:
        """Return the rows of pictures in the store; those that are not there are computed."""

        def see(some: Sequence[int]) -> NDArray[np.float16]:
            return halves(self.embedder.embed([Prompt("", images[at]) for at in some]))

        return self.store.computed([picture_key(image) for image in images], see)

    def of_length_1(self, numbers: NDArray[np.int64]) -> UnitVectors:
        """Return the vectors of rows, read when they are asked for."""
        return UnitVectors(self.name, self.store, numbers)


@dataclass(frozen=True)
class UnitVectors:
    """Vectors (N, D) of length 1, of which no more is in memory than is asked for."""

    name: str
    store: FeatureStore
    numbers: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, rows: Any) -> NDArray[np.float32]:
        """Return some of them, by a slice or by numbers. Raises ValueError for one of no direction."""
        found = self.store.vectors(self.numbers[rows]).astype(np.float32)
        lengths = np.sqrt(np.einsum("nd,nd->n", found, found))[:, None]
        if not (np.isfinite(lengths).all() and lengths.all()):
            raise ValueError(f"{self.name}: a picture has a vector of no direction")
        return np.asarray(found / lengths, np.float32)


def _picture(prompt: Prompt) -> Picture:
    if prompt.image is None or prompt.text:
        raise ValueError("a picture alone is expected: this tower has vectors of nothing else")
    return prompt.image


def vectors_in(found: Any) -> Tensor:
    """Return the vectors in what a library's model returns."""
    vectors: Tensor = found if isinstance(found, Tensor) else found.pooler_output
    return vectors


def _without_pooler(config: Any) -> dict[str, Any]:
    """Options of a model whose pooler stands behind its class token, and is not trained with it (ViT)."""
    from transformers import AutoModel

    kind: Any = AutoModel._model_mapping.get(type(config), None)
    takes = kind is not None and "add_pooling_layer" in inspect.signature(kind).parameters
    return {"add_pooling_layer": False} if takes else {}


def _sight(place: Place) -> Sight:
    """How pictures are shown, by preprocessor_config.json. Raises ValueError."""
    name = _SEEN
    if place.commit is None:
        path = Path(place.id) / name
        if not path.is_file():
            raise ValueError(f"{place.where}={place.id}: {name} is missing, which says how pictures are seen")
    else:
        path = download(place.id, place.commit, name)
    data = read_config(path)
    try:
        resized = _length(data["size"])
        crop = bool(data.get("do_center_crop", False))
        side = _length(data["crop_size"]) if crop else resized
        mean, std = (tuple(map(float, data[key])) for key in ("image_mean", "image_std"))
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0 or not 1 <= side <= resized:
            raise ValueError
        return Sight(side, resized, crop, int(Image.Resampling(data.get("resample", 3))), mean, std)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: size, crop_size, image_mean and image_std are not those of square pictures"
        ) from error


def _length(size: int | Mapping[str, int]) -> int:
    """The side of a square by a setting of a library."""
    if isinstance(size, int):
        return size
    if "shortest_edge" in size:
        return int(size["shortest_edge"])
    if size["height"] != size["width"]:
        raise ValueError
    return int(size["height"])
