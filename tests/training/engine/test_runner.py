"""What a run computes and writes: loss of the step whatever its cut, metrics, evaluation, exports, silence."""

import csv
import dataclasses
import errno
import json
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.tiny import ADAMW, TRAINER, nano_task, outcome, plan, shared_learner, tiny_learner, tiny_run

from vlmreason.data.loader import StepData
from vlmreason.data.mixture import Mixture
from vlmreason.files import rename_synced
from vlmreason.models.nano.model import load_nano
from vlmreason.models.vlm.learner import Learner
from vlmreason.segments import SEGMENT_IDS
from vlmreason.training.engine import checkpoints, loggers, strategies
from vlmreason.training.engine.console import Stopped
from vlmreason.training.engine.loggers import LoggerSettings, make_logger
from vlmreason.training.supervised import stage
from vlmreason.training.supervised.sft import segment_sums

ONE = {"only": {"num_examples": 14}}


def lines_of(run_dir: Path, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / name).read_text().splitlines()]


def test_logged_figures_are_those_of_the_step(tmp_path: Path) -> None:
    """Loss and gradient norm of the first step, computed here in one piece."""
    tiny_run(tmp_path, ONE)
    first = lines_of(tmp_path)[0]
    learner = tiny_learner()
    mixture = Mixture(plan(**ONE), "only", "table_readout", seed=0)
    tasks = {"table_readout": nano_task()}
    data = StepData(mixture, tasks, learner.processor, TRAINER.batch_size, 10**9, 1024, cut="shapes")
    [micro] = data[0]["micro_batches"]
    losses_N, segments_N = learner.token_losses(micro)
    losses_N.mean().backward()
    norm = torch.cat([p.grad.flatten() for p in learner.model.parameters() if p.grad is not None]).norm()
    assert first["loss"] == pytest.approx(losses_N.mean().item(), rel=1e-5)
    assert first["grad_norm"] == pytest.approx(float(norm), rel=1e-4)
    for number, kind in enumerate(("convert", "thought", "answer"), start=1):
        if (segments_N == number).any():
            assert first[f"loss_{kind}"] == pytest.approx(losses_N[segments_N == number].mean().item(), rel=1e-5)
    assert {"phase", "step", "lr", "loss", "loss_answer", "loss_thought"} <= set(first)


def test_segment_sums() -> None:
    sums = segment_sums(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([3, 1, 3]))
    assert sums.tolist() == [[0, 0], [2, 1], [0, 0], [5, 2], *[[0, 0]] * (len(SEGMENT_IDS) - 4)]


@pytest.mark.parametrize("micro_tokens", [1, 10**9])
def test_cut_into_micro_batches_changes_almost_nothing(tmp_path: Path, micro_tokens: int) -> None:
    tiny_run(tmp_path / "as it is", ONE)
    tiny_run(tmp_path / "other", ONE, micro_tokens=micro_tokens)
    for one, other in zip(lines_of(tmp_path / "as it is"), lines_of(tmp_path / "other"), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-3)


def test_loss_falls(tmp_path: Path) -> None:
    part = {"level": "simple", "views": ["text"], "distinct": 4}
    tiny_run(tmp_path, {"only": {"num_examples": 160, "parts": {"same": part}}}, log_every=5)
    lines = lines_of(tmp_path)
    assert [line["step"] for line in lines] == [5, 10, 15, 20, 25, 30, 35, 40]
    assert lines[-1]["loss"] < 0.75 * lines[0]["loss"]


def test_seeds_and_data(tmp_path: Path) -> None:
    for seed in (0, 0, 1):
        tiny_run(tmp_path / f"{seed}", ONE, seed=seed)
    tiny_run(tmp_path / "again", ONE)
    assert outcome(tmp_path / "again") == outcome(tmp_path / "0")
    assert outcome(tmp_path / "1")["metrics.jsonl"] != outcome(tmp_path / "0")["metrics.jsonl"]


def test_exports_open_and_differ(tmp_path: Path) -> None:
    final = tiny_run(tmp_path, {"first": {"num_examples": 4}, "second": {"num_examples": 4}})
    assert final == tmp_path / "checkpoints" / "final"
    loaded = {name: Learner(*load_nano(tmp_path / "checkpoints" / name)) for name in ("first", "second", "final")}
    values = {
        name: torch.cat([p.detach().flatten() for p in learner.model.parameters()]) for name, learner in loaded.items()
    }
    assert torch.equal(values["second"], values["final"])
    assert not torch.equal(values["first"], values["final"])


def test_without_a_phase_the_model_stays_as_it_is(tmp_path: Path) -> None:
    final = tiny_run(tmp_path, {})
    loaded, learner = Learner(*load_nano(final)), tiny_learner()
    assert lines_of(tmp_path) == []
    for (name, kept), (_, given) in zip(loaded.model.named_parameters(), learner.model.named_parameters(), strict=True):
        assert torch.equal(kept, given), name
    written = final.stat().st_mtime_ns
    assert tiny_run(tmp_path, {}) == final
    assert final.stat().st_mtime_ns == written


def test_evaluation_while_training(tmp_path: Path) -> None:
    asked = []

    def evaluate(learner: Learner) -> dict[str, float]:
        asked.append(learner.model.training)
        learner.model.eval()
        torch.randn(100)
        return {"simple/text": 0.25}

    tiny_run(tmp_path / "with", ONE, evaluate_every=2, evaluate=evaluate)
    lines = lines_of(tmp_path / "with")
    assert [line["step"] for line in lines if "simple/text" in line] == [2, 4]
    assert len(asked) == 2
    tiny_run(tmp_path / "without", ONE)
    weights = "checkpoints/final/model.safetensors"
    assert outcome(tmp_path / "with")[weights] == outcome(tmp_path / "without")[weights]
    assert [line for line in lines if "loss" in line] == lines_of(tmp_path / "without")


def test_timing_is_beside_the_metrics(tmp_path: Path) -> None:
    tiny_run(tmp_path, ONE)
    timing = lines_of(tmp_path, "timing.jsonl")
    assert len(timing) == len(lines_of(tmp_path))
    for line in timing:
        assert line["examples_per_s"] > 0
        assert line["tokens_per_s"] > line["response_tokens_per_s"] > 0
        assert 0 <= line["waiting_share"] <= 1
        assert line["peak_memory_mb"] > 10


def test_csv_counts_the_steps_of_the_run_and_keeps_what_was_there(tmp_path: Path) -> None:
    def evaluate(learner: Learner) -> dict[str, float]:
        if not (tmp_path / "csv" / "version_1").exists():
            raise OSError("out of order")
        return {"simple/text": 0.5}

    options = {
        "make_logger": lambda: make_logger(LoggerSettings("csv"), tmp_path),
        "evaluate": evaluate,
        "evaluate_every": 3,
        "checkpoint_every": 1,
    }
    phases = {"first": {"num_examples": 8}, "second": {"num_examples": 16}}
    with pytest.raises(OSError, match="out of order"):
        tiny_run(tmp_path, phases, **options)
    tiny_run(tmp_path, phases, **options)
    for version, steps in ((0, [1, 2, 3, 4, 5]), (1, [5, 6])):
        with open(tmp_path / "csv" / f"version_{version}" / "metrics.csv", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["loss"]]
        assert [int(row["step"]) for row in rows] == steps


def test_online_needs_a_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loggers, "_logged_in", lambda: False)
    with pytest.raises(ValueError, match=r"logger\.mode=online: nobody is logged in"):
        make_logger(LoggerSettings("wandb", mode="online"), tmp_path)
    assert make_logger(LoggerSettings("wandb"), tmp_path)._wandb_init["mode"] == "offline"


def test_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = 0

    def full(source: Path, target: Path) -> None:
        nonlocal saved
        saved += 1
        if saved == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        rename_synced(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "rename_synced", full)
        with pytest.raises(OSError, match="No space left"):
            tiny_run(tmp_path, ONE, checkpoint_every=1)
    tiny_run(tmp_path, ONE, checkpoint_every=1)
    tiny_run(tmp_path / "unbroken", ONE)
    assert outcome(tmp_path) == outcome(tmp_path / "unbroken")


SCRIPT = """
import sys
from pathlib import Path
from support.tiny import tiny_run
tiny_run(Path(sys.argv[1]), {"only": {"num_examples": 8}}, num_workers=1, progress=True)
"""


@pytest.mark.slow
def test_only_our_own_words(tmp_path: Path) -> None:
    """In a fresh process: where the run stands, the progress bar, and no tips, warnings or bars of the libraries."""
    tests = str(Path(__file__).parents[2])
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "run")]
    done = subprocess.run(command, cwd=tests, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == [
        f"vlmreason: {tmp_path / 'run'} on cpu, 32-true",
        "vlmreason: only 2 steps; Ctrl-C stops after a step and saves, the same command goes on",
    ]
    seen = [line for line in done.stdout.replace("\r", "\n").splitlines() if line.strip()]
    assert seen and all(line.startswith("train only") for line in seen), seen
    assert "2/2" in seen[-1]
    assert "loss=" in seen[-1]


def test_a_run_says_where_it_stands(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """At the start, when it goes on after a kill, when told to stop, and when there is nothing to do."""

    def kill(learner: Learner) -> dict[str, float]:
        raise KeyboardInterrupt

    def stop(learner: Learner) -> dict[str, float]:
        signal.raise_signal(signal.SIGINT)
        return {}

    def said() -> list[str]:
        captured = capfd.readouterr()
        assert "vlmreason" not in captured.out
        return [line for line in captured.err.splitlines() if line.startswith("vlmreason: ")]

    phases = {"first": {"num_examples": 8}, "second": {"num_examples": 20}}
    ends = "; Ctrl-C stops after a step and saves, the same command goes on"
    where = f"vlmreason: {tmp_path} on cpu, 32-true"
    with pytest.raises(KeyboardInterrupt):
        tiny_run(tmp_path, phases, checkpoint_every=2, evaluate_every=3, evaluate=kill)
    assert said() == [], "trainer.progress=false"
    with pytest.raises(Stopped):
        tiny_run(tmp_path, phases, checkpoint_every=2, evaluate_every=4, evaluate=stop, progress=True)
    goes_on, *answer = said()[1:]
    assert goes_on == f"vlmreason: first is done, second from step 2 of 5 (1 later step made again){ends}"
    assert answer == ["vlmreason: stopping after this step; Ctrl-C again stops at once"]
    tiny_run(tmp_path, phases, progress=True)
    assert said() == [where, f"vlmreason: first is done, second from step 4 of 5{ends}"]
    tiny_run(tmp_path, phases, progress=True)
    assert said() == [where, "vlmreason: all phases are done"]
    tiny_run(tmp_path / "new", phases, progress=True)
    assert said()[1] == f"vlmreason: first 2 steps, second 5 steps{ends}"


def test_progress_bar_goes_on_where_the_run_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def stop_once(learner: Learner) -> dict[str, float]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="goes on at the last checkpoint"):
        tiny_run(tmp_path, ONE, checkpoint_every=1, evaluate_every=3, evaluate=stop_once)
    capsys.readouterr()
    tiny_run(tmp_path, ONE, progress=True)
    printed = "".join(capsys.readouterr())
    assert "4/4" in printed
    assert "1/4" not in printed.replace("\r", "\n")


def test_learner_of_the_run_is_the_trained_one(tmp_path: Path) -> None:
    learner = tiny_learner()
    final = tiny_run(tmp_path, ONE, learner=learner, optimizer=ADAMW)
    saved = Learner(*load_nano(final))
    for (name, mine), (_, theirs) in zip(learner.model.named_parameters(), saved.model.named_parameters(), strict=True):
        assert torch.equal(mine, theirs), name
    assert shared_learner() is not learner


def test_a_phase_has_its_own_batch_size(tmp_path: Path) -> None:
    tiny_run(tmp_path, {"first": {"num_examples": 12, "batch_size": 3}, "second": {"num_examples": 12}}, batch_size=6)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["phase"], line["step"]) for line in lines] == [("first", s) for s in (1, 2, 3, 4)] + [
        ("second", s) for s in (1, 2)
    ]
    with pytest.raises(ValueError, match=r"supervision.phases.first.batch_size=0: 1 or more is expected"):
        plan(first={"num_examples": 12, "batch_size": 0})


def test_dialogues_share_a_row_where_attention_skips_the_others() -> None:
    def packing(wanted: str, attention: str, packable: bool = True) -> str | None:
        learner: Any = SimpleNamespace(
            packable=packable, model=SimpleNamespace(config=SimpleNamespace(_attn_implementation=attention))
        )
        return stage.choose_packing(dataclasses.replace(TRAINER, packing=wanted), learner)

    assert packing("auto", "flash_attention_2") == packing("row", "sdpa") == "row"
    assert packing("auto", "sdpa") is packing("auto", "flash_attention_2", packable=False) is None
    assert packing("rows", "sdpa") == "rows"
    with pytest.raises(ValueError, match=r"packing=rows: model\.attention=flash_attention_2 needs row"):
        packing("rows", "flash_attention_2")


def test_workers_by_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    auto = dataclasses.replace(TRAINER, num_workers="auto", accelerator="auto")
    assert stage.num_workers(auto) == 1
    assert stage.num_workers(dataclasses.replace(auto, num_workers=0)) == 0
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    found = {}
    for num in (1, 3, 64):
        monkeypatch.setattr(strategies.os, "sched_getaffinity", lambda _, num=num: set(range(num)), raising=False)
        found[num] = stage.num_workers(auto)
    assert found == {1: 1, 3: 2, 64: 4}
    assert stage.num_workers(dataclasses.replace(auto, devices=32)) == 1
    for wrong in (-1, "many"):
        with pytest.raises(ValueError, match=f"trainer.num_workers={wrong}: auto, or 0 or more"):
            dataclasses.replace(auto, num_workers=wrong)
