"""Memory that a run needs per device, before it starts or when it was too much, and what would fit.

Weights, gradients and optimizer state are counted from the model; activations are a rough sum of what a transformer
keeps for its backward pass, per position and layer

    10 x channels + 4 x channels of keys and values + 4 x inner channels   (language model, gated feed-forward)
    10 x channels + 2 x inner channels                                     (vision tower, if it trains)

elements of 4 bytes with 32-true, 2 where it is computed in bfloat16 and 2.6 under autocast, where norms stay in float32
(training/engine/precision.py); with gradient checkpointing one layer of these and the channels between layers; and the
logits of the response. What the kernels need for themselves and the allocator loses is not in it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import torch

from vlmreason.data.loader import StepData
from vlmreason.models.contract import PARTS
from vlmreason.models.vlm.adapters import linear_layers
from vlmreason.models.vlm.learner import MAX_LOGITS, Learner
from vlmreason.training.engine import strategies

GB = 2**30
USABLE = 0.92
"""Share of a device's memory that a run can count on."""

_LORA_RANK = 16  # of conf/adapter/lora.yaml
_MAX_DEVICES = 64


@dataclass(frozen=True)
class Layers:
    """Of a transformer: number of layers, channels, channels of keys and values, inner channels."""

    num: int
    channels: int
    keys: int
    inner: int


@dataclass(frozen=True)
class Shape:
    """What of a model decides its memory; numbers of parameters by part.

    adapters: those of LoRA among `parameters`; rank_units: parameters that LoRA of rank 1 has; element: bytes of a
    weight as it is loaded; block: parameters of the largest layer.
    """

    parameters: Mapping[str, int]
    adapters: Mapping[str, int]
    rank_units: Mapping[str, int]
    element: int
    block: int
    text: Layers
    vision: Layers
    vocabulary: int


@dataclass(frozen=True)
class Plan:
    """How a phase is computed. trained: parts in full; lora: parts by adapters of `rank`; micro_patches: of the
    pictures of a forward pass; micro_targets: its response tokens; longest: tokens of the longest example."""

    trained: tuple[str, ...]
    lora: tuple[str, ...] = ()
    rank: int = _LORA_RANK
    precision: str = "bf16-mixed"
    optimizer: str = "adamw"
    gradient_checkpointing: bool = False
    sharded: bool = False
    kept_whole: bool = False  # parameters, from the forward to the backward pass
    num_devices: int = 1
    micro_tokens: int = 8192
    micro_patches: int = 0
    micro_targets: int = 0
    longest: int = 1


@dataclass(frozen=True)
class Estimate:
    """Bytes per device."""

    weights: float
    gradients: float
    optimizer: float
    activations: float

    @property
    def total(self) -> float:
        return self.weights + self.gradients + self.optimizer + self.activations

    def in_gb(self) -> dict[str, float]:
        return {name: round(value / GB, 3) for name, value in {**vars(self), "total": self.total}.items()}


def estimate(shape: Shape, plan: Plan) -> Estimate:
    """Return what a plan needs of each device."""
    half = plan.precision == "bf16-true"
    of_trained = 2 if half else 4  # see precision.prepare
    of_frozen = 2 if half else 4 if plan.sharded or plan.precision == "32-true" else shape.element
    full = sum(shape.parameters[part] - shape.adapters[part] for part in plan.trained)
    adapters = sum(shape.adapters[part] or plan.rank * shape.rank_units[part] for part in plan.lora)
    frozen = sum(shape.parameters[part] - shape.adapters[part] for part in PARTS if part not in plan.trained)
    share = plan.num_devices if plan.sharded else 1
    trained_bytes = (full + adapters) * of_trained
    weights = (trained_bytes + frozen * of_frozen) / share
    if plan.sharded:  # the model is whole in a pass, or two layers at a time
        weights += (sum(shape.parameters.values()) if plan.kept_whole else 2 * shape.block) * (
            4 if plan.precision == "32-true" else 2
        )
    elif plan.precision == "bf16-mixed":  # casts of trained weights live as long as the activations
        weights += 2 * (full + adapters)
    states = 1 if plan.optimizer == "muon" else 2
    return Estimate(weights, trained_bytes / share, states * trained_bytes / share, activations(shape, plan))


def activations(shape: Shape, plan: Plan) -> float:
    """Return bytes that the largest forward pass keeps."""
    width = (
        4.0 if plan.precision == "32-true" else 2.6 if plan.precision == "bf16-mixed" and shape.element == 4 else 2.0
    )
    text, vision = shape.text, shape.vision
    per_token = 10 * text.channels + 4 * text.keys + 4 * text.inner
    per_patch = 10 * vision.channels + 2 * vision.inner
    tower_trains = "vision_tower" in (*plan.trained, *plan.lora)
    if plan.gradient_checkpointing:
        kept = plan.micro_tokens * (per_token + text.num * text.channels)
        seen = plan.micro_patches * (per_patch + tower_trains * vision.num * vision.channels)
    else:
        kept = plan.micro_tokens * per_token * text.num
        seen = plan.micro_patches * per_patch * (vision.num if tower_trains else 1)
    num_logits = min(MAX_LOGITS, (plan.micro_targets or plan.micro_tokens) * shape.vocabulary)
    return width * (kept + seen) + num_logits * (width + 8)  # in the model's type, in float32, their gradient


def fits(shape: Shape, plan: Plan, capacity: float, factor: float = 1.0) -> bool:
    """Tell whether a plan fits into `capacity` bytes; `factor`: by how much activations are more than estimated."""
    found = estimate(shape, plan)
    return found.total + (factor - 1) * found.activations <= USABLE * capacity


def what_fits(shape: Shape, plan: Plan, capacity: float, factor: float = 1.0) -> Iterator[str]:
    """Return settings with which a plan would fit, the smallest changes first."""
    checkpointed = replace(plan, gradient_checkpointing=True)
    changes = {plan: "", checkpointed: "" if checkpointed == plan else "trainer.gradient_checkpointing=true"}
    if not plan.lora:
        changes |= {
            replace(changed, trained=(), lora=("language_model",)): f"adapter=lora {words}".strip()
            for changed, words in changes.items()
        }
    whole = {changed: words for changed, words in changes.items() if words and fits(shape, changed, capacity, factor)}
    yield from whole.values()
    for changed, words in changes.items():
        if changed in whole:
            break
        if (cut := _cut_to_fit(shape, changed, capacity, factor)) is not None:
            yield f"{words} scale.micro_tokens={cut.micro_tokens}".strip()
            break
    words = changes[checkpointed]
    for num in (2**i for i in range(1, _MAX_DEVICES.bit_length())):
        sharded = replace(checkpointed, sharded=True, kept_whole=False, num_devices=num)
        if num <= plan.num_devices and plan.sharded:
            continue
        if fits(shape, sharded, capacity, factor):
            yield f"trainer.strategy=fsdp {words}".strip() + f" on {num} such devices"
            return
        if (cut := _cut_to_fit(shape, sharded, capacity, factor)) is not None:
            more = f"{words} scale.micro_tokens={cut.micro_tokens}".strip()
            yield f"trainer.strategy=fsdp {more} on {num} such devices"
            return


def advice(shape: Shape, plan: Plan, capacity: float, device: str) -> str:
    """Return one sentence for a run that ran out of memory.

    Where the estimate says that it should have fitted, activations are taken to be what was missing.
    """
    found = estimate(shape, plan)
    static = found.total - found.activations
    factor = max(1.0, (1.05 * capacity - static) / max(found.activations, 1.0))
    parts = ", ".join(f"{name} {value}" for name, value in found.in_gb().items() if name != "total")
    options = list(what_fits(shape, plan, capacity, factor))
    would = f"would fit: {'; or '.join(options)}" if options else "nothing that is known here would fit on it"
    return (
        f"out of memory on {device} ({capacity / GB:.1f} GB): the run needs about {found.in_gb()['total']} GB "
        f"({parts}) by estimate; {would}"
    )


def explain(
    learner: Learner, train: Any, settings: Any, optimizer: str, num_devices: int, data: StepData, device: torch.device
) -> str:
    """Return `advice` for a phase that ran out of memory on a device."""
    plan = plan_of(learner, train, settings, optimizer, num_devices, data)
    return advice(shape_of(learner), plan, *capacity_of(device))


def report(
    learner: Learner, train: Any, settings: Any, optimizer: str, num_devices: int, data: StepData, device: torch.device
) -> dict[str, Any]:
    """Write for people the estimate of a phase, the memory of a device, and what would fit where it does not."""
    shape, plan = shape_of(learner), plan_of(learner, train, settings, optimizer, num_devices, data)
    capacity, _ = capacity_of(device)
    found: dict[str, Any] = {"memory_gb": estimate(shape, plan).in_gb(), "device_gb": round(capacity / GB, 1)}
    if not fits(shape, plan, capacity):
        found["would_fit"] = list(what_fits(shape, plan, capacity))
    return found


def capacity_of(device: torch.device) -> tuple[float, str]:
    """Return bytes of a device's memory (the machine's for the processor) and its name."""
    if device.type == "cuda":
        found = torch.cuda.get_device_properties(device)
        return float(found.total_memory), str(found.name)
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")), "this machine"


def is_out_of_memory(error: BaseException) -> bool:
    """Tell an error of memory: a GPU's, Python's, or torch's for the processor, which has no exception of its own."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    )


def shape_of(learner: Learner) -> Shape:
    """Return the shape of a model, sharded or not."""
    model = learner.model
    named = {part: list(learner.part_parameters(part)) for part in PARTS}
    blocks = [child for module in model.modules() if isinstance(module, torch.nn.ModuleList) for child in module]
    dtype = getattr(model.config, "dtype", None) or next(model.parameters()).dtype
    return Shape(
        parameters={part: sum(p.numel() for _, p in found) for part, found in named.items()},
        adapters={part: sum(p.numel() for n, p in found if ".lora_" in n) for part, found in named.items()},
        rank_units={part: _rank_units(learner, part) for part in PARTS},
        element=dtype.itemsize,
        block=max((sum(p.numel() for p in block.parameters()) for block in blocks), default=0),
        text=_layers(model.config.get_text_config()),
        vision=_layers(_vision_config(model.config)),
        vocabulary=model.lm_head.weight.shape[0],
    )


def plan_of(learner: Learner, train: Any, settings: Any, optimizer: str, num_devices: int, data: StepData) -> Plan:
    """Return the plan of a phase under the trainer's settings; pictures and responses are like those of its first
    examples."""
    names = [name for name, _ in learner.trained_parameters(train)]
    lora = tuple(part for part in PARTS if any(_is_lora(n) and n.startswith(learner.prefixes[part]) for n in names))
    full = tuple(part for part in PARTS if any(not _is_lora(n) and n.startswith(learner.prefixes[part]) for n in names))
    encoded = [data.encode(i) for i in range(min(8, len(data.mixture)))]
    num_tokens = sum(map(len, encoded))
    num_patches = sum(_num_patches(learner, learner.processor.collate([example])) for example in encoded)
    num_targets = sum(sum(s > 0 for s in example.segments) for example in encoded)
    return Plan(
        trained=full,
        lora=lora,
        precision=settings.precision,
        optimizer=optimizer,
        gradient_checkpointing=settings.gradient_checkpointing,
        sharded=settings.strategy in strategies.SHARDED,
        kept_whole=settings.strategy == "zero2",
        num_devices=num_devices,
        micro_tokens=settings.micro_tokens,
        micro_patches=settings.micro_tokens * num_patches // num_tokens,
        micro_targets=settings.micro_tokens * num_targets // num_tokens,
        longest=max(map(len, encoded)),
    )


def _is_lora(name: str) -> bool:
    return ".lora_" in name


def _rank_units(learner: Learner, part: str) -> int:
    try:
        names = linear_layers(learner.model, learner.prefixes, part)
    except ValueError:  # nothing to adapt
        return 0
    layers = [learner.model.get_submodule(name) for name in names if ".lora_" not in name]
    return sum(layer.in_features + layer.out_features for layer in layers)


def _cut_to_fit(shape: Shape, plan: Plan, capacity: float, factor: float) -> Plan | None:
    """The plan with as few halvings of its micro-batches as needed, down to a single example."""
    while plan.micro_tokens // 2 >= plan.longest:
        plan = _cut(plan, plan.micro_tokens // 2)
        if fits(shape, plan, capacity, factor):
            return plan
    return None


def _cut(plan: Plan, tokens: int) -> Plan:
    return replace(
        plan,
        micro_tokens=tokens,
        micro_patches=plan.micro_patches * tokens // plan.micro_tokens,
        micro_targets=plan.micro_targets * tokens // plan.micro_tokens,
    )


def _first(config: Any, names: Sequence[str], default: int) -> int:
    """The first of these settings that a configuration has; of lists (hierarchical towers) the largest."""
    for name in names:
        value = getattr(config, name, None)
        if isinstance(value, (list, tuple)) and value:
            return int(max(value))
        if isinstance(value, int) and value:
            return value
    return default


def _layers(config: Any) -> Layers:
    channels = _first(config, ("embed_dim", "hidden_size", "hidden_sizes"), 0)
    heads = _first(config, ("num_attention_heads", "num_heads", "attention_heads"), 1)
    width = _first(config, ("head_dim",), channels // heads)
    keys = _first(config, ("num_key_value_heads",), heads) * width
    inner = _first(config, ("intermediate_size",), 4 * channels)
    return Layers(_first(config, ("num_hidden_layers", "depth", "num_stages"), 1), channels, keys, inner)


def _vision_config(config: Any) -> Any:
    """The configuration of the (first) vision tower."""
    found = getattr(config, "vision_config", None)
    return found or SimpleNamespace(**config.towers[0]["config"])


def _num_patches(learner: Learner, batch: Mapping[str, Any]) -> int:
    pixels = batch.get("pixel_values")
    if pixels is None:
        return 0
    config = _vision_config(learner.model.config)
    side = _first(config, ("patch_size",), 16)
    return int(pixels.numel() // (3 * side**2 * _first(config, ("temporal_patch_size",), 1)))
