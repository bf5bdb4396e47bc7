"""Whole runs with a phase of reinforcement: figures, stopping and going on, two processes, silent groups, alarms."""

import dataclasses
import json
import math
import os
import random
import signal

import pytest
import torch.distributed as dist
from support.acting import reinforced_run, stage_of
from support.processes import NUM, in_processes
from support.tiny import TRAINER, nano_task, outcome, tiny_learner

from vlmreason.answering.rollout import Slots
from vlmreason.envs.base import given
from vlmreason.envs.revision import Revision
from vlmreason.models.contract import Prompt
from vlmreason.training.engine.checkpoints import newest
from vlmreason.training.engine.keeper import RunKeeper
from vlmreason.training.engine.runner import Stopped
from vlmreason.training.reinforced.grpo import GroupRelativePolicyOptimization

COMMON = {
    "phase", "step", "loss", "kl", "clipped", "entropy", "rollout_gap", "grad_norm", "lr", "reward", "reward_env",
    "response_tokens", "unparsed", "cut_off",
}  # fmt: skip
FIGURES = {
    "ppo": COMMON | {"loss_value", "explained_variance", "grad_norm_value"},
    "grpo": COMMON | {"no_signal", "kl_reference", "success", "return"},
}
NUM_EXAMPLES = 8  # two steps of the supervised phase


def lines_of(run_dir):
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def run(run_dir, name, **changes):
    return reinforced_run(run_dir, name, num_examples=NUM_EXAMPLES, **changes)


class Crash(BaseException):
    """Stands for a power cut."""


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    found = {}
    for name in FIGURES:
        found[name] = tmp_path_factory.mktemp(name)
        assert run(found[name], name) == found[name] / "checkpoints" / "final"
    return found


@pytest.mark.parametrize("name", FIGURES)
def test_figures(unbroken, name):
    lines = lines_of(unbroken[name])
    assert [(line["phase"], line["step"]) for line in lines] == [
        ("expert", 1),
        ("expert", 2),
        (name, 1),
        (name, 2),
        (name, 3),
    ]
    for line in lines[2:]:
        assert {key for key in line if not key.startswith("alarm")} >= FIGURES[name]
        assert all(math.isfinite(value) for key, value in line.items() if key != "phase")
        assert line["rollout_gap"] < 1e-4
        assert line["kl"] >= 0
        assert 0 < line["entropy"] <= math.log(1024)
        assert line["alarm_cut_off"] == 1
    assert [round(line["lr"], 6) for line in lines[2:]] == [1e-3, 1e-3, 5e-4]
    assert len({line["loss"] for line in lines[2:]}) == 3
    weights = outcome(unbroken[name])
    assert weights["checkpoints/expert/model.safetensors"] != weights[f"checkpoints/{name}/model.safetensors"]
    assert not any("value_head" in key for key in weights)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "num_lines"), [("stopped", 3), ("crashed", 4)])
@pytest.mark.parametrize("name", FIGURES)
def test_a_broken_run_goes_on(tmp_path, monkeypatch, unbroken, name, kind, num_lines):
    """Bit-identical in metrics and weights: value head, optimizers, running episodes and totals are restored."""
    changes = {"checkpoint_every": 1 if kind == "stopped" else 2}

    def write(self, metrics, timing):
        before(self, metrics, timing)
        if self.num_lines == num_lines:
            if kind == "crashed":
                raise Crash
            os.kill(os.getpid(), signal.SIGTERM)

    before = RunKeeper._write
    with monkeypatch.context() as patch:
        patch.setattr(RunKeeper, "_write", write)
        with pytest.raises(Crash if kind == "crashed" else Stopped):
            run(tmp_path, name, **changes)
    last, _ = newest(tmp_path / "checkpoints" / "steps")
    assert last is not None
    if kind == "stopped":
        assert last.run["num_lines"] == num_lines, "nothing is lost"
        assert any("value_head" in key for key in last.shapes) == (name == "ppo")
        assert ("slots" in last.run["module"]) == (name == "ppo")
    run(tmp_path, name, **changes)
    assert outcome(tmp_path) == outcome(unbroken[name])


def test_what_is_restored_matters(tmp_path, monkeypatch, unbroken):
    """The test above would notice slots that begin anew."""

    def write(self, metrics, timing):
        before(self, metrics, timing)
        if self.num_lines == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    before = RunKeeper._write
    with monkeypatch.context() as patch:
        patch.setattr(RunKeeper, "_write", write)
        with pytest.raises(Stopped):
            run(tmp_path, "ppo")
    monkeypatch.setattr(Slots, "restore", lambda self, state: None)
    run(tmp_path, "ppo")
    assert lines_of(tmp_path)[:3] == lines_of(unbroken["ppo"])[:3]
    assert lines_of(tmp_path)[3:] != lines_of(unbroken["ppo"])[3:]


def test_totals_and_evaluation(tmp_path):
    """Before the first update and after every second; the phase's own intervals count, not the trainer's."""
    run(tmp_path, "ppo", evaluate=lambda learner: {"measured": 1.0}, evaluate_every=2, updates=4, epochs=3)
    lines = [line for line in lines_of(tmp_path) if "measured" in line]
    assert [(line["phase"], line["step"]) for line in lines] == [("ppo", 0), ("ppo", 2), ("ppo", 4)]
    assert [line.get("env_steps", 0) for line in lines] == [0, 2 * 12, 4 * 12]
    generated = [line.get("tokens_generated", 0) for line in lines]
    trained = [line["tokens_trained"] for line in lines]
    assert trained[0] > 0
    assert [after - trained[0] for after in trained] == [3 * tokens for tokens in generated]


@pytest.mark.parametrize("name", FIGURES)
def test_without_a_supervised_phase_and_with_pictures(tmp_path, name):
    reinforced_run(
        tmp_path, name, num_examples=0, view="image", updates=1, minibatches=1, max_new_tokens=4, micro_tokens=200
    )
    [line] = lines_of(tmp_path)
    assert line["rollout_gap"] < 1e-4
    assert line["kl"] >= 0


@pytest.mark.parametrize("name", FIGURES)
def test_bfloat16(tmp_path, unbroken, name):
    """Every step of an update sees the weights of the step before."""
    run(tmp_path, name, precision="bf16-mixed")
    for line, exact in list(zip(lines_of(tmp_path), lines_of(unbroken[name]), strict=True))[2:3]:
        assert line["kl"] == pytest.approx(exact["kl"], rel=0.3)
        assert line["loss"] == pytest.approx(exact["loss"], rel=0.1, abs=0.01)


@pytest.mark.parametrize("processes", [1, NUM])
def test_silent_groups_make_no_step(tmp_path, monkeypatch, processes):
    """All members of all groups earn the same: with `filter` the policy stays as it is, and the run goes on."""

    def improve(self, turns, encoded):
        self._groups = {group: [1.0] * len(returns) for group, returns in self._groups.items()}
        return before(self, turns, encoded)

    before = GroupRelativePolicyOptimization.improve
    monkeypatch.setattr(GroupRelativePolicyOptimization, "improve", improve)
    changes = {"filter": True, "updates": 2, "evaluate": lambda _: {}, "evaluate_every": 1}
    if processes == 1:
        run(tmp_path, "grpo", **changes)
    else:
        found = in_processes(run, tmp_path, "grpo", strategy="ddp", devices=NUM, **changes)
        assert found == [tmp_path / "checkpoints" / "final"] * NUM
    lines = [line for line in lines_of(tmp_path) if line["phase"] == "grpo"]
    steps = [line for line in lines if "lr" in line]
    assert [line["no_signal"] for line in steps] == [1.0, 1.0]
    assert not any("loss" in line or "grad_norm" in line for line in steps)
    totals = [line["tokens_trained"] for line in lines if "tokens_generated" in line]
    assert len(set(totals)) == 1, "nothing was trained on"
    files = outcome(tmp_path)
    assert files["checkpoints/expert/model.safetensors"] == files["checkpoints/grpo/model.safetensors"]


def test_alarms_are_said_once(tmp_path, capsys):
    limits = {"entropy": 100.0, "response_tokens": 50.0, "cut_off": 0.5, "unparsed": None, "kl": None, "clipped": -1.0}
    run(tmp_path, "ppo", alarms=limits)
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("vlmreason")]
    assert len(said) == 4
    assert "update 1: entropy" in said[0]
    assert "algorithm.alarms.entropy=100.0" in said[0]
    assert "update 1: response_tokens 12.0000 is beyond algorithm.alarms.response_tokens=50.0" in said[1]
    assert "update 1: cut_off 1.0000" in said[2]
    assert "update 1: clipped 0." in said[3] and "algorithm.ratio=token (ppo)" in said[3]
    lines = lines_of(tmp_path)[2:]
    assert all(line["alarm_entropy"] == line["alarm_response_tokens"] == line["alarm_cut_off"] == 1 for line in lines)
    assert not any("alarm_kl" in line or "alarm_unparsed" in line for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize("name", FIGURES)
def test_an_update_ends_where_the_policy_has_gone_far(tmp_path, name):
    """The first step finds the policy where it was; a later one beyond the limit is the last."""
    options = {"epochs": 3, "minibatches": 2, "optimizer": {"lr": 0.05}, "evaluate_every": 3}
    for limit, least, most in ((None, None, None), (1e9, 3.0, 3.0), (1e-9, 1.0, 1.0)):
        run(tmp_path / str(limit), name, kl_limit=limit, evaluate=lambda learner: {"measured": 1.0}, **options)
        lines = [line for line in lines_of(tmp_path / str(limit)) if line["phase"] == name and "lr" in line]
        if limit is None:
            assert not any("passes" in line for line in lines)
        else:
            assert all(least <= line["passes"] <= most for line in lines)
    whole, cut = (lines_of(tmp_path / str(limit)) for limit in (1e9, 1e-9))
    trained = [[line["tokens_trained"] for line in lines if "measured" in line] for lines in (whole, cut)]
    gained = [after - before for before, after in trained]
    assert gained[0] > 2 * gained[1] > 0


needs_fork = pytest.mark.skipif(not hasattr(os, "fork") or not dist.is_available(), reason="needs fork and gloo")


def seen_run(run_dir, name, **changes):
    """What each process would write."""
    seen = []

    def write(self, metrics, timing):
        before(self, metrics, timing)
        seen.append(metrics)

    before = RunKeeper._write
    RunKeeper._write = write  # in a forked process only
    run(run_dir, name, **changes)
    return seen


@pytest.mark.slow
@needs_fork
@pytest.mark.parametrize("name", FIGURES)
def test_two_processes(tmp_path, name):
    """Uneven: three slots or groups, so that one process has fewer micro-batches."""
    tiny_learner()
    own = {"filter": True} if name == "grpo" else {}
    found = in_processes(seen_run, tmp_path, name, strategy="ddp", devices=NUM, micro_tokens=150, **own)
    assert all(isinstance(one, list) for one in found), found
    assert found[0] == found[1] == lines_of(tmp_path)
    assert len(found[0]) == 5
    for line in found[0]:
        assert all(math.isfinite(value) for key, value in line.items() if key != "phase")
    assert found[0][2]["rollout_gap"] < 1e-4


@needs_fork
def test_two_processes_with_rewards_of_their_own(tmp_path):
    """A reward that only some turns have is not given in all processes."""
    env = nano_task("general_points")
    options = {"strategy": "ddp", "devices": NUM, "env": env, "updates": 2, "parallel": 2, "turns": 2}
    tiny_learner()
    found = in_processes(rewarded_run, tmp_path, "ppo", **options)
    assert all(isinstance(one, list) for one in found), found
    assert found[0] == found[1]
    own = [line["reward_own"] for line in found[0] if line["phase"] == "ppo"]
    assert own == [2.0, 2.0], "4 for half of the turns"


def rewarded_run(run_dir, name, **changes):
    env = changes["env"]
    turn = env.turn

    def rewarded(state, response, rng):
        found = turn(state, response, rng)
        return type(found)(
            **{**vars(found), "rewards": {"own": 4.0} if dist.is_initialized() and dist.get_rank() else {"env": 1.0}}
        )

    env.turn = rewarded
    type(env).rewards = (given("env", ""), given("own", ""))  # in a forked process only
    return seen_run(run_dir, name, **changes)


@pytest.mark.slow
@needs_fork
@pytest.mark.parametrize("name", FIGURES)
def test_two_processes_go_on(tmp_path, name):
    tiny_learner()
    options = {"strategy": "ddp", "devices": NUM}
    expected = in_processes(seen_run, tmp_path / "unbroken", name, **options)
    found = in_processes(stopped_run, tmp_path / "broken", name, **options)
    assert [type(error) for error in found] == [Stopped] * NUM, found
    in_processes(run, tmp_path / "broken", name, **options)
    assert outcome(tmp_path / "broken") == outcome(tmp_path / "unbroken")
    assert lines_of(tmp_path / "broken") == expected[0]


def stopped_run(run_dir, name, **changes):
    def write(self, *args):
        before(self, *args)
        if self.num_lines == 3 and os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGTERM)

    before = RunKeeper._write
    RunKeeper._write = write  # in a forked process only
    return run(run_dir, name, **changes)


def test_settings_that_cannot_be():
    learner, env = tiny_learner(), nano_task("number_line")
    for name, changes, message in (
        ("ppo", {"minibatches": 13}, "algorithm.minibatches=13: more than the 12 transitions"),
        ("ppo", {"thought_weight": 1.5}, "algorithm.thought_weight=1.5"),
        ("ppo", {"temperature": 0.0}, "algorithm.temperature=0.0"),
        ("ppo", {"optimizer": {"rate": 1.0}}, "algorithm.optimizer"),
        ("ppo", {"value_weight": -1.0}, "algorithm.value_weight=-1.0"),
        ("ppo", {"value_lr": 0.0}, "algorithm.value_lr=0.0"),
        ("ppo", {"value_clip": -1.0}, "algorithm.value_clip=-1.0"),
        ("ppo", {"value_updates": 3}, "algorithm.value_updates=3: 0 or more, and fewer than the 3 updates"),
        ("ppo", {"ratio": "tokens"}, "algorithm.ratio='tokens'.*did you mean 'token'"),
        ("ppo", {"credit": "token"}, "algorithm.credit=token: .*not response and 0.5"),
        ("grpo", {"gamma": 0.9}, "algorithm.gamma=0.9: has an effect with algorithm.turn_weight alone"),
        ("grpo", {"turn_weight": 0.0}, "algorithm.turn_weight=0.0: more than 0, or null"),
        ("ppo", {"optimizer": {"clip": -1.0}}, "optimizer.clip=-1.0"),
        ("grpo", {"group_size": 1}, "algorithm.group_size=1"),
        ("grpo", {"normalisation": "mean"}, "algorithm.normalisation"),
        ("grpo", {"kl_weight": -1.0}, "algorithm.kl_weight"),
        ("ppo", {"trainer": dataclasses.replace(TRAINER, strategy="fsdp")}, "trainer.strategy=fsdp: algorithm=ppo"),
    ):
        with pytest.raises(ValueError, match=message):
            stage_of(name, learner, env, **changes)


@pytest.mark.parametrize("view", ["text", "image"])
def test_attempts_that_may_not_fit_are_refused_before_the_run(view):
    """As many as are let through do fit, however long the responses are."""
    learner, task = tiny_learner(), nano_task("table_readout")
    fits = []
    for attempts in range(2, 12):
        env = Revision(task, attempts)
        try:
            stage_of("ppo", learner, env, view, max_new_tokens=150)
        except ValueError as error:
            assert str(error).startswith(f"algorithm.attempts={attempts} algorithm.max_new_tokens=150: ")
        else:
            fits.append(attempts)
    assert fits == list(range(2, max(fits) + 1)) and max(fits) < 11
    env, rng = Revision(task, max(fits)), random.Random(0)
    state = env.start("simple", "train", 0)
    filler = learner.processor.decode(learner.processor._follow("1 " * 150)[0][:150])
    for _ in range(max(fits) - 1):
        state = env.turn(state, filler, rng).state
    prompt = Prompt(env.prompt(state, view), env.draw(state) if view == "image" else None)
    assert learner.generate([prompt], 150)[0].num_tokens <= 150
