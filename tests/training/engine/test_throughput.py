"""Operations counted by formula are those that torch counts; figures, their units and their summary."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support.families import TINY, memorable, write_tiny
from support.tiny import TRAINER, dialogues, outcome, tiny_learner, tiny_run
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from vlmreason.data.loader import LENGTH_STEP, StepData
from vlmreason.models.composed.loading import NanoComposed
from vlmreason.models.contract import AdapterSettings
from vlmreason.models.vlm.hugging_face import HuggingFace
from vlmreason.models.vlm.learner import Learner
from vlmreason.structure import structure
from vlmreason.training.engine import throughput
from vlmreason.training.engine.throughput import FlopCounter, Meter, peak_tflops

LORA = AdapterSettings("lora", parts=("language_model",), frozen=("vision_tower", "projector"), r=8, alpha=8)
ONE = {"only": {"num_examples": 14}}


def family(name: str, directory: Path) -> Learner:
    data = {"name": name, "checkpoint": str(write_tiny(name, directory)), "dtype": "float32", "attention": "eager"}
    return structure(HuggingFace, data | dict(TINY[name].settings), "model").load()


def measured(learner: Learner, examples: list[Any], train: Any) -> tuple[float, float]:
    """Operations of a step by the formula and as torch counts them, each example in a pass of its own.

    Attention is computed by plain products: torch counts none of those in its fused kernel for processors.
    """
    encoded = [learner.processor.encode(dialogue) for dialogue in examples]
    trained = learner.trained_parameters(train)
    own = {name for name, _ in trained}
    for name, parameter in learner.model.named_parameters():
        parameter.requires_grad_(name in own)
    learner.model.train()
    counter = FlopCounter(learner, trained)
    num_targets = 0
    with FlopCounterMode(display=False) as torchs, sdpa_kernel(SDPBackend.MATH):
        for example in encoded:
            losses_N, _ = learner.token_losses(learner.processor.collate([example]))
            losses_N.sum().backward()
            num_targets += -(-len(losses_N) // 256) * 256  # the projection is padded
    counts = {
        "num_tokens": sum(map(len, encoded)),
        "num_pairs": sum(len(e) ** 2 for e in encoded),
        "num_targets": num_targets,
    }
    found = counter.take(counts)
    counter.close()
    return found, torchs.get_total_flops()


@pytest.mark.parametrize("name", ["qwen2_5_vl", "llava_siglip", "mllama", "smolvlm"])
def test_operations_of_a_family(name: str, tmp_path: Path) -> None:
    learner = family(name, tmp_path)
    examples = [dialogue for dialogue in memorable(4) if dialogue.image is not None]
    for train in ("all", ["language_model"], ["projector"]):
        found, expected = measured(learner, examples, train)
        # Llama 3.2: attention to the picture's tokens is counted like that to the text's
        assert found == pytest.approx(expected, rel=0.06 if name == "mllama" else 0.005), train
    learner.adapt(LORA, 0)
    found, expected = measured(learner, examples, "all")
    assert found == pytest.approx(expected, rel=0.025)  # the first layer's input needs no gradient


@pytest.mark.parametrize(
    ("views", "train"),
    [
        (("text",), "all"),
        (("text", "image", "image_via_text"), "all"),
        (("text", "image"), ["language_model"]),
        (("image",), ["vision_tower", "projector"]),
        (("image",), ["vision_tower"]),
        (("image_via_text",), ["projector"]),
    ],
)
def test_operations_of_nano(views: tuple[str, ...], train: Any) -> None:
    found, expected = measured(tiny_learner(), dialogues(6, views), train)
    assert found == pytest.approx(expected, rel=0.005)


def test_operations_of_a_composed_model() -> None:
    found, expected = measured(NanoComposed().load(), dialogues(6, ("text", "image")), "all")
    assert found == pytest.approx(expected, rel=0.005)


def test_what_is_computed_again_does_not_count() -> None:
    """Activations recomputed in the backward pass, and answers generated between two steps."""
    plain, _ = measured(tiny_learner(), dialogues(3, ("image",)), "all")
    learner = tiny_learner()
    learner.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    again, executed = measured(learner, dialogues(3, ("image",)), "all")
    assert again == plain
    assert executed > 1.03 * plain
    counter = FlopCounter(learner, learner.trained_parameters("all"))
    learner.model.eval()
    learner.token_losses(learner.processor.collate([learner.processor.encode(d) for d in dialogues(2, ("image",))]))
    assert counter.take({"num_tokens": 0, "num_pairs": 0, "num_targets": 0}) == 0


def test_hooks_are_removed() -> None:
    learner = tiny_learner()
    FlopCounter(learner, learner.trained_parameters("all")).close()
    assert not any(module._forward_hooks for module in learner.model.modules())


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H200", 989.4),
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA A10", 125.0),
        ("NVIDIA A10G", 70.0),
        ("NVIDIA L40S", 362.0),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("NVIDIA GeForce GTX 1080", None),
        ("NVIDIA A1000", None),
    ],
)
def test_peaks(name: str, peak: float | None) -> None:
    assert peak_tflops(name) == peak


def step_counts() -> dict[str, float]:
    return {
        "num_examples": 4, "num_images": 2, "num_tokens": 80, "num_pairs": 1600, "num_padded": 100, "num_targets": 20,
    }  # fmt: skip


def test_figures_of_a_line() -> None:
    learner = tiny_learner()
    meter = Meter(FlopCounter(learner, learner.trained_parameters("all")), torch.device("cpu"), 2, peak=1e-3)
    meter.step(step_counts(), seconds=1.0, waited=0.5)
    meter.step(step_counts(), seconds=3.0, waited=0.0)
    line = meter.line()
    expected = {
        "seconds": 4, "examples_per_s": 2, "images_per_s": 1, "tokens_per_s": 40, "padded_tokens_per_s": 50,
        "response_tokens_per_s": 10, "padding_share": 0.2, "waiting_share": 0.125,
    }  # fmt: skip
    assert {key: line[key] for key in expected} == pytest.approx(expected)
    counter = meter.flops
    flops = 2 * (counter.per_token * 80 + counter.per_pair * 1600 + counter.per_target * 20)
    assert line["tflops"] == pytest.approx(flops / 4 / 1e12)
    assert line["mfu"] == pytest.approx(flops / 4 / 2e9), "two devices of a thousandth TFLOP/s"
    meter.step(step_counts(), seconds=1.0, waited=0.0)
    assert meter.line()["tokens_per_s"] == 80, "a line begins anew"


def test_without_a_known_peak_there_is_no_utilisation() -> None:
    learner = tiny_learner()
    meter = Meter(FlopCounter(learner, learner.trained_parameters("all")), torch.device("cpu"), 1, peak=None)
    meter.step(step_counts(), seconds=1.0, waited=0.5)
    line = meter.line()
    assert line["mfu"] is None and line["tflops"]
    summary = throughput.summarize([{"phase": "a", "step": 1, **line}])
    assert summary["mfu"] is None
    assert "TFLOP/s" in throughput.sentence(summary) and "MFU" not in throughput.sentence(summary)


def test_summary_weighs_by_time() -> None:
    learner = tiny_learner()
    meter = Meter(FlopCounter(learner, learner.trained_parameters("all")), torch.device("cpu"), 1, peak=1.0)
    lines = []
    for seconds in (1.0, 3.0):
        meter.step(step_counts(), seconds=seconds, waited=0.5)
        lines.append({"phase": "a", "step": 1, **meter.line()})
    lines[0]["peak_memory_mb"] = 1e6
    summary = throughput.summarize([lines[0], {}, lines[1]])
    assert summary["seconds"] == 4
    assert summary["tokens_per_s"] == pytest.approx(160 / 4)
    assert summary["waiting_share"] == pytest.approx(1 / 4)
    assert summary["padding_share"] == pytest.approx(0.2)
    assert summary["peak_memory_mb"] == 1e6
    assert "40 tokens/s, 1.0 images/s, 0.0% MFU, padding 20.0%, waiting 25.0%" in throughput.sentence(summary)


def test_a_run_keeps_its_figures(tmp_path: Path) -> None:
    tiny_run(tmp_path, {"first": {"num_examples": 8}, "second": {"num_examples": 8}}, peak_tflops=1.0)
    lines = [json.loads(line) for line in (tmp_path / "timing.jsonl").read_text().splitlines()]
    summary = throughput.read(tmp_path)
    assert summary is not None and summary["mfu"] > 0 and summary["images_per_s"] > 0
    assert summary["seconds"] == pytest.approx(sum(line["seconds"] for line in lines))
    assert all(0 <= line["padding_share"] < 1 and line["tokens_per_s"] <= line["padded_tokens_per_s"] for line in lines)


def test_a_step_counts_its_pictures_pairs_and_padding() -> None:
    from support.tiny import nano_task, plan

    from vlmreason.data.mixture import Mixture

    learner = tiny_learner()
    mixture = Mixture(plan(**ONE), "only", "table_readout", seed=0)
    data = StepData(mixture, {"table_readout": nano_task()}, learner.processor, 14, TRAINER.micro_tokens, 1024)
    step, encoded = data[0], [data.encode(i) for i in range(14)]
    assert step["num_pairs"] == sum(len(e) ** 2 for e in encoded)
    assert step["num_images"] == sum(e.image is not None for e in encoded)
    assert step["num_padded"] == sum(m["input_ids"].numel() for m in step["micro_batches"])
    assert step["num_padded"] % LENGTH_STEP == 0


def test_gradient_checkpointing_changes_nothing_but_the_memory(tmp_path: Path) -> None:
    tiny_run(tmp_path / "plain", ONE)
    learner = tiny_learner()
    tiny_run(tmp_path / "again", ONE, gradient_checkpointing=True, learner=learner)
    assert learner.model.is_gradient_checkpointing
    assert outcome(tmp_path / "plain") == outcome(tmp_path / "again")


@pytest.mark.parametrize("name", ["qwen2_5_vl", "llava", "mllama", "smolvlm"])
def test_gradients_with_checkpointing(name: str, tmp_path: Path) -> None:
    gradients = []
    for number in range(2):
        learner = family(name, tmp_path / str(number))
        if number:
            learner.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        learner.model.train()
        batch = learner.processor.collate([learner.processor.encode(d) for d in memorable(3)])
        learner.token_losses(batch)[0].sum().backward()
        gradients.append({n: p.grad for n, p in learner.model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys() and gradients[0]
    for key, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][key], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "text", ["null", "[]", '{"seconds": null}', '{"seconds": 2.0, "tokens_per_s": null}', '{"seconds": "2"}', "{"]
)
def test_a_damaged_summary_is_named(tmp_path: Path, text: str) -> None:
    assert throughput.read(tmp_path) is None
    (tmp_path / "throughput.json").write_text(text)
    with pytest.raises(ValueError, match=r"throughput\.json: .*damaged"):
        throughput.read(tmp_path)
