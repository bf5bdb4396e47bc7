"""Self-training on the model's own responses: which are kept, that no gold one is looked at, what a step is made of."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.tiny import TRAINER, nano_task, outcome, plan, processor, shared_learner, tiny_learner, tiny_run

from vlmreason.data.loader import StepData
from vlmreason.data.mixture import ExampleRef, Mixture
from vlmreason.dialogue.build import build_dialogue
from vlmreason.models.contract import Generation, Prompt
from vlmreason.structure import structure
from vlmreason.training.engine.optimizers import OptimizerSettings
from vlmreason.training.engine.settings import TrainerSettings
from vlmreason.training.supervised.own_answers import OwnAnswers
from vlmreason.training.supervised.stage import SupervisedStage

PARTS = {
    "simple": {"level": "simple", "views": ["text", "image"]},
    "hard": {"level": "hard", "views": ["image"], "own": 60},
}
PHASE: dict[str, Any] = {"num_examples": 8, "parts": PARTS}
REFS = [ExampleRef("table_readout", "hard", "train", index, "image", 1.0) for index in range(7)]


def gold(index: int) -> str:
    task = nano_task()
    return build_dialogue(task, task.sample("hard", "train", index), "image").response.text


class Scripted:
    """A model that writes what it is told, by view, and counts tokens as characters."""

    def __init__(self, of_pictures: list[Generation], of_texts: list[Generation]) -> None:
        self.told = {True: of_pictures, False: of_texts}
        self.forbidden: dict[bool, Any] = {}

    def generate(self, prompts: list[Prompt], most: int, forbidden_starts: Any = ()) -> list[Generation]:
        [pictured] = {prompt.image is not None for prompt in prompts}
        assert most == 60
        self.forbidden[pictured] = list(forbidden_starts)
        return self.told[pictured]

    def count_tokens(self, text: str) -> int:
        return len(text)


def written(text: str, finished: bool = True) -> Generation:
    return Generation(text, len(text), finished)


def test_responses_are_kept_where_both_thoughts_or_both_answers_are_the_same_right_or_wrong() -> None:
    cases = [
        (gold(0), gold(0), True),
        ("(1,1) 3 Answer: 1 2 3 Sum: 6", "(2,2) 9 Answer: 1  2 3\nSum: 6", True),  # wrong, and the same
        (gold(2), gold(2).replace("Answer:", "Answer: 9"), True),  # read alike, copied otherwise
        (gold(2), "(1,1) 3 Answer: 1 2 3 Sum: 6", False),  # right as a picture, and not as text
        ("(1,1) 3 (1,2) 4", "(1,1) 3 (1,2) 4", False),  # no answer
        ("", "", False),
    ]
    of_pictures = [*(written(picture) for picture, _, _ in cases), written(gold(5), finished=False)]
    of_texts = [*(written(text) for _, text, _ in cases), written(gold(5))]
    learner: Any = Scripted(of_pictures, of_texts)
    own = OwnAnswers(learner, {"table_readout": nano_task()}, {("table_readout", "hard"): 60})
    kept = own(REFS)
    assert [one.response.text for one in kept] == [picture for picture, _, same in cases if same]
    assert [one.id for one in kept] == [f"table_readout-hard-train-{i}" for i in (0, 1, 2)]
    assert all(one.view == "image" and one.image is not None and "tabular" not in one.prompt for one in kept)
    assert learner.forbidden == {True: ["Convert"], False: []}


def test_gold_responses_are_not_looked_at() -> None:
    class Silent(type(nano_task())):  # type: ignore[misc]
        def response(self, state: Any, view: str) -> Any:
            raise AssertionError("a label")

        answer = thought = response

    task = Silent.__new__(Silent)
    task.__dict__.update(nano_task().__dict__)
    learner: Any = Scripted([written(gold(0))], [written(gold(0))])
    [kept] = OwnAnswers(learner, {"table_readout": task}, {("table_readout", "hard"): 60})(REFS[:1])
    assert kept.response.text == gold(0)


def test_a_step_has_problems_in_place_of_gold_examples() -> None:
    mixture = Mixture(plan(only=PHASE), "only", "table_readout", seed=0)
    data = StepData(mixture, {"table_readout": nano_task()}, processor(), 8, 10**9, 1024, own=("hard",))
    step = data[0]
    assert step["own"] == [i for i in range(8) if mixture[i].level == "hard"]
    assert len(step["own"]) == step["num_examples"] == 4
    assert sum(len(micro["labels"]) for micro in step["micro_batches"]) == 4
    assert "own" not in StepData(mixture, {"table_readout": nano_task()}, processor(), 8, 10**9, 1024)[0]


def lines_of(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def test_a_run_trains_on_what_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that knows nothing agrees with itself nowhere; one whose answers are given trains as on gold ones."""
    for name in ("alone", "again"):
        tiny_run(tmp_path / name, {"only": PHASE}, batch_size=8)
    assert outcome(tmp_path / "alone") == outcome(tmp_path / "again")
    [alone] = lines_of(tmp_path / "alone")
    assert alone["own_kept"] == 0
    with_gold = {key: dict(part, own=None) for key, part in PARTS.items()}
    tiny_run(tmp_path / "gold", {"only": PHASE | {"parts": with_gold}}, batch_size=8)

    def all_right(self: OwnAnswers, refs: list[ExampleRef]) -> Any:
        task = nano_task()
        return [build_dialogue(task, task.sample(ref.level, ref.split, ref.index), "image") for ref in refs]

    monkeypatch.setattr(OwnAnswers, "__call__", all_right)
    tiny_run(tmp_path / "right", {"only": PHASE}, batch_size=8)
    [given], [expected] = lines_of(tmp_path / "right"), lines_of(tmp_path / "gold")
    assert given["own_kept"] == 1 and "own_kept" not in expected
    for figure in ("loss", "grad_norm", "loss_thought", "loss_answer"):
        assert given[figure] == pytest.approx(expected[figure], rel=1e-3)
    assert given["loss"] != pytest.approx(alone["loss"], rel=1e-4)


def test_what_the_learner_writes_is_what_is_compared() -> None:
    """With the real model, which is not put out of training by it."""
    learner = tiny_learner()
    learner.model.train()
    OwnAnswers(learner, {"table_readout": nano_task()}, {("table_readout", "hard"): 4})(REFS[:2])
    assert learner.model.training


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ({"own": 0}, r"parts\.hard\.own=0: 1 or more tokens are expected"),
        ({"views": ["image", "text"]}, r"parts\.hard\.own=60: of views=\[image\] alone"),
        ({"thought_kept": 0.5}, r"parts\.hard\.thought_kept=0\.5: has no effect on responses of the model's own"),
    ],
)
def test_parts_without_sense_are_refused(part: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        plan(only=PHASE | {"parts": PARTS | {"hard": PARTS["hard"] | part}})


def test_something_gold_is_beside_it_and_what_others_are_held_against_is_gold() -> None:
    with pytest.raises(ValueError, match=r"phases\.only: a part with gold responses is expected beside"):
        plan(only=PHASE | {"parts": {"hard": PARTS["hard"]}})
    with pytest.raises(ValueError, match=r"choose\.toward: hard has no gold responses"):
        plan(only=PHASE | {"choose": {"toward": ["hard"]}})


def test_trainers_that_cannot_write_are_refused() -> None:
    supervision = plan(only=PHASE)
    settings = structure(TrainerSettings, vars(TRAINER) | {"strategy": "fsdp"})
    mixture = Mixture(supervision, "only", "table_readout", seed=0)
    tasks, optimizer = {"table_readout": nano_task()}, OptimizerSettings("adamw", lr=1e-2)
    with pytest.raises(ValueError, match=r"parts\.hard\.own: trainer\.strategy=fsdp shards the model"):
        SupervisedStage(shared_learner(), mixture, tasks, supervision.phase("only"), optimizer, settings)
