"""From records to the numbers of a cell: what is read, what is missing, what a reader is told."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from support.studies import ARTIFACT, make_record, make_training

from vlmreason.intervals import wilson_interval
from vlmreason.segments import KINDS
from vlmreason.structure import structure
from vlmreason.studies import library
from vlmreason.studies.estimates import estimate
from vlmreason.studies.experiment import Experiment
from vlmreason.studies.measures import (
    MEASURES,
    PLACES,
    along_factor,
    along_words,
    curve,
    follow_up,
    is_made,
    measure_words,
    of_kind,
    read_measure,
    sample,
)
from vlmreason.studies.readings import Curve, NotThereError
from vlmreason.studies.records import Record
from vlmreason.studies.results import Found, Result, collect


def artifact(**changes: Any) -> Experiment:
    x = {**ARTIFACT["x"], "values": [10, 20], "paper_values": [100, 200]}
    return structure(Experiment, {**ARTIFACT, "seeds": [0, 1], "x": x, **changes})


def collected(records: dict[tuple[str, int, int], Record], mark: str = "", **changes: Any) -> Result:
    """With the records of (supervision, examples, seed)."""

    def find(settings: Mapping[str, Any]) -> Found | None:
        key = (settings["supervision"], settings["scale.num_examples"], settings["seed"])
        return Found(records[key], mark) if key in records else None

    return collect("made_up/fig1", "nano", artifact(**changes), find)


MARKS = {("hard", "image"): "1100", ("hard", "text"): "1110"}


def test_a_cell_names_its_runs_and_those_that_are_missing() -> None:
    result = collected({("mix", 20, 0): make_record(MARKS, run="one")})
    cell = result.cell("as image", "Mix", "20")
    assert cell is not None and cell.estimate is not None
    assert (cell.estimate.mean, cell.runs) == (0.5, ("one",))
    assert [missing.set["seed"] for missing in cell.missing] == [1]
    text = result.cell("as text", "Mix", "20")
    assert text is not None and text.estimate is not None and text.estimate.mean == 0.75
    empty = result.cell("as image", "Image", "10")
    assert empty is not None and empty.estimate is None and len(empty.missing) == 2
    assert result.num_runs == 1
    assert len(result.missing) == 2 * 2 * 2 - 1, "each run once, although two panels want it"
    assert "10 of 12 values are missing." in result.notes


def test_versions_are_told_apart() -> None:
    found = {
        ("mix", 20, 0): make_record(MARKS, run="one", commit="a" * 40),
        ("mix", 20, 1): make_record(MARKS, seed=1, run="two", commit="b" * 40),
    }
    notes = collected(found, mark="made before the settings trainer.new").notes
    assert any(note.startswith("Runs of 2 versions of the code: ") and "aaaaaaaaaaaa" in note for note in notes)
    assert "2 runs marked: made before the settings trainer.new." in notes
    other = make_record(MARKS, seed=1, run="two")
    other.data["evaluations"][0]["task_version"] = 2
    found[("mix", 20, 1)] = Record(other.data, other.path)
    assert any("several versions of the task table_readout: 1, 2" in note for note in collected(found).notes)


def test_a_run_without_the_evaluation_is_missing_it() -> None:
    result = collected(
        {("mix", 20, 0): make_record(MARKS, run="one")}, measure={"level": "hard", "conversion": "force"}
    )
    cell = result.cell("as image", "Mix", "20")
    assert cell is not None
    assert (cell.missing[0].run, cell.missing[0].reason) == ("one", "no evaluation with conversion=force")


def test_accuracy_where_the_conversion_was_wrong() -> None:
    record = make_record({("hard", "image"): "110100"}, converted="1100-0")
    wrong = sample(record, read_measure({"what": "accuracy_conversion_wrong"}), 0)
    assert wrong.values == (None, None, 0.0, 1.0, None, 0.0)
    exact = sample(record, read_measure({"what": "accuracy_conversion_exact"}), 0)
    assert exact.values == (1.0, 1.0, None, None, None, None)
    with pytest.raises(NotThereError, match="no conversion among the responses"):
        sample(make_record(MARKS), read_measure({"what": "accuracy_conversion_wrong", "view": "image"}), 0)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("length", "given", "accuracy when the length is given"),
        ("condition", "wrong", "accuracy, told a wrong kind"),
        ("condition", "forbid", "accuracy, kept from naming the kind"),
    ],
)
def test_what_was_written_otherwise_is_an_evaluation_of_its_own(key: str, value: str, words: str) -> None:
    record = make_record({("hard", "image"): "1000"})
    measure = read_measure({"what": "accuracy", "level": "hard", "view": "image", key: value})
    assert measure_words(measure) == f"hard image: {words} (%)"
    assert not is_made(record, measure)
    assert follow_up(measure, {}) == ("evaluate", f"evaluation.{key}={value}")
    limited = {"condition": {"evaluation.levels": ["hard"]}, "evaluation": {"evaluation.num": 5}}
    levels = ("evaluation.levels=[hard]",) if key == "condition" else ()
    assert follow_up(measure, limited) == ("evaluate", *levels, f"evaluation.{key}={value}")
    with pytest.raises(NotThereError, match=f"{key}={value}"):
        sample(record, measure, 0)
    other = make_record({("hard", "image"): "1110"}).data["evaluations"][0]
    record.data["evaluations"].append({**other, "own": False, key: value})
    record = Record(record.data, record.path)
    assert is_made(record, measure) and sample(record, measure, 0).values == (1.0, 1.0, 1.0, 0.0)
    assert sample(record, replace(measure, **{key: "auto"}), 0).values == (1.0, 0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match=rf"measure\.{key}={value}: of what an evaluation at the end has"):
        read_measure({"what": "failures:misread", key: value})


def grouped(right: str, seed: int = 0, **groups: list[str | None]) -> Record:
    record = make_record({("hard", "image"): right}, seed=seed)
    record.data["evaluations"][0]["cells"][0]["groups"] = groups
    return Record(record.data, record.path)


def test_measures_by_group() -> None:
    record = grouped("110110", pair=["a", "a", "b", "b", "c", None], skill=["sum", "max"] * 3)
    assert sample(record, read_measure({"what": "all_of:pair"}), 0).values == (1.0, 0.0, 1.0)
    assert sample(record, read_measure({"what": "by:skill:max"}), 0).values == (None, 1.0, None, 1.0, None, 0.0)
    assert sample(record, read_measure({"what": "by:skill:max"}), 0).groups is None, "pairs cross skills"
    puzzles = grouped("1101", puzzle=["a", "a", "b", "c"], skill=["sum", "sum", "sum", "max"])
    assert sample(puzzles, read_measure({"what": "by:skill:sum"}), 0).groups == ("a", "a", "b", "c")
    whole = estimate([sample(record, read_measure({"what": "all_of:pair"}), 0)])
    assert whole is not None and (whole.num_problems, whole.mean) == (3, pytest.approx(2 / 3))
    with pytest.raises(NotThereError, match="the problems of hard image have no shape; groups are: pair, skill"):
        sample(record, read_measure({"what": "all_of:shape"}), 0)
    with pytest.raises(NotThereError, match="no problem of hard has skill=sun; there are max, sum"):
        sample(record, read_measure({"what": "by:skill:sun"}), 0)
    with pytest.raises(NotThereError, match="have no pair; groups are: none"):
        sample(make_record(MARKS), read_measure({"what": "by:pair:1", "view": "image"}), 0)


def test_accuracy_is_weighted_by_a_group_that_is_a_number() -> None:
    record = grouped("1100", difficulty=["3", "1", "1", "1"])
    found = sample(record, read_measure({"what": "weighted:difficulty"}), 0)
    whole = estimate([found])
    assert whole is not None and whole.mean == pytest.approx(4 / 6)  # not 2 of 4
    right = sample(grouped("1111", difficulty=["3", "1", "1", "1"]), read_measure({"what": "weighted:difficulty"}), 0)
    assert right.values == pytest.approx((1.0,) * 4), "with all right there is no spread"
    even = sample(grouped("1100", difficulty=["2"] * 4), read_measure({"what": "weighted:difficulty"}), 0)
    assert even.values == pytest.approx((1.0, 1.0, 0.0, 0.0)), "of equal weights it is the accuracy"
    for values in (["3", "x", "1", "1"], ["3", None, "1", "1"]):
        with pytest.raises(NotThereError, match="a number is expected as the difficulty of each problem of hard"):
            sample(grouped("1100", difficulty=values), read_measure({"what": "weighted:difficulty"}), 0)


def test_parts_of_a_score_by_group() -> None:
    record = make_record({("hard", "image"): "1100"})
    parts = {"skill": {"counting": {"option": [0.75, 4]}}}
    record.data["evaluations"][0]["cells"][0]["parts"] = parts
    measure = read_measure({"what": "part_by:skill:counting:option", "percent": True})
    found = sample(Record(record.data, record.path), measure, 0)
    assert found.values == (0.75,) and found.below > 0
    with pytest.raises(NotThereError, match="of skill there are counting, with option"):
        sample(Record(record.data, record.path), read_measure({"what": "part_by:skill:path:option"}), 0)


def row(checkpoint: str, value: float) -> dict[str, Any]:
    return {
        "checkpoint": checkpoint,
        "alignment": {"alignment": value, "cosine": 0.5, "adam": None, "simple": {"example_norm": 2 * value}},
        "losses": {name: {"mean": value} for name in (
            "text_given_image", "solution_given_image_and_text", "solution_given_image",
        )},
    }  # fmt: skip


def test_a_curve_over_checkpoints_of_all_phases() -> None:
    rows = [row("align", 1.0), row("main-10", 2.0), row("main-20", 3.0), row("main", 4.0), row("main-40", 4.0)]
    record = make_record(MARKS, analyses={"gradients": {"results": rows}})
    found = curve(record, read_measure({"what": "gradients:alignment", "along": "examples"}), 0)
    assert found.x == (20, 40, 60, 100), "steps of the phases before count, and a batch has 2 examples"
    assert found.y == (1, 2, 3, 4)
    along_norm = curve(record, read_measure({"what": "gradients:alignment", "along": "norm"}), 0)
    assert along_norm.x == (2, 4, 6, 8)
    with pytest.raises(NotThereError, match="gradients:adam"):
        curve(record, read_measure({"what": "gradients:adam"}), 0)
    early = sample(record, read_measure({"what": "gradients:alignment", "at": 0.25}), 0)
    assert early.values == (2.0,), "a quarter of the last phase"


def along(record: Record, **keys: Any) -> Curve:
    return curve(record, read_measure({"training": "curve", "level": "hard", "view": "image", **keys}), 0)


def test_a_curve_of_training_is_that_of_the_last_phase() -> None:
    record = make_record(MARKS, training=make_training([0.3, 0.6, 0.9], before=3))
    found = along(record, along="env_steps")
    assert (found.x, found.y, found.steps, found.num) == ((0, 100, 200), (0.3, 0.6, 0.9), (0, 2, 4), 100)
    assert along(record, along="updates", what="part:return").y == pytest.approx((-0.8, 0.4, 1.6))
    assert along(record, along="accuracy@simple").x == (0.15, 0.3, 0.45), "another level of the same evaluations"
    best = read_measure({"training": "best", "level": "hard", "view": "image"})
    assert sample(record, best, 0).values == (0.9,) and not sample(record, best, 0).by_problem


def test_a_curve_of_a_group_knows_how_many_problems_the_group_has() -> None:
    training = make_training([0.3, 0.6], before=1)
    own = {"kind:clean/hard/image": [0.2, 0.25, 0.75], "problems:kind:clean/hard/image": [8, 8, 8]}
    record = make_record(MARKS, training=training | {"columns": training["columns"] | own})
    found = along(record, along="env_steps", what="by:kind:clean")
    assert (found.y, found.num) == ((0.25, 0.75), 8)
    best = sample(
        record, read_measure({"what": "by:kind:clean", "training": "best", "level": "hard", "view": "image"}), 0
    )
    assert best.values == (0.75,) and (0.75 - best.below, 0.75 + best.above) == pytest.approx(wilson_interval(6, 8))
    with pytest.raises(NotThereError, match="kind:heat: no evaluation while training"):
        along(record, along="env_steps", what="by:kind:heat")


def test_a_phase_without_an_evaluation_at_its_start_begins_where_the_one_before_ended() -> None:
    training = make_training([0.0, 0.6, 0.9], before=3)
    columns = {name: column[:3] + column[4:] for name, column in training["columns"].items()}
    found = along(make_record(MARKS, training=training | {"columns": columns}), along="compute")
    assert (found.y, found.steps) == ((0.25, 0.6, 0.9), (0, 2, 4))


def test_shares_of_a_run_know_their_problems() -> None:
    misread = {"count": 3, "num": 40, "share": 0.075}
    group = {"shares": {"misread": misread}, "first_error": {"mean": 7.0, "num": 40}}
    record = make_record(MARKS, training=make_training([0.0, 0.3]), analyses={"failures": {"results": [group]}})

    def interval(**keys: Any) -> tuple[float, float]:
        found = sample(record, read_measure({"level": "hard", "view": "image", **keys}), 0)
        assert found.values[0] is not None
        return found.values[0] - found.below, found.values[0] + found.above

    assert interval(training="best") == pytest.approx(wilson_interval(30, 100))
    assert interval(what="failures:misread", percent=True) == pytest.approx(wilson_interval(3, 40))
    assert interval(what="failures:first_error") == (7.0, 7.0)
    assert interval(what="part:return", training="best") == pytest.approx((-0.8, -0.8))


def test_compute_is_that_of_training_and_rollouts() -> None:
    """6 N D and 2 N D: a million parameters, 1000 tokens before, then 400 trained and 200 generated each time."""
    record = make_record(MARKS, training=make_training([0.3, 0.6], before=1))
    assert along(record, along="compute").x == pytest.approx((6.0, 6 * 1.4 + 2 * 0.2))
    unknown = make_record(MARKS, training=make_training([0.3]) | {"parameters": None})
    with pytest.raises(NotThereError, match="number of parameters"):
        along(unknown, along="compute")


def test_a_record_without_evaluations_while_training() -> None:
    with pytest.raises(NotThereError, match="no evaluation while training"):
        along(make_record(MARKS), along="env_steps")
    with pytest.raises(NotThereError, match="return: no evaluation while training of level=medium, view=image"):
        along(make_record(MARKS, training=make_training([0.3])), along="env_steps", level="medium", what="part:return")


@pytest.mark.parametrize(
    ("name", "value"), [("shortcut", 0.1), ("first_error", 7.0), ("precision", 0.9), ("left", 0.4)]
)
def test_figures_of_the_failures(name: str, value: float) -> None:
    group = {
        "level": "hard", "view": "image", "shares": {"shortcut": {"share": 0.1}}, "first_error": {"mean": 7.0},
        "ratios": {"precision": {"ratio": 0.9}}, "failures": {"left": {"share": 0.4}},
    }  # fmt: skip
    record = make_record(MARKS, analyses={"failures": {"results": [group | {"view": "text", "shares": {}}, group]}})
    measure = read_measure({"what": f"failures:{name}", "level": "hard", "view": "image"})
    assert sample(record, measure, 0).values == (value,)
    with pytest.raises(NotThereError, match="no nothing"):
        sample(record, read_measure({"what": "failures:nothing"}), 0)


def likely(level: str, value: float) -> dict[str, Any]:
    part = {"logprob": {"mean": -value}, "num_tokens": {"mean": 10 * value}}
    none = {"logprob": {"mean": None}, "num_tokens": {"mean": None}}
    return {"level": level, "num_episodes": 10, "thought": part, "answer": none, "unread": {"share": 0.25}}


def test_figures_of_the_likelihood() -> None:
    groups = [likely("standard", 1.0), likely("rule_ood", 2.0)]
    record = make_record(MARKS, analyses={"likelihood": {"results": groups}})

    def value(name: str, level: str) -> tuple[float | None, ...]:
        return sample(record, read_measure({"what": f"likelihood:{name}", "level": level}), 0).values

    assert (value("thought", "standard"), value("thought", "rule_ood")) == ((-1.0,), (-2.0,))
    assert (value("thought_tokens", "rule_ood"), value("unread", "standard")) == ((20.0,), (0.25,))
    with pytest.raises(NotThereError, match="likelihood:answer: not in the analysis of standard"):
        value("answer", "standard")
    with pytest.raises(NotThereError, match="no analysis: what=likelihood"):
        sample(make_record(MARKS), read_measure({"what": "likelihood:thought"}), 0)


def test_figures_of_passes() -> None:
    def group(level: str, first: float) -> dict[str, Any]:
        at, parts = {"1": {"mean": first}, "8": {"mean": 0.75}}, {"recognition": {"mean": 0.5}}
        return {"level": level, "num": 500, "at": at, "unread": {"mean": 0.25}, "parts": parts}

    record = make_record(MARKS, analyses={"passes": {"results": [group("standard", 0.5), group("rule_ood", 0.125)]}})

    def value(name: str, level: str) -> tuple[float | None, ...]:
        return sample(record, read_measure({"what": f"passes:{name}", "level": level}), 0).values

    assert (value("1", "standard"), value("1", "rule_ood"), value("8", "rule_ood")) == ((0.5,), (0.125,), (0.75,))
    assert (value("unread", "standard"), value("recognition", "standard")) == ((0.25,), (0.5,))
    assert read_measure({"what": "passes:8"}).in_percent
    with pytest.raises(NotThereError, match="passes:3: not in the analysis of standard"):
        value("3", "standard")


def test_imported_numbers() -> None:
    changes: dict[str, Any] = {"measure": {"what": "imported:MMMU"}, "panels": [{}], "paper": [], "x": {},
                               "series": [{"label": "ours"}, {"label": "theirs"}], "draw": "table"}  # fmt: skip
    found = collect("made_up/t", "nano", artifact(**changes), lambda _: None, {("ours", "MMMU"): {0: 35.4}})
    ours, theirs = found.cells
    assert ours.estimate is not None and ours.estimate.mean == 35.4
    assert theirs.estimate is None and theirs.missing[0].reason == "theirs: no MMMU in the file of numbers"
    numbers = {("ours", "MMMU"): {0: 35.0, 1: 37.0}}
    ours = collect("made_up/t", "nano", artifact(**changes), lambda _: None, numbers).cells[0]
    assert ours.estimate is not None and (ours.estimate.mean, ours.estimate.num_seeds) == (36.0, 2)
    assert ours.estimate.ci_low < 35 < 37 < ours.estimate.ci_high and [one.seed for one in ours.samples] == [0, 1]


def test_every_measure_is_read_by_the_reader_of_its_entry() -> None:
    """A record that has everything: no entry without a figure, no two with the same place of it."""
    mean = {"mean": 0.5, "num": 4}
    analyses = {
        "gradients": {"results": [row("main", 1.0) | {"losses": _numbered_losses()}]},
        "likelihood": {"results": [likely("hard", 1.0) | {"answer": {"logprob": mean, "num_tokens": mean}}]},
        "failures": {"results": [{"level": "hard", "view": "image", "shares": {"sum": {"share": 0.5}}}]},
        "passes": {"results": [{"level": "hard", "num": 4, "parts": {"sum": mean}, "at": {}, "unread": mean}]},
        "attribution": {"results": [{"level": "hard", "regions": {"path": {"over_input": mean}}}]},
    }
    analyses["gradients"]["results"][0]["alignment"]["adam"] = 0.25
    half = {"cosine": 0.5, "norm": 1.0, "own": 0.0, "restricted": 0.5, "probe": 1.0, "num": 4}
    analyses["collapse"] = {"results": [{"checkpoint": "main", "between": 0.0, "frame": 1.0, "halves": {"hard": half}}]}
    record = make_record({("hard", "image"): "1100"}, converted="1010", analyses=analyses)
    record.evaluations[0].cells[0].row.update(  # type: ignore[attr-defined]
        unparsed=1, cut_off=1, converted=2, conversion_exact=0.5, mean_tokens=7.0, sum=0.5,
        **{f"tokens_{kind.name}": float(kind.number) for kind in KINDS},
        stopped_early=1, prefix_right=0.5, step_accuracy=0.5, recognition=0.5, parsed_share=0.5, valid=0.5,
        as_told=0.5,
    )  # fmt: skip
    record.data["evaluations"][0]["cells"][0]["groups"] = {"sum": ["a", "a", "b", None], "weight": ["2"] * 4}
    record.data["evaluations"][0]["cells"][0]["parts"] = {"sum": {"a": {"option": [0.5, 2]}}}
    record = Record(record.data, record.path)
    names = {"attribution:*": "attribution:path", "by:*": "by:sum:a", "part_by:*": "part_by:sum:a:option"}
    names["weighted:*"] = "weighted:weight"
    for entry in MEASURES:
        if entry.read is None:
            continue
        what = names.get(entry.name, entry.name.replace("*", "sum"))
        measure = read_measure({"what": what, "level": "hard", "view": "image"})
        assert measure.entry == entry
        found = curve(record, measure, 0).y if measure.is_curve else sample(record, measure, 0).values
        assert any(value is not None for value in found), entry.name
    along = [curve(record, read_measure({"what": f"gradients:{name}"}), 0).y for name in of_kind("gradients")]
    assert len(set(along)) == len(along)
    assert len({entry.name for entry in MEASURES}) == len(MEASURES)
    assert len({place.name for place in PLACES}) == len(PLACES)


def _numbered_losses() -> dict[str, Any]:
    names = ("text_given_image", "solution_given_image_and_text", "solution_given_image")
    return {name: {"mean": 10.0 + number} for number, name in enumerate(names)}


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"level": "hard", "view": "image"}, "hard image: accuracy (%)"),
        ({"what": "part:step_accuracy"}, "step accuracy (%)"),
        ({"what": "all_of:pair", "level": "hard"}, "hard: all of a pair right (%)"),
        ({"what": "by:skill:row_sum"}, "accuracy, skill: row sum (%)"),
        ({"what": "part:return", "training": "best", "level": "simple"}, "simple: best return while training"),
        ({"what": "part:sum", "percent": True}, "sum (%)"),
        ({"what": "unparsed", "percent": False}, "responses without an answer"),
        ({"what": "likelihood:thought", "level": "hard"}, "hard: log-probability of the thoughts (nats)"),
        ({"what": "gradients:norm", "level": "hard"}, "gradient norm, simple images"),
        ({"what": "attribution:path.over_input"}, "attribution: path, over input"),
        ({"what": "length:convert"}, "tokens of convert"),
        ({"what": "imported:MMMU", "level": "hard"}, "MMMU"),
    ],
)
def test_the_words_of_an_axis(keys: dict[str, Any], words: str) -> None:
    assert measure_words(read_measure(keys)) == words
    assert (along_words("recognition@rule_ood"), along_factor("recognition@rule_ood")) == (
        "rule_ood: recognition (%)",
        100,
    )
    assert (along_words("norm"), along_words("compute")) == (
        "gradient norm, simple images",
        "training compute (GFLOP)",
    )


def test_settings_other_than_the_experiment_states_are_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As ratio=token in a figure of a paper that has the ratio of whole responses."""
    stated = artifact(set={**ARTIFACT.get("set", {}), "algorithm": "ppo", "algorithm.ratio": "response"})
    monkeypatch.setattr(library, "read_experiment", lambda name, scale: stated)
    record = make_record(MARKS, run="one")

    asked: list[Mapping[str, Any]] = []

    class Shelf:
        pose = None

        def find(self, settings: Mapping[str, Any]) -> Found:
            asked.append(settings)
            return Found(record)

    shelf: Any = Shelf()
    for extra, mark in (
        ({}, None),
        ({"algorithm.ratio": "response", "algorithm.clip": 0.1}, None),
        ({"algorithm.ratio": "token"}, "algorithm.ratio=token, where the experiment states response"),
    ):
        result = library.collect("made_up/fig1", "nano", shelf, extra)
        assert result.cells[0].marks == ((mark,) if mark else ())
        assert any(note.endswith(f" marked: {mark}.") for note in result.notes) == bool(mark)
        assert extra.items() <= asked[-1].items()
