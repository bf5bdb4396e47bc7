"""Two processes compute what one computes; when one is killed or told to stop nothing is lost."""

import dataclasses
import json
import os
import shutil
import signal
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from support.families import write_tiny
from support.processes import NUM, in_processes
from support.tiny import ADAMW, nano_task, outcome, plan, prompts, shared_learner, tiny_learner, tiny_run

from vlmreason.answering.settings import EvaluationSettings
from vlmreason.data.loader import StepData
from vlmreason.data.mixture import Mixture
from vlmreason.evaluation.evaluate import Share, evaluate
from vlmreason.models.contract import AdapterSettings
from vlmreason.models.vlm.hugging_face import HuggingFace
from vlmreason.models.vlm.learner import Learner
from vlmreason.training.engine import strategies
from vlmreason.training.engine.checkpoints import newest
from vlmreason.training.engine.keeper import RunKeeper
from vlmreason.training.engine.optimizers import OptimizerSettings
from vlmreason.training.engine.runner import Stopped
from vlmreason.training.supervised.sft import SupervisedFineTuning

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork") or not dist.is_available(), reason="needs fork and gloo"),
]

SMOOTH = dataclasses.replace(ADAMW, lr=1e-3, eps=1e-3)  # no gradient of nearly zero becomes a whole step
PHASES: dict[str, dict[str, Any]] = {
    "warmup": {
        "num_examples": 19,
        "train": ["language_model"],
        "parts": {"text": {"level": "simple", "views": ["text"]}},
    },
    "main": {"num_examples": 37},
}
OPTIONS: dict[str, Any] = {"batch_size": 9, "micro_tokens": 150, "seed": 2, "checkpoint_every": 2, "optimizer": SMOOTH}
STRATEGIES = ("ddp", "fsdp")


def lines_of(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def assert_close(run_dir: Path, other: Path, rel: float = 1e-5, norm_rel: float = 1e-4) -> None:
    """Same lines, same figures, same exported weights, to numerical precision."""
    for mine, theirs in zip(lines_of(run_dir), lines_of(other), strict=True):
        assert mine.keys() == theirs.keys()
        for key, value in mine.items():
            expected = value if isinstance(value, str) else pytest.approx(value, rel=norm_rel if "norm" in key else rel)
            assert theirs[key] == expected, (mine["phase"], mine["step"], key)
    for name in ("warmup", "main", "final"):
        file = f"checkpoints/{name}/model.safetensors"
        weights, others = load_file(run_dir / file), load_file(other / file)
        assert weights.keys() == others.keys()
        for key, value in weights.items():
            torch.testing.assert_close(others[key], value, rtol=0, atol=1e-5, msg=f"{name} {key}")


def two_run(run_dir: Path, strategy: str, **changes: Any) -> list[Any]:
    return in_processes(tiny_run, run_dir, PHASES, strategy=strategy, devices=NUM, **(OPTIONS | changes))


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("single")
    tiny_run(run_dir, PHASES, **OPTIONS)
    return run_dir


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of two processes with each strategy."""
    found = {}
    for strategy in STRATEGIES:
        found[strategy] = tmp_path_factory.mktemp(strategy)
        final = found[strategy] / "checkpoints" / "final"
        assert two_run(found[strategy], strategy) == [final, final]
    return found


def test_the_runs_are_uneven() -> None:
    """What the tests below rely on: micro-batches differ in number and kind, and a process may have none."""
    data = StepData(
        Mixture(plan(**PHASES), "main", "table_readout", seed=2), {"table_readout": nano_task()},
        shared_learner().processor, 9, 150, 1024, world_size=NUM,
    )  # fmt: skip
    kinds = []
    for data.rank in range(NUM):
        micros = [data[step]["micro_batches"] for step in range(data.num_steps)]
        kinds.append([(len(m), sum(map(strategies.has_picture, m))) for m in micros])
    assert kinds[0][0] == (5, 3), "pictures and text"
    assert kinds[1][0] == (4, 2), "one less of each kind"
    assert [of_process[-1] for of_process in kinds] == [(1, 0), (0, 0)]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_processes_are_as_one(single: Path, unbroken: dict[str, Path], strategy: str) -> None:
    assert_close(single, unbroken[strategy])
    assert len(list((unbroken[strategy] / "checkpoints" / "steps").iterdir())) == 1
    assert not list(unbroken[strategy].rglob("*.tmp"))


def test_parameters_that_stay_whole_change_nothing(single: Path, tmp_path: Path) -> None:
    two_run(tmp_path, "zero2", checkpoint_every=100)
    assert_close(single, tmp_path)


def test_bfloat16(tmp_path: Path) -> None:
    one = tmp_path / "one"
    tiny_run(one, PHASES, **OPTIONS, precision="bf16-mixed")
    for strategy in STRATEGIES:
        two_run(tmp_path / strategy, strategy, precision="bf16-mixed")
        for mine, theirs in zip(lines_of(one), lines_of(tmp_path / strategy), strict=True):
            assert theirs["loss"] == pytest.approx(mine["loss"], rel=2e-3)
        weights = load_file(tmp_path / strategy / "checkpoints" / "final" / "model.safetensors")
        assert {value.dtype for value in weights.values()} == {torch.float32}


def test_muon_and_evaluation_while_training_of_a_sharded_model(tmp_path: Path) -> None:
    def measure(learner: Learner) -> dict[str, float]:
        return {"tokens": float(sum(g.num_tokens for g in learner.generate(prompts(3), 4)))}

    options = OPTIONS | {
        "optimizer": OptimizerSettings("muon", lr=1e-3, muon_lr=1e-3, eps=1e-3), "evaluate": measure,
        "evaluate_every": 2,
    }  # fmt: skip
    tiny_run(tmp_path / "one", PHASES, **options)
    two_run(tmp_path / "two", "fsdp", **options)
    pairs = list(zip(lines_of(tmp_path / "one"), lines_of(tmp_path / "two"), strict=True))
    assert sum("tokens" in mine for mine, _ in pairs) == 3
    for mine, theirs in pairs:
        assert theirs == {k: v if isinstance(v, str) else pytest.approx(v, rel=0.02) for k, v in mine.items()}


def adapted_run(run_dir: Path, **changes: Any) -> Path:
    learner = tiny_learner()
    learner.adapt(AdapterSettings("lora", frozen=("vision_tower",), parts=("language_model",), r=4, alpha=8.0), seed=0)
    return tiny_run(run_dir, PHASES, learner=learner, **(OPTIONS | changes))


def test_adapters_and_frozen_parts(tmp_path: Path) -> None:
    adapted_run(tmp_path / "one")
    weights = load_file(tmp_path / "one" / "checkpoints" / "final" / "adapter_model.safetensors")
    for strategy in STRATEGIES:
        in_processes(adapted_run, tmp_path / strategy, strategy=strategy, devices=NUM)
        others = load_file(tmp_path / strategy / "checkpoints" / "final" / "adapter_model.safetensors")
        assert weights.keys() == others.keys()
        for key, value in weights.items():
            torch.testing.assert_close(others[key], value, rtol=0, atol=1e-5, msg=f"{strategy} {key}")


def run_until(run_dir: Path, number: int, num_lines: int, rank: int, **changes: Any) -> Path:
    """A run in which one process gets a signal when some steps are logged."""

    def write(self: RunKeeper, *args: Any) -> None:
        before(self, *args)
        if self.num_lines == num_lines and os.environ["RANK"] == str(rank):
            self.writer.wait()
            os.kill(os.getpid(), number)

    before = RunKeeper._write
    RunKeeper._write = write  # type: ignore[method-assign]  # in a forked process only
    return tiny_run(run_dir, PHASES, **(OPTIONS | changes))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_is_killed(tmp_path: Path, unbroken: dict[str, Path], strategy: str, rank: int) -> None:
    started = time.monotonic()
    found = in_processes(run_until, tmp_path, signal.SIGKILL, 7, rank, strategy=strategy, devices=NUM)
    assert found[rank] is None
    assert isinstance(found[1 - rank], Stopped), found
    assert strategies.LOST in str(found[1 - rank])
    assert time.monotonic() - started < 30
    two_run(tmp_path, strategy)
    assert outcome(tmp_path) == outcome(unbroken[strategy])


@pytest.mark.parametrize(
    ("strategy", "number", "rank", "num_lines"),
    [("ddp", signal.SIGTERM, 1, 5), ("fsdp", signal.SIGUSR2, 0, 5), ("fsdp", signal.SIGTERM, 1, 3)],
)
def test_one_process_is_told_to_stop(
    tmp_path: Path, unbroken: dict[str, Path], strategy: str, number: int, rank: int, num_lines: int
) -> None:
    """All stop after the same step, also at the end of a phase (line 3), and the run goes on with any number."""
    found = in_processes(run_until, tmp_path, number, num_lines, rank, strategy=strategy, devices=NUM)
    assert [type(error) for error in found] == [Stopped, Stopped], found
    assert str(found[0]) == str(found[1])
    last, faults = newest(tmp_path / "checkpoints" / "steps")
    assert last is not None and not faults
    assert num_lines <= last.run["num_lines"] <= num_lines + 1
    assert last.num_files == NUM
    elsewhere = {name: tmp_path.with_name(f"{tmp_path.name} {name}") for name in ("one", *STRATEGIES)}
    for path in elsewhere.values():
        shutil.copytree(tmp_path, path)
    tiny_run(elsewhere["one"], PHASES, **OPTIONS)
    assert_close(unbroken[strategy], elsewhere["one"])
    for name in STRATEGIES:
        two_run(elsewhere[name], name)
        if name == strategy:
            assert outcome(elsewhere[name]) == outcome(unbroken[strategy])
        else:
            assert_close(unbroken[strategy], elsewhere[name])


def test_a_file_of_one_process_is_missing(
    tmp_path: Path, unbroken: dict[str, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    in_processes(run_until, tmp_path, signal.SIGTERM, 6, 0, strategy="ddp", devices=NUM)
    last, _ = newest(tmp_path / "checkpoints" / "steps")
    assert last is not None
    (last.path / "00001-of-00002.safetensors").unlink()
    capfd.readouterr()
    two_run(tmp_path, "ddp")
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("vlmreason")]
    assert said == [
        f"vlmreason: {last.path}: half-written checkpoint (00001-of-00002.safetensors is missing); it is passed over"
    ]
    assert outcome(tmp_path) == outcome(unbroken["ddp"])


def evaluate_share(out_dir: Path, **settings: Any) -> dict[str, Any]:
    dist.init_process_group("gloo")
    share = Share(dist.get_rank(), dist.get_world_size(), strategies.wait)
    summary = evaluate(tiny_learner(), nano_task(), EvaluationSettings(**settings), out_dir, {}, False, share)
    return summary.to_json()


def half_run(run_dir: Path, directory: Path, precision: str, lora: bool, **changes: Any) -> Path:
    """A model of the hub, in bfloat16."""
    learner = HuggingFace("half", checkpoint=str(directory), dtype="bfloat16").load()
    if lora:
        parts = {"frozen": ("vision_tower",), "parts": ("language_model",)}
        learner.adapt(AdapterSettings("lora", r=4, alpha=8.0, **parts), seed=0)
    phases = {"only": {"num_examples": 12}}
    more = OPTIONS | {"micro_tokens": 2000, "max_length": 4000, "precision": precision} | changes
    return tiny_run(run_dir, phases, learner=learner, **more)


@pytest.mark.parametrize(("precision", "lora"), [("bf16-mixed", False), ("bf16-mixed", True), ("bf16-true", True)])
def test_models_in_half_precision(tmp_path: Path, precision: str, lora: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = write_tiny("qwen2_5_vl", tmp_path / "model")
    half_run(tmp_path / "one", directory, precision, lora)
    # a process group of GPUs cannot gather from the processor's memory
    monkeypatch.setattr(SupervisedFineTuning, "cpu", lambda *_: pytest.fail("the model was moved before it was saved"))
    for strategy in STRATEGIES:
        found = in_processes(half_run, tmp_path / strategy, directory, precision, lora, strategy=strategy, devices=NUM)
        assert found == [tmp_path / strategy / "checkpoints" / "final"] * NUM
        for mine, theirs in zip(lines_of(tmp_path / "one"), lines_of(tmp_path / strategy), strict=True):
            assert theirs["loss"] == pytest.approx(mine["loss"], rel=0.02)


def test_a_sharded_model_is_where_its_shards_are() -> None:
    """Figures are summed there, and a GPU's process group takes no tensor from elsewhere."""
    module = SupervisedFineTuning(tiny_learner(), SMOOTH, num_steps=1)
    strategy = strategies.Processes("fsdp", "32-true", timedelta(minutes=1))
    strategy.parallel_devices, strategy._lightning_module = [torch.device("meta")], module
    strategy.model_to_device()
    assert module.device.type == "meta"
    assert {parameter.device.type for parameter in module.parameters()} == {"cpu"}


def test_evaluation_is_shared(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"levels": ("simple",), "num": 5, "batch_size": 2, "max_new_tokens": 6}
    alone = evaluate(tiny_learner(), nano_task(), EvaluationSettings(**settings), tmp_path / "one", {}, False)
    first = in_processes(evaluate_share, tmp_path / "two", **(settings | {"num": 3}))
    assert all(isinstance(summary, dict) for summary in first), first
    for path in sorted((tmp_path / "two" / "predictions").iterdir()):  # as if one had been stopped
        path.rename(path.with_suffix(".0-of-3.part"))
    assert in_processes(evaluate_share, tmp_path / "two", **settings) == [alone.to_json()] * NUM
    files = [sorted((tmp_path / name / "predictions").iterdir()) for name in ("one", "two")]
    assert [[path.name for path in paths] for paths in files] == [["simple-image.jsonl", "simple-text.jsonl"]] * 2
    for one, two in zip(*files, strict=True):
        assert one.read_bytes() == two.read_bytes()
    assert (tmp_path / "one" / "summary.json").read_bytes() == (tmp_path / "two" / "summary.json").read_bytes()
