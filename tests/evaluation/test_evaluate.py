"""Evaluation with a fake learner: resumable, never twice, batch size without influence."""

import json
import os
from pathlib import Path

import pytest
from support.adding import Adding, FakeLearner, by_parity, cut_off, gold, gold_via_text, spoiled

from vlmreason.answering.settings import EvaluationSettings
from vlmreason.evaluation.evaluate import evaluate, prediction_path
from vlmreason.evaluation.further import evaluation_dir, format_evaluations, take_over
from vlmreason.evaluation.predictions import PredictionFile
from vlmreason.evaluation.table import format_table
from vlmreason.models.contract import Generation

IDENTITY = {"checkpoint": "abc", "config": {"task": "adding"}}


def run(learner, out_dir, identity=IDENTITY, **settings):
    settings = EvaluationSettings(**{"num": 10, "batch_size": 4} | settings)
    return evaluate(learner, Adding(), settings, out_dir, identity, progress=False)


def files(out_dir: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out_dir)): path.read_bytes() for path in sorted(out_dir.rglob("*.json*"))}


def test_gold_scores_one_and_spoiled_zero_in_every_cell(tmp_path):
    summary = run(FakeLearner(gold), tmp_path / "gold")
    assert [(cell.level, cell.view) for cell in summary.cells] == [
        ("simple", "text"),
        ("simple", "image"),
        ("hard", "text"),
        ("hard", "image"),
    ]
    assert all(cell.num == cell.correct == 10 and cell.unparsed == cell.cut_off == 0 for cell in summary.cells)
    assert summary.total.num == 40 and summary.total.accuracy == 1.0
    assert json.loads((tmp_path / "gold" / "summary.json").read_text()) == summary.to_json()
    assert run(FakeLearner(spoiled), tmp_path / "spoiled").total.correct == 0


def test_a_model_is_asked_by_text_by_picture_or_by_both(tmp_path):
    asked = []

    def reply(state, prompt):
        asked.append((Adding().text(state) in prompt.text, prompt.image is not None))
        return gold(state, prompt)

    summary = run(FakeLearner(reply), tmp_path, levels=("hard",), views=("text", "image", "both"), conversion="forbid")
    assert asked == [(True, False)] * 10 + [(False, True)] * 10 + [(True, True)] * 10
    assert [(cell.view, cell.correct) for cell in summary.cells] == [("text", 10), ("image", 10), ("both", 10)]
    assert (tmp_path / "predictions" / "hard-both.jsonl").is_file()


def test_cut_off_responses_are_counted_apart(tmp_path):
    total = run(FakeLearner(cut_off), tmp_path).total
    assert (total.correct, total.unparsed, total.cut_off, total.mean_tokens) == (0, 40, 40, 7.0)


def test_tokens_are_counted_per_segment(tmp_path):
    cell = run(FakeLearner(gold_via_text), tmp_path, levels=("simple",), views=("image",)).cells[0]
    assert dict(cell.segment_tokens) == {"convert": 7.0, "thought": 8.0, "answer": 2.0}
    assert cell.converted == 10 and cell.conversion_exact == 1.0
    assert cell.mean_tokens == cell.median_tokens == 18.0


def test_thoughts_that_are_right_but_end_too_soon_are_counted_apart(tmp_path):
    """Half of the thought, then the answer; a thought that is cut off by the length limit did not end."""

    def half(state, prompt):
        first, _ = Adding().thought(state)
        text = first + "x" * (state.values[0] % 2 == 0) + Adding().answer(state)
        return Generation(text, len(text.split()), True)

    summary = run(FakeLearner(half), tmp_path / "half", levels=("simple",), views=("text",))
    num_odd = sum(Adding().sample("simple", "test", index).state.values[0] % 2 for index in range(10))
    assert 0 < num_odd < 10
    assert (summary.total.stopped_early, summary.total.prefix_right) == (num_odd, 0.5)
    assert "prefix right  stopped early" in format_table(summary) and f"50.0 %  {num_odd:>13}" in format_table(summary)
    whole = run(FakeLearner(gold), tmp_path / "gold").total
    assert (whole.stopped_early, whole.prefix_right) == (0, 1.0)
    assert run(FakeLearner(cut_off), tmp_path / "cut").total.stopped_early == 0


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_batch_size_changes_no_file(tmp_path, batch_size):
    run(FakeLearner(by_parity), tmp_path / "four")
    run(FakeLearner(by_parity), tmp_path / "other", batch_size=batch_size)
    assert files(tmp_path / "four") == files(tmp_path / "other")


@pytest.mark.parametrize("fail_after", [0, 1, 4, 11])
def test_interrupted_run_ends_like_an_unbroken_one(tmp_path, fail_after):
    run(FakeLearner(by_parity), tmp_path / "whole")
    broken = FakeLearner(by_parity, fail_after=fail_after)
    with pytest.raises(KeyboardInterrupt):
        run(broken, tmp_path / "broken")
    rest = FakeLearner(by_parity)
    run(rest, tmp_path / "broken")
    assert broken.num_asked + rest.num_asked == 40
    assert files(tmp_path / "whole") == files(tmp_path / "broken")


def test_run_killed_at_any_byte_ends_like_an_unbroken_one(tmp_path):
    settings = {"levels": ("simple",), "views": ("text",), "num": 3}
    run(FakeLearner(by_parity), tmp_path, **settings)
    whole, path = files(tmp_path), prediction_path(tmp_path, "simple", "text")
    content = path.read_bytes()
    ends = [i for i, byte in enumerate(content) if byte == ord("\n")]
    for size in {*range(0, len(content), 41), *ends, *(end - 1 for end in ends), *(end + 1 for end in ends)}:
        path.write_bytes(content[:size])
        learner = FakeLearner(by_parity)
        run(learner, tmp_path, **settings)
        complete = sum(content[:size].startswith(line) for line in _starts(content))
        assert learner.num_asked == 3 - complete
        assert files(tmp_path) == whole


def _starts(content: bytes) -> list[bytes]:
    """The beginnings of a file up to the end of each line, without its newline."""
    lines = content.splitlines()
    return [b"\n".join(lines[: i + 1]) for i in range(len(lines))]


def test_second_run_asks_nothing_and_more_problems_are_added(tmp_path):
    first = run(FakeLearner(by_parity), tmp_path)
    again = FakeLearner(by_parity)
    assert run(again, tmp_path) == first and again.num_asked == 0
    more = FakeLearner(by_parity)
    assert run(more, tmp_path, num=12).total.num == 48 and more.num_asked == 8
    assert run(again, tmp_path) == first and again.num_asked == 0  # fewer: the first ones count


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"identity": {"checkpoint": "abd", "config": {"task": "adding"}}}, "checkpoint"),
        ({"identity": {"checkpoint": "abc", "config": {"task": "other"}}}, "config.task"),
        ({"split": "validation"}, "split"),
        ({"max_new_tokens": 5}, "max_new_tokens"),
        ({"conversion": "forbid"}, "conversion"),
        ({"prefill": "So"}, "prefill"),
    ],
)
def test_another_evaluation_is_refused(tmp_path, changes, named):
    run(FakeLearner(gold), tmp_path)
    before = files(tmp_path)
    with pytest.raises(ValueError, match=f"{named} is"):
        run(FakeLearner(gold), tmp_path, **changes)
    assert files(tmp_path) == before


OWN = EvaluationSettings(num=10)


def place(run_dir, identity=IDENTITY, phase="final", **settings):
    settings = EvaluationSettings(**{"num": 10} | settings)
    return evaluation_dir(run_dir, Adding(), settings, identity, phase, OWN)


def test_evaluations_of_a_run_lie_apart_but_for_its_own(tmp_path):
    new = place(tmp_path)
    assert new.parent == tmp_path / "evaluations" and new.name.startswith("adding-final-free-n10-")
    assert place(tmp_path, batch_size=7) == new
    others = [
        {"conversion": "force"}, {"split": "train"}, {"identity": {"checkpoint": "abd"}}, {"num": 3},
        {"views": ("text",)}, {"levels": ("hard",)}, {"prefill": "So"}, {"identity": {"checkpoint": "e"}, "phase": "a"},
    ]  # fmt: skip
    names = {new.name, *(place(tmp_path, **other).name for other in others)}
    assert len(names) == 9
    words = ("force-n10", "free-train-n10", "free-n3", "free-prefill-n10", "adding-a-free")
    assert all(any(word in name for name in names) for word in words)
    run(FakeLearner(gold), tmp_path)
    assert place(tmp_path) == tmp_path
    assert all(place(tmp_path, **other) != tmp_path for other in others)


@pytest.mark.parametrize("changes", [{"num": 3}, {"levels": ("simple",)}, {"views": ("image",)}, {"num": 14}])
def test_a_further_evaluation_changes_nothing_and_asks_for_what_is_new(tmp_path, changes):
    run(FakeLearner(by_parity), tmp_path / "run")
    before = files(tmp_path / "run")
    run(FakeLearner(by_parity), tmp_path / "alone", **changes)
    folder, learner = place(tmp_path / "run", **changes), FakeLearner(by_parity)
    settings = EvaluationSettings(**{"num": 10} | changes)
    for _ in range(2):
        take_over(folder, tmp_path / "run", Adding(), settings, IDENTITY)
        run(learner, folder, **changes)
        assert place(tmp_path / "run", **changes) == folder
    assert learner.num_asked == (16 if "num" in changes and changes["num"] > 10 else 0)
    assert files(folder) == files(tmp_path / "alone")
    assert {name: data for name, data in files(tmp_path / "run").items() if "evaluations" not in name} == before


def test_an_evaluation_that_is_named_otherwise_is_found(tmp_path):
    old = tmp_path / "evaluations" / "adding-01234567"
    run(FakeLearner(gold), old, conversion="force")
    assert place(tmp_path, conversion="force") == old != place(tmp_path, conversion="force", num=3)


def test_all_evaluations_stand_in_one_table(tmp_path):
    assert format_evaluations(tmp_path) == ""
    run(FakeLearner(gold), tmp_path)
    small, broken = place(tmp_path, num=3, levels=("hard",)), place(tmp_path, conversion="force")
    run(FakeLearner(spoiled), small, num=3, levels=("hard",))
    with pytest.raises(KeyboardInterrupt):
        run(FakeLearner(gold, fail_after=1), broken, conversion="force")
    header, _, own, *further = format_evaluations(tmp_path).splitlines()
    assert header.split()[:5] == ["evaluation", "levels", "views", "problems", "accuracy"]
    assert own.split()[:7] == ["adding-final-free-n10", "(its", "own)", "simple,hard", "text,image", "40", "100.0"]
    assert [line.split()[0] for line in further] == sorted([small.name, broken.name])
    [line] = [line for line in further if small.name in line]
    assert line.split()[1:5] == ["hard", "text,image", "6", "0.0"]
    [line] = [line for line in further if broken.name in line]
    assert "not finished" in line


def test_predictions_of_unknown_origin_are_refused(tmp_path):
    run(FakeLearner(gold), tmp_path)
    (tmp_path / "evaluation.json").unlink()
    with pytest.raises(ValueError, match=r"no evaluation\.json"):
        run(FakeLearner(gold), tmp_path)


@pytest.mark.parametrize("damage", [b"garbage\n", b"[1]\n", b'{"id": "adding-simple-test-1"}\n', b"\x00\xff\n"])
def test_damaged_line_in_the_middle_is_named_and_nothing_is_lost(tmp_path, damage):
    run(FakeLearner(gold), tmp_path)
    path = prediction_path(tmp_path, "simple", "text")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], damage, *lines[2:]]))
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"simple-text\.jsonl:2: "):
        run(FakeLearner(gold), tmp_path)
    assert path.read_bytes() == before


def test_foreign_and_repeated_predictions_are_refused(tmp_path):
    run(FakeLearner(gold), tmp_path)
    path = prediction_path(tmp_path, "simple", "text")
    content = path.read_bytes()
    path.write_bytes(content + content.splitlines(keepends=True)[0])
    with pytest.raises(ValueError, match="twice"):
        run(FakeLearner(gold), tmp_path)
    path.write_bytes(content + b'{"id": "adding-hard-test-1", "response": ""}\n')
    with pytest.raises(ValueError, match="does not belong"):
        run(FakeLearner(gold), tmp_path)


def test_conversion_and_prefill_reach_the_learner(tmp_path):
    prompts = []

    def remember(state, prompt):
        prompts.append(prompt)
        return gold(state, prompt)

    def seen(**settings):
        prompts.clear()
        learner = FakeLearner(remember)
        run(learner, tmp_path / str(settings), num=1, levels=("simple",), **settings)
        return [prompt.prefill for prompt in prompts], learner.forbidden

    assert seen() == (["", ""], ((), ()))
    assert seen(conversion="force") == (["", "Convert"], ((), ()))
    prefill = seen(conversion="gold")[0]
    assert prefill[0] == "" and prefill[1].startswith("Convert") and prefill[1].count("\n") >= 2
    assert seen(conversion="forbid") == (["", ""], ((), ("Convert",)))
    assert seen(prefill="So") == (["So", "So"], ((), ()))
    assert [prompt.image is None for prompt in prompts] == [True, False]
    assert [prompt.pattern for prompt in prompts] == [None, None]


def test_a_given_length_is_that_of_the_expected_response(tmp_path):
    prompts = []

    def remember(state, prompt):
        prompts.append((state, prompt))
        return gold(state, prompt)

    run(FakeLearner(remember), tmp_path / "free", num=1, levels=("hard",))
    run(FakeLearner(remember), tmp_path / "given", num=1, levels=("hard",), conversion="force", length="given")
    assert [prompt.pattern for _, prompt in prompts[:2]] == [None, None]
    for (state, prompt), view in zip(prompts[2:], ("text", "image_via_text"), strict=True):
        assert prompt.pattern == Adding().response(state, view)
    held = json.loads((tmp_path / "given" / "evaluation.json").read_text())
    assert held["length"] == "given"
    assert "length" not in json.loads((tmp_path / "free" / "evaluation.json").read_text())


@pytest.mark.parametrize(
    "settings",
    [
        {"num": 0},
        {"batch_size": 0},
        {"max_new_tokens": -1},
        {"split": "tset"},
        {"levels": ()},
        {"levels": ("simpel",)},
        {"views": ("text", "text")},
        {"views": ("text",), "conversion": "force"},
        {"conversion": "force", "prefill": "So"},
        {"length": "given", "prefill": "So"},
        {"length": "given", "how": "choose"},
    ],
)
def test_impossible_settings_are_refused_before_anything_is_written(tmp_path, settings):
    with pytest.raises(ValueError):
        run(FakeLearner(gold), tmp_path, **settings)
    assert not list(tmp_path.iterdir())


def test_full_disk_is_one_sentence_and_resumable(tmp_path, monkeypatch):
    from vlmreason.evaluation import predictions

    class Full:
        def __init__(self, handle, room):
            self.handle, self.room = handle, room

        def __getattr__(self, name):
            return getattr(self.handle, name)

        def write(self, data):
            if not self.room:
                raise OSError(28, "No space left on device")
            written = self.handle.write(data[: self.room])
            self.room -= written
            return written

    original = predictions.PredictionFile._recover

    def recover(self, expected):
        original(self, expected)
        self._handle = Full(self._handle, 700)

    with monkeypatch.context() as patched:
        patched.setattr(predictions.PredictionFile, "_recover", recover)
        with pytest.raises(ValueError, match="No space left"):
            run(FakeLearner(by_parity), tmp_path / "full")
    run(FakeLearner(by_parity), tmp_path / "full")
    run(FakeLearner(by_parity), tmp_path / "whole")
    assert files(tmp_path / "full") == files(tmp_path / "whole")


def test_two_writers_at_once_are_refused(tmp_path):
    from vlmreason.evaluation.predictions import PredictionFile

    path = tmp_path / "predictions.jsonl"
    with PredictionFile(path, {}), pytest.raises(ValueError, match="another evaluation"):
        PredictionFile(path, {})


def test_table_has_a_row_per_cell(tmp_path):
    lines = format_table(run(FakeLearner(by_parity), tmp_path)).splitlines()
    assert len(lines) == 6
    for line, (level, view) in zip(
        lines[2:], [("simple", "text"), ("simple", "image"), ("hard", "text"), ("hard", "image")], strict=True
    ):
        assert line.split()[:2] == [level, view] and "%" in line


def test_files_open_in_pandas(tmp_path):
    pandas = pytest.importorskip("pandas")
    summary = run(FakeLearner(gold), tmp_path)
    frame = pandas.read_json(prediction_path(tmp_path, "hard", "image"), lines=True)
    assert len(frame) == 10 and frame["finished"].all() and (frame["tokens_answer"] == 2).all()
    cells = pandas.DataFrame(summary.to_json()["cells"])
    assert list(cells["accuracy"]) == [1.0] * 4


def test_a_pipe_in_the_place_of_predictions_is_named(tmp_path):
    path = tmp_path / "predictions.jsonl"
    os.mkfifo(path)
    with pytest.raises(ValueError, match="no ordinary file"):
        PredictionFile(path, {})
