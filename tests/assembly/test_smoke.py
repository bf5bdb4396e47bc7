"""`smoke=true`: the least of everything, for every task, strategy and algorithm, and never mixed with other runs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.composing import compose_plain
from support.program import Done

from vlmreason import runs
from vlmreason.assembly import algorithms, build, catalog, compose, planning, smoke

STRATEGIES = [name for name in catalog.groups()["supervision"] if name not in ("expert", "prepare", "none")]


@pytest.mark.parametrize("scale", ["nano", "paper"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_has_two_steps_of_each_phase(strategy: str, scale: str) -> None:
    cfg = compose_plain("train", f"supervision={strategy}", f"scale={scale}", "smoke=true", "task=grid_navigation")
    whole = compose_plain("train", f"supervision={strategy}", f"scale={scale}", "task=grid_navigation")
    assert planning.steps(cfg) == dict.fromkeys(whole["supervision"]["phases"], 2)
    assert len(build.build_supervision(cfg).phases) == len(whole["supervision"]["phases"]) > 0


@pytest.mark.parametrize("order", ["shuffle", "interleave"])
def test_every_part_has_examples_whatever_its_share(order: str) -> None:
    words = ("supervision.phases.main.parts.hard.weight=0.02", f"supervision.order={order}")
    cfg = compose_plain("train", "supervision=mix_plus", *words, "smoke=true")
    assert planning.steps(cfg) == {"main": 2}
    assert smoke.STEPS * smoke.BATCH < cfg["supervision"]["phases"]["main"]["num_examples"] < 500


@pytest.mark.parametrize("words", [
    ("algorithm=ppo", "env=number_line"), ("algorithm=grpo", "supervision=mix"),
    ("algorithm=ppo", "env=points24", "scale=paper"),
    ("model=cnn", "algorithm=ppo_small", "supervision=none", "env=blackjack"),
])  # fmt: skip
def test_algorithms_make_two_updates(words: tuple[str, ...]) -> None:
    cfg = compose_plain("train", *words, "smoke=true")
    settings = algorithms.build_algorithm(cfg)
    assert (settings.updates, settings.checkpoint_every, settings.epochs) == (2, 1, 1)
    assert build.build_evaluation(cfg).num == 4 and build.build_trainer(cfg).evaluate_num == 4


def test_sizes_are_lowered_and_never_raised() -> None:
    words = ("scale.batch_size=2", "evaluation.num=3", "scale.max_response_tokens=7", "trainer.evaluate_every=0")
    cfg = compose_plain("train", "supervision=mix", *words, "smoke=true")
    assert cfg["scale"]["batch_size"] == 2 and cfg["supervision"]["phases"]["main"]["num_examples"] == 4
    evaluation = build.build_evaluation(cfg)
    assert (evaluation.num, evaluation.max_new_tokens, cfg["trainer"]["evaluate_every"]) == (3, 7, 0)


def test_without_it_a_run_is_what_it_was() -> None:
    assert compose_plain("train", "smoke=false") == compose_plain("train")
    assert "smoke" not in compose_plain("train")


def test_it_is_part_of_the_run_and_of_its_name() -> None:
    small = compose_plain("train", "smoke=true")
    by_hand = {key: value for key, value in small.items() if key != "smoke"}
    assert runs.config_hash(small) != runs.config_hash(by_hand)
    assert "-smoke-" in runs.run_name(small) and "smoke" not in runs.run_name(by_hand)
    for held, wanted in ((small, by_hand), (by_hand, small)):
        assert runs.difference_of_common(held, wanted, {"smoke": True} if "smoke" in wanted else {}) is None


def test_one_value_is_allowed(program: Callable[..., Done]) -> None:
    done = program("train", "smoke=yse")
    assert (done.code, done.err) == (2, "vlmreason: smoke=yse: true or false is expected\n")
    assert "(did you mean 'smoke'?)" in program("train", "smoek=true").err


def test_composed_directly_as_by_the_command_line(composed: Callable[..., Any]) -> None:
    composer = compose.Composer()
    assert composer.config({"supervision": "mix", "smoke": True}) == composed("train", "supervision=mix", "smoke=true")


@pytest.mark.slow
def test_everything_is_written_and_what_is_asked_later_keeps_to_its_size(
    program: Callable[..., Done], tmp_path: Path, base: Path
) -> None:
    tiny = ("trainer.num_workers=0", f"model.checkpoint={base}")
    done = program("train", "smoke=true", *tiny)
    assert done.code == 0, done.err
    run = Path(done.last_line)
    for name in (
        "config.yaml",
        "provenance.json",
        "metrics.jsonl",
        "evaluation.json",
        "summary.json",
        "throughput.json",
    ):
        assert (run / name).is_file()
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"align", "main", "final", "steps"}
    assert json.loads((run / "summary.json").read_text())["num"] == 16
    assert program("evaluate", f"run={run}", "evaluation.num=1000").last_line == str(run)
    done = program("evaluate", f"run={run}", "evaluation.num=1000", "evaluation.views=[text]", "phase=align")
    assert "-n4-" in done.last_line
    done = program("analyze", f"run={run}", "what=gradients", "num=64")
    assert json.loads(Path(done.last_line).read_text())["settings"]["num"] == 4


def test_a_sweep_of_least_runs_has_a_name_of_its_own(program: Callable[..., Done], tmp_path: Path) -> None:
    done = program("sweep", "plan", "plan=smoke", "smoke=true")
    assert done.code == 0, done.err
    assert done.last_line.endswith("outputs/sweeps/smoke-smoke")
    assert "3 runs, about 1 core minute of training" in done.out
    jobs = json.loads(Path(done.last_line, "sweep.json").read_text())["jobs"]
    assert jobs and all("-smoke-" in job["run"] and "smoke=true" in job["overrides"] for job in jobs)
    assert program("sweep", "status", "plan=smoke", "smoke=true").code == 0
    assert "smoke=true: has no effect with dir=" in program("sweep", "status", "dir=x", "smoke=true").err
