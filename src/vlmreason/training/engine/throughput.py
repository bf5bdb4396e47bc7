"""Speed of a run against what its devices could do: tokens and pictures per second, padding, waiting, memory, MFU.

Model FLOP utilisation counts the operations that the mathematics of a step needs, not those that were run: padding
and what gradient checkpointing computes again count as nothing. Per weight of a linear layer or convolution and per
position that passes it

    2 forward, 2 for the gradient of the weight if it trains, 2 for that of its input if anything before it trains,

and for attention 4 per pair of positions, channel and layer forward, 8 backward; a causal mask is not deducted (as
in the PaLM paper, appendix B). The vocabulary projection counts at response tokens. Of the language model the
positions are the tokens without padding; of vision towers and projectors they are those that the layers see.
Embeddings, norms and activations are left out.
"""

from __future__ import annotations

import resource
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from vlmreason.files import read_jsonl, read_object, write_json_atomic
from vlmreason.models.vlm.adapters import part_of
from vlmreason.models.vlm.learner import Learner

PEAK_TFLOPS = {
    "B200": 2250.0,
    "H200": 989.4,
    "H100 PCIe": 756.0,
    "H100 NVL": 835.5,
    "H100": 989.4,
    "GH200": 989.4,
    "H20": 148.0,
    "A100": 312.0,
    "A800": 312.0,
    "L40S": 362.0,
    "L40": 181.0,
    "L4": 121.0,
    "A40": 149.7,
    "A30": 165.0,
    "A10G": 70.0,
    "A10": 125.0,
    "RTX 6000 Ada": 364.2,
    "RTX A6000": 154.8,
    "RTX 4090": 165.2,
    "RTX 3090": 71.0,
}
"""Dense bfloat16 with float32 sums, from the vendor's data sheets; the first name that a device's name holds counts."""


_COLOURS = 3  # channels of a layer that sees the pixels themselves: they need no gradient


def peak_tflops(device_name: str) -> float | None:
    """Look up a device by its name; None where it is not known."""
    words = f" {device_name.replace('-', ' ')} "
    return next((peak for name, peak in PEAK_TFLOPS.items() if f" {name} " in words), None)


def _per_pair(model: nn.Module) -> float:
    """Operations per pair of tokens of a language model's attention; a network over classes has none."""
    if not hasattr(model, "config"):
        return 0.0
    config: Any = model.config.get_text_config()  # type: ignore[union-attr, operator]
    width: int = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return float(12 * config.num_hidden_layers * config.num_attention_heads * width)


class FlopCounter:
    """Operations of the steps of a phase in which the parameters `trained` (with their names) train.

    Vision towers and projectors are watched by hooks, the language model is computed from counts.
    """

    def __init__(self, learner: Learner, trained: Iterable[tuple[str, nn.Parameter]]) -> None:
        named = list(trained)
        own = {id(parameter) for _, parameter in named}
        tower_trains = any(part_of(name, learner.prefixes) == "vision_tower" for name, _ in named)
        self.per_token, self.per_target = 0.0, 0.0
        self.per_pair = _per_pair(learner.model)
        self._seen: float | Tensor = 0.0
        self._lengths: list[tuple[Tensor, Tensor]] = []
        self._hooks: list[Any] = []
        tower = learner.prefixes["vision_tower"]
        for name, module in learner.model.named_modules():
            if isinstance(module, (nn.Linear, nn.Conv2d, nn.Conv3d)):
                num = module.weight.numel()
                of_weight = 2.0 * (id(module.weight) in own)
                if module is getattr(learner.model, "lm_head", None):
                    self.per_target = num * (4.0 + of_weight)
                elif part_of(f"{name}.", learner.prefixes) == "language_model":
                    self.per_token += num * (4.0 + of_weight)
                else:
                    of_input = 2.0 * (tower_trains and module.weight.shape[1] != _COLOURS)
                    per_output = (2.0 + of_weight + of_input) * (num // module.weight.shape[0])
                    self._hooks.append(module.register_forward_hook(self._layer_hook(per_output)))
            elif f"{name}.".startswith(tower) and (channels := _attention_width(module)):
                hook = self._attention_hook((12.0 if tower_trains else 4.0) * channels)
                self._hooks.append(module.register_forward_hook(hook, with_kwargs=True))

    def take(self, counts: Mapping[str, float], num_processes: int = 1) -> float:
        """Return operations since the last call; `counts`: num_tokens, num_pairs and num_targets of all processes.

        Their pictures are taken to be like those of this process.
        """
        seen, self._seen = float(self._seen), 0.0
        return (
            self.per_token * counts["num_tokens"]
            + self.per_pair * counts["num_pairs"]
            + self.per_target * counts["num_targets"]
            + seen * num_processes
        )

    def close(self) -> None:
        for hook in self._hooks:
            hook.remove()

    def _layer_hook(self, per_output: float) -> Any:
        def hook(module: nn.Module, _: Any, output: Tensor) -> None:
            if _counts(module):
                self._seen += per_output * output.numel()

        return hook

    def _attention_hook(self, per_pair: float) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Mapping[str, Any], _: Any) -> None:
            if not _counts(module):
                return
            states = args[0] if args else kwargs["hidden_states"]
            ends = kwargs.get("cu_seqlens")
            pairs = states.shape[:-2].numel() * states.shape[-2] ** 2 if ends is None else self._pairs(ends)
            self._seen += per_pair * pairs

        return hook

    def _pairs(self, ends: Tensor) -> Tensor:
        """Sum of the squared lengths of the sequences in a row, on the device: nothing waits for it.

        Once for all layers that get the same boundaries, of which there are two kinds (windows, pictures).
        """
        for known, pairs in self._lengths:
            if known is ends:
                return pairs
        pairs = (ends.diff().double() ** 2).sum()
        self._lengths = [(ends, pairs), *self._lengths[:1]]
        return pairs


def _counts(module: nn.Module) -> bool:
    """Not while answers are generated, nor when a backward pass computes the forward pass again."""
    return module.training and torch._C._current_graph_task_id() == -1


def _attention_width(module: nn.Module) -> int:
    """Channels of an attention module's queries; 0 for any other module."""
    for child, share in (("q_proj", 1), ("query", 1), ("qkv", 3)):
        layer: Any = getattr(module, child, None)
        if isinstance(layer, nn.Module):
            inner: Any = getattr(layer, "base_layer", layer)
            return int(inner.out_features) // share
    return 0


class Meter:
    """Figures of a phase between two lines of its log."""

    def __init__(self, flops: FlopCounter, device: torch.device, num_processes: int, peak: float | None) -> None:
        """`peak`: TFLOP/s of one device; None: by the name of a GPU. Where it is unknown, so is the utilisation."""
        self.flops, self.device, self.num_processes = flops, device, num_processes
        known = peak_tflops(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
        self.peak = peak or known
        self._sums: dict[str, float] = {}

    def close(self) -> None:
        self.flops.close()

    def step(self, counts: Mapping[str, float], seconds: float, waited: float) -> None:
        """Add a step; `counts`: of all processes, what `Step` counts."""
        new = {**counts, "seconds": seconds, "waited": waited, "flops": self.flops.take(counts, self.num_processes)}
        for key, value in new.items():
            self._sums[key] = self._sums.get(key, 0.0) + value

    def line(self) -> dict[str, float | None]:
        """Return the figures since the last line; all processes call it together."""
        sums, self._sums = self._sums, {}
        seconds = max(sums["seconds"], 1e-9)
        tflops = sums["flops"] / seconds / 1e12
        return {
            "seconds": seconds,
            "examples_per_s": sums["num_examples"] / seconds,
            "images_per_s": sums["num_images"] / seconds,
            "tokens_per_s": sums["num_tokens"] / seconds,
            "padded_tokens_per_s": sums["num_padded"] / seconds,
            "response_tokens_per_s": sums["num_targets"] / seconds,
            "padding_share": 1 - sums["num_tokens"] / max(sums["num_padded"], 1),
            "waiting_share": sums["waited"] / seconds,
            "tflops": tflops,
            "mfu": tflops / (self.peak * self.num_processes) if self.peak else None,
            "peak_memory_mb": _peak_memory(self.device),
        }


def _peak_memory(device: torch.device) -> float:
    """Megabytes (2^20 bytes) of the process that needs most: of its GPU where it has one, else of main memory."""
    if device.type == "cuda":
        used = torch.cuda.max_memory_allocated(device) / 2**20
    else:
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if dist.is_initialized():
        most = torch.tensor(used, device=device)
        dist.all_reduce(most, op=dist.ReduceOp.MAX)
        used = float(most)
    return used


def write(run_dir: Path) -> None:
    """Write throughput.json, the figures of what a run has trained itself, from its timing.jsonl.

    Phases that it took from another run are named with the seconds that they took there.
    """
    found = [line.data for line in read_jsonl(run_dir / "timing.jsonl")]
    reused = {line["phase"]: 0.0 for line in found if line.get("reused")}
    for line in found:
        if line.get("reused"):
            reused[line["phase"]] += line.get("seconds", 0.0)
    own = summarize([line for line in found if not line.get("reused")])
    write_json_atomic(run_dir / "throughput.json", own | ({"reused_seconds": reused} if reused else {}))


def read(run_dir: Path) -> dict[str, Any] | None:
    """Return what `write` wrote, if it did."""
    path = run_dir / "throughput.json"
    if not path.exists():
        return None
    found = read_object(path)
    said = ("seconds", *(SAID if found.get("seconds") else ()), *(() if found.get("mfu") is None else ("mfu",)))
    if wrong := [name for name in said if not isinstance(found.get(name), (int, float))]:
        raise ValueError(f"{path}: damaged: {wrong[0]}: a number is expected")
    return found


def summarize(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the figures of a whole run from the lines of its timing.jsonl: means over its seconds."""
    lines = [line for line in found if "seconds" in line]
    if not lines:
        return {"seconds": 0.0}
    seconds = sum(line["seconds"] for line in lines)
    summary: dict[str, Any] = {"seconds": seconds}
    for key in lines[0]:
        if key not in ("phase", "step", "seconds"):
            weighted = [(line[key], line["seconds"]) for line in lines]
            known = all(value is not None for value, _ in weighted)
            summary[key] = sum(value * weight for value, weight in weighted) / seconds if known else None
    summary["padding_share"] = 1 - summary["tokens_per_s"] / max(summary["padded_tokens_per_s"], 1e-9)
    summary["peak_memory_mb"] = max(line["peak_memory_mb"] for line in lines)
    return summary


SAID = ("tokens_per_s", "images_per_s", "tflops", "padding_share", "waiting_share", "peak_memory_mb")
"""What `sentence` says of a run that has trained."""


def sentence(summary: Mapping[str, Any]) -> str:
    """Return the summary of a run that has trained, in one line for people."""
    used = f"{summary['tflops']:.3g} TFLOP/s" if summary["mfu"] is None else f"{summary['mfu']:.1%} MFU"
    return (
        f"{summary['tokens_per_s']:,.0f} tokens/s, {summary['images_per_s']:,.1f} images/s, {used}, "
        f"padding {summary['padding_share']:.1%}, waiting {summary['waiting_share']:.1%}, "
        f"peak memory {summary['peak_memory_mb'] / 1024:.2f} GB"
    )
