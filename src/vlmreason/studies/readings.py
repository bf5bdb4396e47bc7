"""Reading a measure off a record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vlmreason.studies.estimates import Sample, of_run
from vlmreason.studies.measures import Measure
from vlmreason.studies.records import NONE, RIGHT, EvaluationCell, Record

BY_PROBLEM = ("accuracy", "accuracy_conversion_exact", "accuracy_conversion_wrong")


class NotThereError(Exception):
    """A record lacks what a measure reads; the message says what."""


@dataclass(frozen=True)
class Curve:
    """A measure along one run; x and y have one value per checkpoint. last_phase: number of its first checkpoint.

    Of the evaluations while training: steps, those of the phase; num, problems of each.
    """

    run: str
    seed: int
    x: tuple[float, ...]
    y: tuple[float, ...]
    last_phase: int = 0
    steps: tuple[int, ...] = ()
    num: int = 0


def sample(record: Record, measure: Measure, seed: int) -> Sample:
    """What a run gave. Raises NotThereError."""
    if measure.kind == "evaluation" and measure.what in BY_PROBLEM:
        return Sample(seed, _right(_evaluation_cell(record, measure), measure.what), by_problem=True)
    value, num = _value(record, measure, seed)
    return of_run(seed, value, num if measure.in_percent else 0)


def _value(record: Record, measure: Measure, seed: int) -> tuple[float, int]:
    """Of a run, and the number of problems behind it; 0: not known."""
    if measure.kind == "evaluation":
        return _evaluation_value(_evaluation_cell(record, measure), measure.what)
    if measure.kind == "training":
        along = training_curve(record, measure, seed)
        return max(along.y), along.num
    if measure.kind == "failures":
        return _failures(record, measure, measure.what.partition(":")[2])
    if measure.kind == "gradients" and measure.at is not None:
        along = curve(record, measure, seed, "step")
        last = record.steps[list(record.steps)[-1]]
        before = sum(record.steps.values()) - last
        place = min(range(len(along.x)), key=lambda i: abs(along.x[i] - before - last * measure.at))  # type: ignore[operator]
        return along.y[place], 0
    if measure.kind == "attribution":
        return _attribution(record, measure), 0
    if measure.kind == "likelihood":
        return _likelihood(record, measure)
    raise NotThereError(f"{measure.what}: no value of a run")


def training_curve(record: Record, measure: Measure, seed: int) -> Curve:
    """A measure over the evaluations while the last phase trained, and the last one before it where the phase does not
    begin with one. Raises NotThereError."""
    if not record.training:
        raise NotThereError("no evaluation while training")
    columns = record.training["columns"]
    phases, steps = columns["phase"], columns["step"]
    y = _column(record, measure.what.removeprefix("part:"), measure.level, measure.view)
    x = _along(record, measure) if measure.training == "curve" else steps
    start = phases.index(phases[-1])
    if start and steps[start]:  # the end of the phase before is where this one begins
        start -= 1
        steps = [0 if place == start else step for place, step in enumerate(steps)]
    points = [
        (float(a), float(b), step)
        for a, b, step in zip(x[start:], y[start:], steps[start:], strict=True)
        if a is not None and b is not None
    ]
    if not points:
        raise NotThereError(f"{measure.what} along {measure.along}: not among the evaluations while training")
    xs, ys, places = zip(*points, strict=True)
    return Curve(record.run, seed, xs, ys, 0, places, int(record.training["num"]))


def _along(record: Record, measure: Measure) -> list[float | None]:
    """Where the evaluations while training are; what has not been used up yet is no number in them.

    Compute is 6 N D of training and 2 N D of the rollouts, with N parameters and D tokens (appendix D.3 of the
    dissertation), in GFLOP.
    """
    columns = record.training["columns"]
    name, _, level = measure.along.partition("@")
    if level:
        return _column(record, name, level, measure.view)
    if name == "updates":
        return [float(step) for step in columns["step"]]
    none = [0.0] * len(columns["step"])
    if name == "env_steps":
        return [value or 0.0 for value in columns.get("env_steps", none)]
    num = record.training["parameters"]
    if num is None:
        raise NotThereError("compute: the number of parameters is not known")
    trained, generated = (columns.get(key, none) for key in ("tokens_trained", "tokens_generated"))
    return [(6 * num * (a or 0) + 2 * num * (b or 0)) / 1e9 for a, b in zip(trained, generated, strict=True)]


def _column(record: Record, name: str, level: str | None, view: str | None) -> list[float | None]:
    """A figure of the evaluations while training."""
    columns: Mapping[str, list[float | None]] = record.training["columns"]
    for key, column in columns.items():
        own, *place = key.split("/")
        if own == name and len(place) == 2 and level in (None, place[0]) and view in (None, place[1]):
            return column
    raise NotThereError(f"{name}: no evaluation while training of level={level}, view={view}")


def curve(record: Record, measure: Measure, seed: int, along: str | None = None) -> Curve:
    """A measure along a run: of `analyze what=gradients` or of the evaluations while training.

    Raises NotThereError.
    """
    if measure.kind == "training":
        return training_curve(record, measure, seed)
    rows = _analysis(record, "gradients")["results"]
    batch = int(record.config["scale"]["batch_size"])
    starts, total = {}, 0
    for phase, steps in record.steps.items():
        starts[phase] = total
        total += steps
    points = []
    for row in rows:
        phase, _, step = str(row["checkpoint"]).rpartition("-")
        if phase in starts and step.isdigit():
            place = starts[phase] + int(step)
        elif row["checkpoint"] in starts:
            place = starts[row["checkpoint"]] + record.steps[row["checkpoint"]]
        else:
            continue
        known = _gradient_row(row) | {"step": float(place), "examples": float(place * batch)}
        points.append((place, known.get(along or measure.along), known.get(measure.what.partition(":")[2])))
    ordered = sorted(set(points), key=lambda point: point[0])
    whole = [(x, y) for _, x, y in ordered if x is not None and y is not None]
    last_phase = sum(place <= starts[list(starts)[-1]] and None not in (x, y) for place, x, y in ordered)
    if not whole:
        raise NotThereError(f"{measure.what} along {along or measure.along}: not in the analysis")
    return Curve(record.run, seed, tuple(x for x, _ in whole), tuple(y for _, y in whole), last_phase)


def _evaluation_cell(record: Record, measure: Measure) -> EvaluationCell:
    evaluation = record.evaluation(measure.task, measure.conversion)
    if evaluation is None:
        other = "" if measure.task is None else f" on {measure.task}"
        raise NotThereError(f"no evaluation{other} with conversion={measure.conversion}")
    cell = evaluation.cell(measure.level, measure.view)
    if cell is None:
        raise NotThereError(f"no evaluation of level={measure.level}, view={measure.view}")
    return cell


def _evaluation_value(cell: EvaluationCell, what: str) -> tuple[float, int]:
    kind, _, name = what.partition(":")
    key = {"tokens": "mean_tokens", "length": f"tokens_{name}", "part": name}.get(kind, kind)
    value = cell.row.get(key)
    if kind in ("unparsed", "cut_off", "converted") and value is not None:
        value = value / cell.row["num"]
    if value is None:
        raise NotThereError(f"{what}: not in the summary of {cell.level} {cell.view}")
    return float(value), int(cell.row["converted" if kind == "conversion_exact" else "num"])


def _right(cell: EvaluationCell, what: str) -> tuple[float | None, ...]:
    wanted = {"accuracy": None, "accuracy_conversion_exact": RIGHT, "accuracy_conversion_wrong": "0"}[what]
    values = tuple(
        float(right == RIGHT) if wanted is None or converted == wanted else None
        for right, converted in zip(cell.right, cell.converted, strict=True)
    )
    if all(value is None for value in values):
        asked = (
            "no conversion" if set(cell.converted) == {NONE} else f"no {'exact' if wanted == RIGHT else 'wrong'} one"
        )
        raise NotThereError(f"{what}: {asked} among the responses of {cell.level} {cell.view}")
    return values


def _analysis(record: Record, name: str) -> Mapping[str, Any]:
    if name not in record.analyses:
        raise NotThereError(f"no analysis: what={name}")
    found: Mapping[str, Any] = record.analyses[name]
    return found


def _failures(record: Record, measure: Measure, name: str) -> tuple[float, int]:
    for group in _analysis(record, "failures")["results"]:
        if group.get("level") in (measure.level, None) and group.get("view") in (measure.view, None):
            found = _find_figure(group, name)
            value = next((found[key] for key in ("share", "mean", "ratio") if key in found), None)
            if value is not None:
                return float(value), int(found.get("num", 0))
    raise NotThereError(f"failures: no {name} for {measure.level} {measure.view}")


def _find_figure(group: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Of a group of `analyze what=failures`, wherever in it the name stands; empty where it does not."""
    places = [group.get(place, {}) for place in ("shares", "means", "ratios", "failures")]
    found: Any = next((place[name] for place in (*places, group) if name in place), {})
    return found if isinstance(found, Mapping) else {}


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _gradient_row(row: Mapping[str, Any]) -> dict[str, float | None]:
    """The figures of one checkpoint by the names of experiment.GRADIENTS."""
    alignment, losses = row["alignment"], row["losses"]
    return {
        "alignment": _number(alignment["alignment"]),
        "cosine": _number(alignment["cosine"]),
        "adam": _number(alignment["adam"]),
        "norm": _number(alignment["simple"]["example_norm"]),
        "loss_conversion": _number(losses["text_given_image"]["mean"]),
        "loss_given_both": _number(losses["solution_given_image_and_text"]["mean"]),
        "loss_given_image": _number(losses["solution_given_image"]["mean"]),
    }


def _attribution(record: Record, measure: Measure) -> float:
    """`attribution:<region>.<figure>`, as `attribution:path.over_input`, of the measure's level."""
    region, _, figure = measure.what.partition(":")[2].partition(".")
    for group in _analysis(record, "attribution")["results"]:
        found = group["regions"].get(region, {}).get(figure or "over_input", {}).get("mean")
        if measure.level in (None, group["level"]) and found is not None:
            return float(found)
    raise NotThereError(f"{measure.what}: not in the analysis of {measure.level}")


def _likelihood(record: Record, measure: Measure) -> tuple[float, int]:
    for group in _analysis(record, "likelihood")["results"]:
        found = _likelihood_row(group)[measure.what.partition(":")[2]]
        if measure.level in (None, group["level"]) and found is not None:
            return found, int(group["num_episodes"])
    raise NotThereError(f"{measure.what}: not in the analysis of {measure.level}")


def _likelihood_row(group: Mapping[str, Any]) -> dict[str, float | None]:
    """The figures of one level by the names of experiment.LIKELIHOODS."""
    thought, answer = group["thought"], group["answer"]
    return {
        "thought": _number(thought["logprob"]["mean"]),
        "answer": _number(answer["logprob"]["mean"]),
        "thought_tokens": _number(thought["num_tokens"]["mean"]),
        "answer_tokens": _number(answer["num_tokens"]["mean"]),
        "unread": _number(group["unread"]["share"]),
    }
