"""Scoring from files: every problem counts once, hostile predictions end in a count or one sentence."""

import json
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.adding import Adding, gold_dialogue_text

from vlmreason import files
from vlmreason.evaluation.predictions import Prediction
from vlmreason.evaluation.problems import ProblemFile, SampledProblems
from vlmreason.evaluation.scoring import score_file, score_predictions
from vlmreason.evaluation.table import format_table
from vlmreason.tasks.base import MAX_RESPONSE_CHARS, state_to_json

TASK = Adding()
PROBLEMS = [TASK.sample(level, "test", index) for level in TASK.levels for index in range(3)]
IDS = [problem.id for problem in PROBLEMS]


def problem_line(problem, **changes):
    data = {"id": problem.id, "task": problem.task, "level": problem.level, "split": problem.split}
    return data | {"index": problem.index, "meta": state_to_json(problem.state)} | changes


def gold_line(problem, **changes):
    return {"id": problem.id, "response": TASK.answer(problem.state)} | changes


@pytest.fixture
def place(tmp_path):
    write(tmp_path / "metadata.jsonl", map(problem_line, PROBLEMS))
    return tmp_path


def write(path, lines):
    path.write_bytes(b"".join(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines))


def score(place, lines):
    write(place / "answers.jsonl", lines)
    return score_file(TASK, place / "metadata.jsonl", place / "answers.jsonl")


def test_gold_scores_one_and_the_summary_lies_beside(place):
    summary, path = score(place, map(gold_line, reversed(PROBLEMS)))
    assert path == place / "answers.summary.json"
    data = json.loads(path.read_text())
    assert data == summary.to_json()
    assert {key: data[key] for key in ("num", "correct", "accuracy", "unparsed", "cut_off", "missing")} == {
        "num": 6,
        "correct": 6,
        "accuracy": 1.0,
        "unparsed": 0,
        "cut_off": 0,
        "missing": 0,
    }
    assert data["ci_low"] == pytest.approx(0.6097, abs=1e-4) and data["ci_high"] == 1.0
    assert data["off_by_ten"] == 0.0 and data["length"] == 1.0 and data["mean_tokens"] is None
    assert [(cell["level"], cell["view"], cell["num"]) for cell in data["cells"]] == [
        ("simple", None, 3),
        ("hard", None, 3),
    ]


def test_problems_of_a_file_are_the_sampled_ones(place):
    from_file = ProblemFile(place / "metadata.jsonl", TASK)
    sampled = SampledProblems(TASK, TASK.levels, "test", 3)
    assert list(from_file) == list(sampled) == IDS
    assert dict(from_file) == dict(sampled) == dict(zip(IDS, PROBLEMS, strict=True))
    write(place / "text.jsonl", [problem_line(p, meta=json.dumps(state_to_json(p.state))) for p in PROBLEMS])
    assert dict(ProblemFile(place / "text.jsonl", TASK)) == dict(sampled)
    for wrong in ("adding-simple-test-3", "adding-simple-test-01", "adding-simple-train-0", "adding-simple-test-", ""):
        assert wrong not in sampled and wrong not in from_file


def test_missing_predictions_count_as_incorrect(place):
    summary, _ = score(place, [gold_line(PROBLEMS[0])])
    assert (summary.total.num, summary.total.correct, summary.total.missing) == (6, 1, 5)
    assert [cell.missing for cell in summary.cells] == [2, 3]
    assert "5 of 6 have no response" in format_table(summary)
    assert score(place, [])[0].total.missing == 6


def test_views_are_scored_apart(place):
    lines = [gold_line(p, view="text") for p in PROBLEMS] + [gold_line(p, view="image") for p in PROBLEMS[:3]]
    summary, _ = score(place, lines)
    assert [(c.level, c.view, c.correct, c.missing) for c in summary.cells] == [
        ("simple", "text", 3, 0),
        ("simple", "image", 3, 0),
        ("hard", "text", 3, 0),
        ("hard", "image", 0, 3),
    ]
    with pytest.raises(ValueError, match="some predictions name a view"):
        score(place, [gold_line(PROBLEMS[0], view="text"), gold_line(PROBLEMS[1])])


@pytest.mark.parametrize(
    "response",
    ["", "no answer", "9" * (MAX_RESPONSE_CHARS + 1), "[" * 100_000, "\x00", "\ud800", None, 7, ["Answer: 1"], {}],
)
def test_unusable_responses_are_counted_unparsed(place, response):
    total = score(place, [{"id": IDS[0], "response": response}, *map(gold_line, PROBLEMS[1:])])[0].total
    assert (total.num, total.correct, total.unparsed, total.missing) == (6, 5, 1, 0)


def test_bytes_that_are_not_utf8_are_counted_unparsed(place):
    right = json.dumps(gold_line(PROBLEMS[0])).encode()
    total = score(place, [right.replace(b"Answer", b"\xff\xfe Answer") + b"\n"])[0].total
    assert (total.correct, total.unparsed, total.missing) == (0, 1, 5)


def test_cut_off_last_line_is_left_out_and_byte_order_mark_read(place):
    gold = [json.dumps(gold_line(problem)).encode() for problem in PROBLEMS]
    assert score(place, [b"\xef\xbb\xbf" + b"\r\n\n".join(gold[:3])])[0].total.correct == 3
    assert score(place, [b"\n".join(gold)[:-5]])[0].total.missing == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"id": "adding-simple-test-99", "response": ""}, "no such problem"),
        ({"id": IDS[0], "response": ""}, "given twice"),
        ({"id": "\ud800" * 10_000, "response": ""}, "no such problem"),
        ({"id": 3, "response": ""}, r":2: a prediction needs an id"),
        ({"response": ""}, r":2: a prediction needs an id"),
        ({"id": IDS[1]}, r":2: a prediction needs a response"),
        ({"id": IDS[1], "response": "", "finished": "no"}, r":2: finished='no': bool is expected"),
        ({"id": IDS[1], "response": "", "num_tokens": -1}, r":2: num_tokens=-1"),
        ({"id": IDS[1], "response": "", "num_tokens": float("inf")}, r":2: num_tokens=inf"),
        ({"id": IDS[1], "response": "", "tokens_answer": 10**400}, r":2: tokens_answer=1000"),
        ({"id": IDS[1], "response": "", "view": []}, r":2: view=\[\]"),
        ({"id": IDS[1], "response": "", "view": "sound"}, r":2: view='sound': allowed are text"),
        (b"[" * 200_000 + b"\n", r":2: the line is damaged"),
        (b'{"id":' * 200_000 + b"\n", r":2: the line is damaged"),
        (b'{"id": ' + b"1" * 10_000 + b"}\n", r":2: the line is damaged"),
        (b"\x00\x00\n", r":2: the line is damaged"),
        (b'"text"\n', r":2: a JSON object is expected, got str"),
    ],
)
def test_unusable_lines_end_with_one_short_sentence(place, line, message):
    with pytest.raises(ValueError, match=message) as raised:
        score(place, [gold_line(PROBLEMS[0]), line])
    text = str(raised.value)
    assert "\n" not in text and len(text.replace(str(place), "")) < 300
    text.encode()
    assert not (place / "answers.summary.json").exists()


def test_endless_line_is_refused_without_reading_it_whole(place, monkeypatch):
    monkeypatch.setattr(files, "MAX_LINE_BYTES", 2**20)
    with pytest.raises(ValueError, match=r":2: the line is longer than 1 MiB"):
        score(place, [gold_line(PROBLEMS[0]), b'{"id": "' + b"x" * 2**21])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (problem_line(PROBLEMS[0], task="other"), "not of adding"),
        (problem_line(PROBLEMS[0], level="medium"), "adding has simple, hard"),
        (problem_line(PROBLEMS[1], id=IDS[0]), "twice"),
        (problem_line(PROBLEMS[0], id=5), "needs id"),
        (b'{"id": "adding', "cut off"),
        (problem_line(PROBLEMS[0], id="x", meta={"values": ["a"]}), "meta is no problem of adding"),
        (problem_line(PROBLEMS[0], id="x", meta=None), "meta is no problem of adding"),
        (problem_line(PROBLEMS[0], id="x", meta="[" * 100_000), "meta is no problem of adding"),
        (problem_line(PROBLEMS[0], id="x", meta='"text"'), "meta is no problem of adding"),
        (problem_line(PROBLEMS[0], id="x", index="0"), "index='0'"),
    ],
)
def test_unusable_problem_files_end_with_one_sentence(place, line, message):
    write(place / "metadata.jsonl", [problem_line(PROBLEMS[0]), line])
    with pytest.raises(ValueError, match=message):
        score(place, [gold_line(PROBLEMS[0])])


def test_absent_and_empty_files_end_with_one_sentence(place):
    with pytest.raises(ValueError, match=r"nothing\.jsonl: cannot be read"):
        score_file(TASK, place / "metadata.jsonl", place / "nothing.jsonl")
    with pytest.raises(ValueError, match="cannot be read"):
        score_file(TASK, place, place / "nothing.jsonl")
    (place / "empty.jsonl").touch()
    with pytest.raises(ValueError, match="holds no problem"):
        score_file(TASK, place / "empty.jsonl", place / "empty.jsonl")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_subnormal=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=60, deadline=None)
@given(response=json_values)
def test_any_response_is_scored(tmp_path_factory, response):
    place = tmp_path_factory.mktemp("any")
    write(place / "metadata.jsonl", [problem_line(PROBLEMS[0])])
    total = score(place, [{"id": IDS[0], "response": response}])[0].total
    assert total.num == 1 and total.missing == 0 and total.correct + total.unparsed <= 1


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=200))
def test_any_bytes_end_in_a_summary_or_one_sentence(tmp_path_factory, data):
    place = tmp_path_factory.mktemp("bytes")
    write(place / "metadata.jsonl", [problem_line(PROBLEMS[0])])
    try:
        assert score(place, [data])[0].total.num == 1
    except ValueError as error:
        assert len(str(error).splitlines()) == 1


def test_exact_conversions_are_counted_among_those_that_convert():
    exact, plain = gold_dialogue_text(0), TASK.answer(PROBLEMS[1].state)
    wrong = gold_dialogue_text(2).replace("begin\n", "begin\n7", 1)
    responses = zip(IDS[:3], [exact, plain, wrong], strict=True)
    problems = SampledProblems(TASK, ("simple",), "test", 3)
    total = score_predictions(TASK, problems, [Prediction(id, response) for id, response in responses]).total
    assert (total.correct, total.converted, total.conversion_exact) == (3, 2, 0.5)


def test_scoring_needs_no_torch():
    code = "import sys, vlmreason.evaluation.scoring, vlmreason.evaluation.table; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"
