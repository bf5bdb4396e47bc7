"""Which parameters train: parts that are frozen, parts that are trained by low-rank adapters (LoRA), parts in full.

The adapters are PEFT's, put into the model in place: its class and the paths `model.model` and `model.lm_head` stay.
A model with adapters is saved in PEFT's layout, adapter_model.safetensors and adapter_config.json; parts that are
trained in full beside the adapters lie in the same file, as PEFT's `modules_to_save`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vlmreason.files import check_ordinary
from vlmreason.models.contract import PARTS, AdapterSettings, Prefixes
from vlmreason.structure import first_line

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
_OUTER = "base_model.model."  # PEFT saves names as they are inside of its own model class


def add_adapter(
    model: Any, prefixes: Prefixes, settings: AdapterSettings, seed: int, source: Mapping[str, str] | None = None
) -> None:
    """Put adapters into the linear layers of the chosen parts; the model computes what it computed before.

    Their random half depends on `seed` alone. They are kept in float32 whatever the model's own weights are.
    `source`: id and commit of weights that come from a hub, noted for other tools.
    Raises ValueError for a part without a linear layer.
    """
    if settings.name == "none":
        return
    from peft import LoraConfig

    targets = [name for part in settings.parts for name in linear_layers(model, prefixes, part)]
    assert settings.r is not None and settings.alpha is not None
    config = LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]  # any number will do
        lora_dropout=settings.dropout,
        target_modules=targets,
        revision=source["commit"] if source else None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model.add_adapter(config)
    if source:
        config.base_model_name_or_path = source["id"]
    for name, parameter in model.named_parameters():
        if ".lora_" in name and parameter.dtype.itemsize < 4:
            parameter.data = parameter.data.float()


def linear_layers(model: Any, prefixes: Prefixes, part: str) -> list[str]:
    """Return names of the linear layers of a part, the vocabulary projection left out. Raises ValueError if there is
    none."""
    found = [
        name
        for name, module in model.named_modules()
        if type(module) is nn.Linear and f"{name}.".startswith(prefixes[part]) and module is not model.lm_head
    ]
    if not found:
        raise ValueError(f"adapter.parts: the {part} of this model has no linear layer for LoRA")
    return found


def part_of(name: str, prefixes: Prefixes) -> str:
    """Return the part to which a parameter belongs."""
    return next(part for part, starts in prefixes.items() if name.startswith(starts))


def save_adapter(model: Any, prefixes: Prefixes, settings: AdapterSettings, directory: Path) -> None:
    """Write everything that may train, in PEFT's layout."""
    parameters = dict(model.named_parameters())
    tensors = {
        _outer_name(name): parameters[name].detach().cpu().contiguous()
        for name in _saved_names(model, prefixes, settings)
    }
    directory.mkdir(parents=True, exist_ok=True)
    save_file(tensors, directory / WEIGHTS, metadata={"format": "pt"})
    modules = {name for name, _ in model.named_modules()}
    full = [part for part in PARTS if part not in (*settings.frozen, *settings.parts)]
    config = copy.copy(model.peft_config["default"])
    config.target_modules = sorted(config.target_modules)  # a set: the file would differ from save to save
    config.modules_to_save = [start[:-1] for part in full for start in prefixes[part] if start[:-1] in modules] or None
    config.inference_mode = True
    config.save_pretrained(str(directory))


def load_adapter(model: Any, prefixes: Prefixes, settings: AdapterSettings, directory: Path) -> None:
    """Read what `save_adapter` wrote into a model with the same adapters. Raises ValueError."""
    path = directory / WEIGHTS
    try:
        check_ordinary(path)
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: the adapter is missing or damaged ({first_line(error)})") from error
    wanted = {_outer_name(name): name for name in _saved_names(model, prefixes, settings)}
    if different := sorted(wanted.keys() ^ tensors.keys()):
        raise ValueError(f"{path}: the weights are not those of this model and adapter ({different[0]})")
    parameters = dict(model.named_parameters())
    for outer, name in wanted.items():
        found, expected = tuple(tensors[outer].shape), tuple(parameters[name].shape)
        if found != expected:
            raise ValueError(f"{path}: {name} has the shape {found}, expected is {expected}")
        parameters[name].data.copy_(tensors[outer])


def merge_adapter(model: Any) -> None:
    """Add the adapters to the weights below them and take them out: the model is then one without adapters."""
    from peft.tuners.lora import LoraLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge(safe_merge=True)
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, module.get_base_layer())
    del model.peft_config
    model._hf_peft_config_loaded = False


@torch.no_grad()
def merged_weights(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Return names and values of the weights that would be saved after `merge_adapter`, one by one; the model stays as
    it is.

    The names are those in the files that the model was loaded from, which are not always those of its parameters.
    """
    from peft.tuners.lora import LoraLayer
    from transformers.core_model_loading import revert_weight_conversion

    adapted: dict[str, Any] = {
        f"{name}.base_layer.weight": module for name, module in model.named_modules() if isinstance(module, LoraLayer)
    }
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            continue
        weight = parameter.detach()
        for adapter in adapted[name].active_adapters if name in adapted else ():
            weight = weight + adapted[name].get_delta_weight(adapter).to(weight.dtype)
        yield from revert_weight_conversion(model, {name.replace(".base_layer.", "."): weight}).items()


def _saved_names(model: Any, prefixes: Prefixes, settings: AdapterSettings) -> list[str]:
    return [name for name, _ in model.named_parameters() if settings.trains(part_of(name, prefixes), name)]


def _outer_name(name: str) -> str:
    return _OUTER + name.replace(".default.", ".") if ".lora_" in name else _OUTER + name
