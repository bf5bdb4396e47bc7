"""The policy without language: what it sees, that it learns, that a run evaluates and keeps it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.acting import COMMON, OWN
from support.program import Done, runner
from support.tiny import ADAMW, TRAINER, plan, tiny_learner

from vlmreason.envs.number_line import NumberLine, NumberLineSizes, NumberLineState
from vlmreason.models.contract import Prompt
from vlmreason.models.nano.model import load_nano
from vlmreason.models.networks.actions import ActionLearner, load_actor
from vlmreason.models.vlm.learner import Learner
from vlmreason.structure import structure
from vlmreason.training.engine.runner import train
from vlmreason.training.reinforced.cnn_ppo import CnnPPOSettings, make_actor
from vlmreason.training.reinforced.policy import Scene
from vlmreason.training.reinforced.stage import ReinforcedStage

SHORT = NumberLine(NumberLineSizes(max_number=3, picture=(144, 144), font=20))


def settings_of(**changes: Any) -> CnnPPOSettings:
    data = {
        key: value for key, value in {**COMMON, **OWN["ppo"]}.items() if key not in ("thought_weight", "max_new_tokens")
    }
    return structure(CnnPPOSettings, {"name": "cnn_ppo", **data, "width": 16, "grid": 6, **changes}, "algorithm")


def actor_of(view: Any = "text", base: Learner | None = None, **changes: Any) -> ActionLearner:
    return make_actor(base or tiny_learner(), SHORT, None, view, settings_of(**changes), 0)


def prompt_of(state: NumberLineState, view: Any) -> Prompt:
    return Prompt(SHORT.prompt(state, view), SHORT.draw(state) if view == "image" else None)


STATES = [NumberLineState(target, current) for target in range(4) for current in range(4) if target != current]


@pytest.mark.parametrize("view", ["text", "image"])
def test_features_tell_states_apart_and_a_batch_is_what_single_prompts_are(view: str) -> None:
    actor = actor_of(view)
    prompts = [prompt_of(state, view) for state in STATES]
    batch_BF = actor.features(prompts)
    assert torch.equal(actor.features(prompts), batch_BF)
    single_BF = torch.cat([actor_of(view).features([prompt]) for prompt in prompts])
    torch.testing.assert_close(single_BF, batch_BF, atol=1e-4, rtol=1e-4)
    distances = torch.cdist(batch_BF, batch_BF) + 1e9 * torch.eye(len(STATES))
    assert distances.min() > 0.1
    with pytest.raises(ValueError, match=r"env\.view"):
        actor.features([prompt_of(STATES[0], "image" if view == "text" else "text")])


def test_words_in_another_order_are_another_text() -> None:
    actor = actor_of()
    [one_F, other_F] = actor.features([Prompt("3 + 5", None), Prompt("5 + 3", None)])
    assert (one_F - other_F).norm() > 0.1


def test_what_is_drawn_is_as_likely_as_the_update_says() -> None:
    actor = actor_of()
    torch.manual_seed(0)
    actor.model.head.weight.data.normal_()
    prompts = [prompt_of(state, "text") for state in STATES]
    samples = actor.sample(prompts, range(len(prompts)), 1, 0.7)
    moves = [actor.processor.encode_generated(p, s.ids, None) for p, s in zip(prompts, samples, strict=True)]
    scores = actor.token_scores(actor.processor.collate(moves), 0.7)
    torch.testing.assert_close(scores.logprobs_N, torch.tensor([s.logprobs[0] for s in samples]))
    assert [json.loads(sample.text)["action"] for sample in samples] == ["+-"[s.ids[0]] for s in samples]
    greedy = [json.loads(found.text)["action"] for found in actor.generate(prompts)]
    assert greedy == ["+-"[n] for n in actor.model(actor.features(prompts))[1].argmax(dim=1).tolist()]


def test_it_learns_and_the_model_that_it_sees_with_stays(tmp_path: Path) -> None:
    """The short line in text: always one way or at random wins about half of the episodes."""
    base = Learner(*load_nano())
    before = {name: value.clone() for name, value in base.model.state_dict().items()}
    settings = settings_of(
        updates=12, epochs=4, minibatches=2, parallel=16, turns=8, width=64, checkpoint_every=100, value_lr=3e-3,
        optimizer={"lr": 3e-3},
    )  # fmt: skip
    actor = make_actor(base, SHORT, None, "text", settings, 0)
    stage = ReinforcedStage(actor, settings, Scene(SHORT, SHORT.levels[:1], "text"), ADAMW, TRAINER, 64, tiny_learner)
    train(actor, {}, plan(), SHORT.name, 0, ADAMW, TRAINER, tmp_path, further=[stage])
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines[0]["return"] < 0
    assert lines[-1]["return"] > 0.6
    assert lines[-1]["rollout_gap"] < 1e-4
    assert all(torch.equal(before[name], value) for name, value in base.model.state_dict().items())
    again = load_actor(Learner(*load_nano()), tmp_path / "checkpoints" / "final")
    prompts = [prompt_of(state, "text") for state in STATES]
    assert again.generate(prompts) == actor.generate(prompts)
    right = [
        json.loads(found.text)["action"] in SHORT.best(state)
        for found, state in zip(again.generate(prompts), STATES, strict=True)
    ]
    assert sum(right) >= 0.9 * len(STATES)


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Done]:
    monkeypatch.chdir(tmp_path)
    return runner(monkeypatch, capsys)


WORDS = ["train", "algorithm=cnn_ppo", "trainer.progress=false", "evaluation.num=6", "trainer.evaluate_num=4"]
SMALL = [
    "algorithm.nano.updates=2",
    "algorithm.nano.parallel=2",
    "algorithm.nano.turns=4",
    "algorithm.nano.minibatches=2",
]


def test_a_run_is_trained_and_evaluated(program: Callable[..., Done], tmp_path: Path) -> None:
    done = program(*WORDS, *SMALL, "env=number_line", "supervision=none")
    assert done.code == 0, done.err
    folder = tmp_path / done.last_line
    [file] = (folder / "predictions").iterdir()
    episodes = [json.loads(json.loads(line)["response"]) for line in file.read_text().splitlines()]
    assert len(episodes) == 6
    assert {text for episode in episodes for text in episode} <= {'{"action": "+"}', '{"action": "-"}'}
    [cell] = json.loads((folder / "summary.json").read_text())["cells"]
    assert cell["unparsed"] == 0
    assert any("accuracy/standard/image" in line for line in (folder / "metrics.jsonl").read_text().splitlines())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["env=number_line"], "supervision=expert: a policy without language"),
        (["supervision=none"], "algorithm=cnn_ppo: table_readout is answered by text"),
        (["env=number_line", "supervision=none", "adapter=lora"], "adapter: has no effect"),
        (["env=number_line", "supervision=none", "trainer.precision=bf16-true"], "trainer.precision=bf16-true"),
        (["env=number_line", "supervision=none", "algorithm.width=0"], "algorithm.width=0: 1 or more"),
        (["env=number_line", "supervision=none", "+algorithm.thought_weight=0.5"], "thought_weight=0.5: has no effect"),
    ],
)
def test_what_does_not_fit_is_said(program: Callable[..., Done], words: list[str], says: str) -> None:
    done = program(*WORDS, *SMALL, *words)
    assert done.code == 2
    assert says in done.err
