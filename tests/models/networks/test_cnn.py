"""The policy without language: what it sees, that it learns, that a run evaluates and keeps it."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from support.acting import rollouts_of, settings_of
from support.program import Done, runner
from support.tiny import ADAMW, TRAINER, plan, tiny_learner

from vlmreason.envs.number_line import NumberLine, NumberLineSizes, NumberLineState
from vlmreason.models.contract import Example, Prompt
from vlmreason.models.nano.model import load_nano
from vlmreason.models.networks.actions import ActionLearner, Cnn, load_actor
from vlmreason.models.vlm.learner import Learner
from vlmreason.training.engine.runner import train
from vlmreason.training.reinforced.stage import ReinforcedStage

SHORT = NumberLine(NumberLineSizes(max_number=3, picture=(144, 144), font=20))


SIZES = {"name": "cnn", "width": 16, "grid": 6}


def actor_of(view: Any = "text", base: Learner | None = None, **changes: Any) -> ActionLearner:
    state = SHORT.start(SHORT.levels[0], "train", 0)
    own = Cnn(**{**SIZES, **changes}, base=Loaded(base or tiny_learner()))
    return own.untrained(Example(prompt_of(state, view), SHORT.options(state), 0))


@dataclass(frozen=True)
class Loaded:
    """The settings of a model that is there already."""

    learner: Learner

    def load(self) -> Learner:
        return self.learner


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
        "ppo", updates=12, epochs=4, minibatches=2, parallel=16, turns=8, checkpoint_every=100, value_lr=3e-3,
        optimizer={"lr": 3e-3},
    )  # fmt: skip
    actor = actor_of("text", base, width=64)
    rollouts = rollouts_of(SHORT, SHORT.levels[:1], "text", settings, 64)
    stage = ReinforcedStage(actor, settings, rollouts, ADAMW, TRAINER, tiny_learner)
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


def test_it_chooses_what_it_writes() -> None:
    actor = actor_of()
    torch.manual_seed(0)
    actor.model.head.weight.data.normal_()
    prompts = [prompt_of(state, "text") for state in STATES]
    options = [SHORT.options(state) for state in STATES]
    found = actor.choose(prompts, options)
    for written, texts, row in zip(actor.generate(prompts), options, found, strict=True):
        assert written.text == max(zip(texts, row, strict=True), key=lambda pair: pair[1].logprob)[0]
        assert sum(math.exp(one.logprob) for one in row) == pytest.approx(1)
        assert [one.num_tokens for one in row] == [1, 1]
    backwards = actor.choose(prompts, [texts[::-1] for texts in options])
    assert [row[::-1] for row in backwards] == found
    with pytest.raises(ValueError, match="'up': this network knows the options"):
        actor.choose(prompts[:1], [["up"]])


def test_a_policy_from_when_only_environments_had_options_opens(tmp_path: Path) -> None:
    base = tiny_learner()
    actor = actor_of(base=base)
    actor.save(tmp_path)
    data = json.loads((tmp_path / "policy.json").read_text())
    assert data.pop("options") == ['{"action": "+"}', '{"action": "-"}']
    (tmp_path / "policy.json").write_text(json.dumps(data | {"key": "action", "actions": ["+", "-"]}))
    prompts = [prompt_of(state, "text") for state in STATES]
    assert load_actor(base, tmp_path).generate(prompts) == actor.generate(prompts)


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Done]:
    monkeypatch.chdir(tmp_path)
    return runner(monkeypatch, capsys)


WORDS = [
    "train",
    "model=cnn",
    "algorithm=ppo_small",
    "trainer.progress=false",
    "evaluation.num=6",
    "trainer.evaluate_num=4",
]
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
    words = [f"run={folder}", "evaluation.num=6", "accelerator=cpu"]
    done = program("evaluate", *words, "evaluation.how=choose")
    assert done.code == 0, done.err
    chosen = Path(done.last_line)
    assert chosen != folder
    assert json.loads((chosen / "summary.json").read_text())["correct"] == cell["correct"]
    [line, *_] = (chosen / "predictions" / file.name).read_text().splitlines()
    assert [one["text"] for one in json.loads(line)["options"][0]] == ['{"action": "+"}', '{"action": "-"}']
    assert any("accuracy/standard/image" in line for line in (folder / "metrics.jsonl").read_text().splitlines())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "model=cnn: table_readout offers no options to choose from, its answers are text"),
        (["env=number_line", "supervision=none", "adapter=lora"], "adapter"),
        (["env=number_line", "supervision=none", "trainer.precision=bf16-true"], "trainer.precision=bf16-true"),
        (["env=number_line", "supervision=none", "trainer.strategy=fsdp"], "trainer.strategy=fsdp: with model=cnn"),
        (["env=number_line", "supervision=none", "model.width=0"], "model.width=0: 1 or more"),
        (["env=number_line", "supervision=none", "model.base.name=nono"], "model.base.name=nono: allowed are"),
        (["env=number_line", "supervision=none", "model.base.name=cnn"], "model.base.name=cnn"),
        (["env=number_line", "supervision=none", "algorithm=cnn_ppo"], "is written model=cnn algorithm=ppo_small now"),
        (["env=number_line"], "this network knows the options"),
    ],
)
def test_what_does_not_fit_is_said(program: Callable[..., Done], words: list[str], says: str) -> None:
    done = program(*WORDS, *SMALL, *words)
    assert done.code == 2, done.err
    assert says in done.err
