"""What comes out by group: values apart, whole groups, intervals over groups."""

import json

import pytest
from support.adding import Adding, FakeLearner, by_parity, gold

from vlmreason.answering.settings import EvaluationSettings
from vlmreason.evaluation.evaluate import evaluate
from vlmreason.evaluation.groups import by_group, part_means
from vlmreason.evaluation.table import format_table
from vlmreason.intervals import clustered_share, wilson_interval


class Paired(Adding):
    """Numbers by the tens of the first one, and by whether their sum is even."""

    def groups(self, state):
        return {"pair": str(state.values[0] // 2), "sum": "even" if sum(state.values) % 2 == 0 else "odd"}


def run(out_dir, task, reply=by_parity, num=40):
    settings = EvaluationSettings(num=num, batch_size=8, levels=("simple",), views=("text",))
    return evaluate(FakeLearner(reply), task, settings, out_dir, {}, progress=False)


def test_groups_of_a_small_table():
    marks = [
        ({"pair": pair}, right) for pair, right in [("a", True), ("a", True), ("b", True), ("b", False), ("c", True)]
    ]
    [found] = by_group("hard", "text", [*marks, ({}, False)])
    assert (found.group, found.accuracy.count, found.accuracy.num) == ("pair", 4, 5)
    assert (found.all_right.count, found.all_right.num) == (2, 3)
    assert (found.all_right.ci_low, found.all_right.ci_high) == pytest.approx(wilson_interval(2, 3))
    assert {value: (share.count, share.num) for value, share in found.values.items()} == {
        "a": (2, 2), "b": (1, 2), "c": (1, 1),
    }  # fmt: skip


def test_problems_that_depend_on_each_other_tell_less():
    """Of 30 groups of 10 that are all right or all wrong the interval is that of 30, not of 300."""
    marks = [({"pair": str(i), "skill": "one"}, i % 3 > 0) for i in range(30) for _ in range(10)]
    pair, skill = by_group(None, None, marks)
    alone = wilson_interval(200, 300)
    for found in (pair.accuracy, skill.values["one"]):
        assert (found.count, found.num) == (200, 300)
        assert found.ci_low < alone[0] and found.ci_high > alone[1]
        assert found.ci_high - found.ci_low == pytest.approx(
            wilson_interval(20, 30)[1] - wilson_interval(20, 30)[0], rel=0.03
        )
    assert pair.accuracy == clustered_share([[i % 3 > 0] * 10 for i in range(30)])


def test_values_stand_in_the_order_of_numbers():
    [found] = by_group(None, None, [({"turn": value}, True) for value in ("10", "9", "b", "a", "2")])
    assert list(found.values) == ["2", "9", "10", "a", "b"]
    [many] = by_group(None, None, [({"pair": str(i)}, True) for i in range(101)])
    assert many.values == {} and many.all_right.num == 101


def test_parts_of_scores_have_a_mean_in_each_group():
    marks = [({"skill": "a", "puzzle": "1"}, True), ({"skill": "a", "puzzle": "2"}, False), ({"skill": "b"}, True)]
    parts = [{"option": 1.0, "error": 0.0}, {"option": 1.0, "error": 0.5}, {}]
    skill, puzzle = by_group(None, None, marks, parts)
    assert skill.parts == {"a": {"option": 1.0, "error": 0.25}} and puzzle.parts["2"] == {"option": 1.0, "error": 0.5}
    assert part_means([marks[0][0], marks[2][0]], parts[::2])["skill"] == {"a": {"option": (1.0, 1), "error": (0.0, 1)}}
    assert "parts" in skill.to_json() and "parts" not in by_group(None, None, marks)[0].to_json()


def test_the_summary_has_groups_where_the_task_has_them(tmp_path):
    assert "groups" not in run(tmp_path / "plain", Adding(), gold).to_json()
    summary = run(tmp_path / "paired", Paired())
    data = json.loads((tmp_path / "paired" / "summary.json").read_text())
    assert data == json.loads(json.dumps(summary.to_json()))
    pair, parity = data["groups"]
    assert (pair["level"], pair["view"], pair["group"], parity["group"]) == ("simple", "text", "pair", "sum")
    assert sum(one["num"] for one in parity["values"].values()) == 40 == pair["accuracy"]["num"]
    assert sum(one["count"] for one in pair["values"].values()) == summary.total.correct
    assert 1 < pair["all_right"]["num"] < 40
    lines = (tmp_path / "paired" / "scores" / "simple-text.jsonl").read_text().splitlines()
    assert all(json.loads(line)["groups"].keys() == {"pair", "sum"} for line in lines[1:])
    table = format_table(summary).splitlines()
    head, *rows = table[table.index("") + 1 :]
    assert head.split() == ["by", "group", "(%)", "simple", "text"]
    assert [row.split("  ")[0] for row in rows] == ["all of a pair right", "sum: even", "sum: odd"]
    share = summary.groups[1].values["odd"]
    assert rows[2].endswith(f"{100 * share.share:.1f} ({100 * share.ci_low:.0f} to {100 * share.ci_high:.0f})")


def test_values_of_kinds_that_cross_are_not_clustered():
    marks = [({"shape": str(i % 3), "size": str(i % 5)}, i % 2 == 0) for i in range(60)]
    shape, size = by_group(None, None, marks)
    for found in (*shape.values.values(), *size.values.values()):
        assert (found.ci_low, found.ci_high) == pytest.approx(wilson_interval(found.count, found.num))
