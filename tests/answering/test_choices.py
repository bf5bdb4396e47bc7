"""Problems answered by choosing: the likeliest option is the response, in any batch, resumable, never twice."""

import dataclasses
import json
import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.adding import Adding, FakeLearner, Numbers, gold, read_state

from vlmreason.answering.choices import check_options, choose
from vlmreason.answering.settings import EvaluationSettings
from vlmreason.evaluation.evaluate import Share, evaluate, measure, prediction_path
from vlmreason.evaluation.further import evaluation_dir
from vlmreason.evaluation.predictions import read_predictions
from vlmreason.models.contract import Choice, Prompt

IDENTITY = {"checkpoint": "abc"}
CHOOSE = EvaluationSettings(how="choose", num=10, batch_size=7)


class Choosing(Adding):
    """Three sums to choose from; the right one is not always the first."""

    def options(self, state: Numbers) -> tuple[str, ...]:
        total = sum(state.values)
        found = [f"Answer: {total + more}" for more in (0, 10, 100)]
        return tuple(found[total % 3 :] + found[: total % 3])


@dataclasses.dataclass
class Chooser:
    """Likes options by their number; `fails_after` so many calls."""

    likes: Callable[[Numbers, str], float]
    fails_after: float = math.inf
    sizes: list[int] = dataclasses.field(default_factory=list)

    def choose(self, prompts: Sequence[Prompt], options: Sequence[Sequence[str]]) -> list[list[Choice]]:
        if len(self.sizes) >= self.fails_after:
            raise KeyboardInterrupt
        self.sizes.append(sum(map(len, options)))
        return [
            [Choice(self.likes(read_state(prompt), text), len(text.split()) + 1) for text in some]
            for prompt, some in zip(prompts, options, strict=True)
        ]

    def generate(self, *_: object) -> list[object]:
        raise AssertionError("nothing is to be written")

    def count_tokens(self, text: str) -> int:
        return len(text.split())


def right(state: Numbers, text: str) -> float:
    return -abs(int(text.split()[1]) - sum(state.values))


def wrong(state: Numbers, text: str) -> float:
    return -right(state, text)


def files(out_dir: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out_dir)): path.read_bytes() for path in sorted(out_dir.rglob("*.json*"))}


def run(chooser: Chooser, out_dir: Path, share: Share | None = None, **changes: object) -> None:
    settings = dataclasses.replace(CHOOSE, **changes)
    evaluate(chooser, Choosing(), settings, out_dir, IDENTITY, progress=False, share=share or Share())


def test_the_likeliest_is_the_response_and_all_scores_are_kept(tmp_path: Path) -> None:
    for likes, accuracy in ((right, 1.0), (wrong, 0.0)):
        run(Chooser(likes), tmp_path / likes.__name__)
        assert json.loads((tmp_path / likes.__name__ / "summary.json").read_text())["accuracy"] == accuracy
    task = Choosing()
    for prediction in read_predictions(prediction_path(tmp_path / "right", "hard", "image")):
        state = task.sample("hard", "test", prediction.index or 0).state
        assert [one["text"] for one in prediction.options] == list(task.options(state))
        assert [one["logprob"] for one in prediction.options] == [right(state, text) for text in task.options(state)]
        assert prediction.response == task.answer(state) and prediction.num_tokens == 3 and prediction.finished
        assert prediction.tokens["answer"] == 2


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 64])
def test_batches_have_as_many_options_and_change_no_file(tmp_path: Path, batch_size: int) -> None:
    run(Chooser(wrong), tmp_path / "seven")
    chooser = Chooser(wrong)
    run(chooser, tmp_path / "other", batch_size=batch_size)
    assert max(chooser.sizes) <= max(batch_size, 3)
    assert sum(chooser.sizes) == 2 * 2 * 10 * 3
    assert files(tmp_path / "seven") == files(tmp_path / "other")


@pytest.mark.parametrize("fails_after", [0, 1, 5, 11])
def test_an_interrupted_evaluation_ends_like_an_unbroken_one(tmp_path: Path, fails_after: int) -> None:
    run(Chooser(right), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(Chooser(right, fails_after), tmp_path / "broken")
    run(Chooser(right), tmp_path / "broken")
    assert files(tmp_path / "whole") == files(tmp_path / "broken")


def test_several_processes_make_the_files_of_one(tmp_path: Path) -> None:
    run(Chooser(right), tmp_path / "one")
    meet = threading.Barrier(3, timeout=60)
    with ThreadPoolExecutor(3) as pool:
        shares = [Share(rank, 3, meet.wait) for rank in range(3)]  # type: ignore[arg-type]
        list(pool.map(lambda share: run(Chooser(right), tmp_path / "three", share), shares))
    assert files(tmp_path / "one") == files(tmp_path / "three")


def test_what_is_chosen_is_kept_apart_from_what_is_written(tmp_path: Path) -> None:
    written = EvaluationSettings(num=10)
    evaluate(FakeLearner(gold), Choosing(), written, tmp_path, IDENTITY, progress=False)
    assert "how" not in json.loads((tmp_path / "evaluation.json").read_text())
    assert "options" not in prediction_path(tmp_path, "hard", "text").read_text()
    assert evaluation_dir(tmp_path, Choosing(), written, IDENTITY, own=written) == tmp_path
    place = evaluation_dir(tmp_path, Choosing(), CHOOSE, IDENTITY)
    assert place != tmp_path
    longer = dataclasses.replace(CHOOSE, max_new_tokens=7)  # the length of what is not written
    assert evaluation_dir(tmp_path, Choosing(), longer, IDENTITY) == place
    run(Chooser(right), place)
    assert json.loads((place / "evaluation.json").read_text())["how"] == "choose"
    with pytest.raises(ValueError, match="how is"):
        run(Chooser(right), tmp_path)


def test_it_is_measured_while_training() -> None:
    found = measure(Chooser(right), Choosing(), CHOOSE)
    assert found["accuracy/simple/text"] == found["accuracy/hard/image"] == 1.0
    assert measure(Chooser(wrong), Choosing(), CHOOSE)["off_by_ten/hard/image"] == 1.0


def test_of_equals_the_first_is_taken() -> None:
    task = Choosing()
    state = task.sample("simple", "test", 0).state
    [chosen] = choose(Chooser(lambda *_: -1.0), task, [state], [Prompt(task.prompt(state, "text"), None)], 4)
    assert chosen.text == task.options(state)[0]


def test_what_has_no_effect_or_no_options_is_said() -> None:
    for changes, says in (
        ({"conversion": "force"}, r"evaluation\.conversion=force: has no effect with evaluation\.how=choose"),
        ({"prefill": "So"}, r"evaluation\.prefill=So: has no effect with evaluation\.how=choose"),
    ):
        with pytest.raises(ValueError, match=says):
            dataclasses.replace(CHOOSE, **changes)
    with pytest.raises(ValueError, match=r"evaluation\.how=choose: adding offers no options to choose from"):
        check_options(Adding(), CHOOSE)
    check_options(Choosing(), CHOOSE)
    check_options(Adding(), EvaluationSettings())
