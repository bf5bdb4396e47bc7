"""Files of a saved model, wherever they come from: what is not ours to obey is refused before a model is built of it.

A library builds whatever a configuration says: ten million layers, an embedding of a terabyte. So numbers that size
something have limits, and a folder's model may not be much larger than the weights that lie beside its configuration.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from vlmreason.files import check_ordinary, read_object, read_text
from vlmreason.structure import first_line

MAX_LAYERS = 1000  # the deepest models have some hundred
MAX_SIZE = 2**20  # widths and entries of vocabularies: the largest have a quarter of it
MAX_POSITIONS = 2**27
MAX_SIDE = 2**14  # pixels
MAX_TEMPLATE_BYTES = 2**20
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
MAX_EXTRA = 2**22  # parameters that a model may have beyond its weights: tables that are computed

_LIMITS = (
    (re.compile(r"layers?$|depths?$"), MAX_LAYERS),
    (re.compile(r"position"), MAX_POSITIONS),
    (re.compile(r"token_id$|token_index$"), MAX_SIZE),
    (re.compile(r"edge$|pixels$"), 2**25),  # of some families the pixels of a picture, of others of a side
    (re.compile(r"image_size|crop_size|side$|height$|size.width$"), MAX_SIDE),
    (re.compile(r"size|dim|width|head|expert|channel|vocab|num_|seq_length|rank|grid|factor|stride|group"), MAX_SIZE),
)
"""Limits of whole numbers by their keys; the first that fits counts."""


def read_config(path: Path) -> dict[str, Any]:
    """Return a JSON object that says how a model is built or sees. Raises ValueError naming file and key."""
    data = read_object(path)
    for key, value in _numbers(data):
        limit = next((limit for pattern, limit in _LIMITS if pattern.search(key)), None)
        if limit is not None and abs(value) > limit:
            raise ValueError(f"{path}: {key[-80:]}={value}: at most {limit:,} are built")
    _check_tokens(path, data)
    return data


def _check_tokens(path: Path, data: Any) -> None:
    """Raise ValueError where the number of a token is none."""
    for key, value in data.items() if isinstance(data, dict) else ():
        listed = value if isinstance(value, list) else [] if value is None else [value]
        if str(key).endswith("token_id") and not all(type(token) is int and token >= -1 for token in listed):
            raise ValueError(f"{path}: {str(key)[-80:]}: numbers of tokens are expected")
        _check_tokens(path, value)


def check_beside(directory: Path) -> None:
    """Raise ValueError where a folder lacks a file of its tokenizer, without which a library takes defaults, or where
    its settings for generation are damaged."""
    if (directory / "generation_config.json").exists():
        read_config(directory / "generation_config.json")
    for name in TOKENIZER_FILES:
        if not (directory / name).exists():
            raise ValueError(f"{directory}: the model has no {name}")
        check_tokenizer_file(directory / name)


def check_tokenizer_file(path: Path) -> None:
    """Raise ValueError for a damaged file of a tokenizer, and for numbers of tokens up to which a library would make
    tables of gigabytes."""
    data = read_object(path, any_number=True)
    model, added = data.get("model"), data.get("added_tokens")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    numbers = [*vocabulary.values()] if isinstance(vocabulary, dict) else []
    numbers += [one.get("id") for one in added if isinstance(one, dict)] if isinstance(added, list) else []
    if wrong := [number for number in numbers if not (type(number) is int and 0 <= number <= MAX_SIZE)]:
        raise ValueError(f"{path}: damaged: {str(wrong[0])[:80]} is no number of a token (0 to {MAX_SIZE:,})")


def read_template_file(path: Path) -> str:
    """Return the text of a chat template. Raises ValueError."""
    return read_text(path, MAX_TEMPLATE_BYTES)


def check_room(directory: Path, config: Mapping[str, Any], build: Callable[[], Any]) -> None:
    """Raise ValueError where the model that `build` makes of `config` is not the one whose weights lie there.

    Only the headers of the weights are read, and nothing is allocated.
    """
    where = directory / "config.json"
    tensors = [shape for path in directory.glob("*.safetensors") for shape in _shapes(path)]
    held = sum(map(math.prod, tensors))
    if not tensors:
        return  # the library says that it finds none
    for key, value in _numbers(config):
        if re.search(r"(?<!window_)layers$|depths?$", key) and value > len(tensors):
            raise ValueError(f"{where}: {key[-80:]}={value}: more than the {len(tensors)} weights beside it")
    with sentences(where), torch.device("meta"):
        num = sum(parameter.numel() for parameter in build().parameters())
    if num > 2 * held + MAX_EXTRA:
        raise ValueError(f"{where}: a model of {num:,} parameters, and the weights beside it have {held:,}")


@contextmanager
def sentences(place: object) -> Iterator[None]:
    """Turn whatever libraries raise over a model's files into a ValueError that names the place."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # some of their parsers end in a panic, which is no Exception
        line = first_line(error)
        raise ValueError(line if line.startswith((str(place), "model.")) else f"{place}: {line}") from error


def answer_greedily(model: Any) -> None:
    """Keep of a model's settings for generation the tokens alone: beams, penalties and temperatures are not its to
    choose."""
    from transformers import GenerationConfig

    old = model.generation_config
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    model.generation_config = GenerationConfig(**{name: getattr(old, name) for name in names})  # type: ignore[no-untyped-call]


def _numbers(data: Any, name: str = "") -> Iterator[tuple[str, int]]:
    """Whole numbers of a configuration with their dotted keys, those of lists by the list's."""
    if isinstance(data, bool):
        return
    if isinstance(data, int):
        yield name, data
    elif isinstance(data, float) and abs(data) > MAX_POSITIONS:
        yield name, int(data) if math.isfinite(data) else 2**63
    elif isinstance(data, dict):
        for key, value in data.items():
            yield from _numbers(value, f"{name}.{key}" if name else str(key))
    elif isinstance(data, list):
        for value in data:
            yield from _numbers(value, name)


def _shapes(path: Path) -> Iterator[tuple[int, ...]]:
    try:
        check_ordinary(path)
        with safe_open(path, "pt") as weights:
            for name in weights.keys():  # noqa: SIM118
                yield tuple(weights.get_slice(name).get_shape())
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: the weights are damaged ({first_line(error)})") from None
