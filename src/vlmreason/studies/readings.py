"""Reading figures off a record: by problem, of a run, over its checkpoints, while it trained.

What is here are the readers that the entries of `measures` name; which of them reads what stands there alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from vlmreason.studies.records import NONE, RIGHT, WRONG, EvaluationCell, Record

Numbers = Sequence[float | None]
MAX_SHOWN = 12  # values of a kind of group in a message


class NotThereError(Exception):
    """A record lacks what a measure reads; the message says what."""


@dataclass(frozen=True)
class Asked:
    """A figure and the problems that it is of.

    what: its name, as `accuracy` or `part:sum`. level, view: of the problems; None: the first that are there.
    conversion, how, length, condition: auto (that of the run's own evaluation), or another one, which is evaluated for
    it.
    task: on which it is evaluated; None: the run's own.
    """

    what: str = "accuracy"
    level: str | None = None
    view: str | None = None
    conversion: Literal["auto", "free", "force", "forbid", "gold"] = "auto"
    how: Literal["auto", "generate", "choose"] = "auto"
    length: Literal["auto", "free", "given"] = "auto"
    condition: Literal["auto", "free", "force", "wrong", "forbid"] = "auto"
    task: str | None = None

    @property
    def name(self) -> str:
        """Return the part of `what` behind the colon."""
        return self.what.partition(":")[2]


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


# Of an evaluation


def cell(record: Record, asked: Asked) -> EvaluationCell:
    """Return the scores of the problems that are asked for. Raises NotThereError."""
    evaluation = record.evaluation(asked.task, asked.conversion, asked.how, asked.length, asked.condition)
    if evaluation is None:
        other = "" if asked.task is None else f" on {asked.task}"
        how = f", how={asked.how}" if asked.how != "auto" else ""
        how += f", length={asked.length}" if asked.length != "auto" else ""
        how += f", condition={asked.condition}" if asked.condition != "auto" else ""
        raise NotThereError(f"no evaluation{other} with conversion={asked.conversion}{how}")
    found = evaluation.cell(asked.level, asked.view)
    if found is None:
        raise NotThereError(f"no evaluation of level={asked.level}, view={asked.view}")
    return found


def right(converted: str | None = None) -> Callable[[Record, Asked], Numbers]:
    """Read which problems are solved: 1 or 0 each. `converted`: RIGHT or WRONG: of those with such a conversion."""

    def read(record: Record, asked: Asked) -> Numbers:
        found = cell(record, asked)
        values = [
            float(mark == RIGHT) if converted in (None, conversion) else None
            for mark, conversion in zip(found.right, found.converted, strict=True)
        ]
        if all(value is None for value in values):
            one = "no conversion" if set(found.converted) == {NONE} else f"no {_EXACT[converted]} one"
            raise NotThereError(f"{asked.what}: {one} among the responses of {found.level} {found.view}")
        return values

    return read


_EXACT = {RIGHT: "exact", WRONG: "wrong", None: "such"}


def summary(key: str, num: str = "num", count: bool = False) -> Callable[[Record, Asked], tuple[float, int]]:
    """Read a figure of summary.json and the number of responses behind it, which stands under `num`.

    `key` may hold {name}. `count`: what stands there is a number of responses, and wanted is its share.
    """

    def read(record: Record, asked: Asked) -> tuple[float, int]:
        found = cell(record, asked)
        value = found.row.get(key.format(name=asked.name))
        if value is None:
            raise NotThereError(f"{asked.what}: not in the summary of {found.level} {found.view}")
        return float(value / found.row["num"] if count else value), int(found.row[num])

    return read


def all_of(record: Record, asked: Asked) -> Numbers:
    """Read which groups of a kind have all their problems right: 1 or 0 each, in the order of their first problems."""
    found, rights = cell(record, asked), dict[str, list[bool]]()
    for mark, value in zip(found.right, _values(found, asked, asked.name), strict=True):
        if value is not None:
            rights.setdefault(value, []).append(mark == RIGHT)
    return [float(all(of_one)) for of_one in rights.values()]


def by(record: Record, asked: Asked) -> Numbers:
    """Read which problems of a group, written `<kind>:<value>`, are solved: 1 or 0 each, None for all others."""
    found, (kind, _, wanted) = cell(record, asked), asked.name.partition(":")
    values = _values(found, asked, kind)
    if wanted not in values:
        there = sorted({value for value in values if value is not None})[:MAX_SHOWN]
        raise NotThereError(
            f"{asked.what}: no problem of {found.level} has {kind}={wanted}; there are {', '.join(there)}"
        )
    pairs = zip(found.right, values, strict=True)
    return [float(mark == RIGHT) if value == wanted else None for mark, value in pairs]


def weighted(record: Record, asked: Asked) -> Numbers:
    """Read the accuracy in which a problem counts as much as the number says that is its group of a kind.

    Each problem has the weighted accuracy, and what it adds by its weight if it is right or takes if it is not: so the
    mean is the weighted one, and the spread that of a ratio whose weights are drawn with the problems.
    """
    found = cell(record, asked)
    values = _values(found, asked, asked.name)
    weights = [float(value) if value is not None and value.isdecimal() else None for value in values]
    if None in weights or not any(weights):
        raise NotThereError(f"{asked.what}: a number is expected as the {asked.name} of each problem of {found.level}")
    pairs = [(weight or 0.0, float(mark == RIGHT)) for weight, mark in zip(weights, found.right, strict=True)]
    total = sum(weight for weight, _ in pairs)
    accuracy = sum(weight * value for weight, value in pairs) / total
    return [accuracy + weight * len(pairs) / total * (value - accuracy) for weight, value in pairs]


def part_by(record: Record, asked: Asked) -> tuple[float, int]:
    """Read the mean of a part of the score over the problems of a group, written `<kind>:<value>:<part>`."""
    found, (group, _, part) = cell(record, asked), asked.name.rpartition(":")
    kind, _, value = group.partition(":")
    of_kind = found.parts.get(kind, {})
    if part not in of_kind.get(value, {}):
        parts = dict.fromkeys(name for of_one in of_kind.values() for name in of_one)
        raise NotThereError(
            f"{asked.what}: not in the record; of {kind} there are {', '.join(list(of_kind)[:MAX_SHOWN]) or 'none'}, "
            f"with {', '.join(parts) or 'no part'}"
        )
    mean, num = of_kind[value][part]
    return float(mean), int(num)


def drawn_with(record: Record, asked: Asked) -> tuple[str | None, ...] | None:
    """Find the groups that lie within the groups that are asked for by `<kind>:<value>`, the smallest; None: none do.

    So problems of a skill that come in pairs are drawn pair by pair.
    """
    found, kind = cell(record, asked), asked.name.partition(":")[0]
    asked_for = _values(found, asked, kind)
    within = [
        values
        for other, values in found.groups.items()
        if other != kind and len(set(zip(values, asked_for, strict=True))) == len(set(values))
    ]
    return tuple(max(within, key=lambda values: len(set(values)))) if within else None


def _values(found: EvaluationCell, asked: Asked, kind: str) -> Sequence[str | None]:
    """The group of each problem that is of a kind. Raises NotThereError."""
    if kind not in found.groups:
        there = ", ".join(found.groups) or "none"
        raise NotThereError(
            f"{asked.what}: the problems of {found.level} {found.view} have no {kind}; groups are: {there}"
        )
    return found.groups[kind]


# Of an analysis


def results(record: Record, name: str) -> Sequence[Mapping[str, Any]]:
    """Return the results of `analyze what=<name>`. Raises NotThereError."""
    if name not in record.analyses:
        raise NotThereError(f"no analysis: what={name}")
    found: Sequence[Mapping[str, Any]] = record.analyses[name]["results"]
    return found


def failures(record: Record, asked: Asked) -> tuple[float, int]:
    """Read a share, mean or ratio of `analyze what=failures`, and the responses behind it; 0: not known."""
    for group in results(record, "failures"):
        if group.get("level") in (asked.level, None) and group.get("view") in (asked.view, None):
            found = _find_figure(group, asked.name)
            value = next((found[key] for key in ("share", "mean", "ratio") if key in found), None)
            if value is not None:
                return float(value), int(found.get("num", 0))
    raise NotThereError(f"failures: no {asked.name} for {asked.level} {asked.view}")


def _find_figure(group: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Of a group of `analyze what=failures`, wherever in it the name stands; empty where it does not."""
    places = [group.get(place, {}) for place in ("shares", "means", "ratios", "failures")]
    found: Any = next((place[name] for place in (*places, group) if name in place), {})
    return found if isinstance(found, Mapping) else {}


def attribution(record: Record, asked: Asked) -> tuple[float, int]:
    """Read `<region>.<figure>`, as `path.over_input`, of a level."""
    region, _, figure = asked.name.partition(".")
    for group in results(record, "attribution"):
        found = group["regions"].get(region, {}).get(figure or "over_input", {}).get("mean")
        if asked.level in (None, group["level"]) and found is not None:
            return float(found), 0
    raise NotThereError(f"{asked.what}: not in the analysis of {asked.level}")


def likelihood(*path: str) -> Callable[[Record, Asked], tuple[float, int]]:
    """Read a figure of a level, which stands at this place, and the number of episodes behind it."""

    def read(record: Record, asked: Asked) -> tuple[float, int]:
        for group in results(record, "likelihood"):
            found = _at(group, path)
            if asked.level in (None, group["level"]) and found is not None:
                return found, int(group["num_episodes"])
        raise NotThereError(f"{asked.what}: not in the analysis of {asked.level}")

    return read


def passes(record: Record, asked: Asked) -> tuple[float, int]:
    """Read pass@k by k of a level, a part of its score or `unread`, and the number of problems behind it."""
    for group in results(record, "passes"):
        if asked.level in (None, group["level"]):
            found = {**group["parts"], **group["at"], "unread": group["unread"]}.get(asked.name, {}).get("mean")
            if found is not None:
                return float(found), int(group["num"])
    raise NotThereError(f"{asked.what}: not in the analysis of {asked.level}")


def collapse(record: Record, asked: Asked) -> tuple[float, int]:
    """Read a figure of the last checkpoint, of a half of the classes (the level) or of all, and the problems behind
    it."""
    for one in reversed(results(record, "collapse")):
        half = one["halves"].get(asked.level, {})
        if (value := half.get(asked.name, one.get(asked.name))) is not None:
            return float(value), int(half.get("num", 0))
    raise NotThereError(f"{asked.what}: not in the analysis of {asked.level}")


def gradients(*path: str) -> Callable[[Record, Asked], Mapping[str, float | None]]:
    """Read a figure that stands at this place of every checkpoint."""
    return lambda record, _: {str(row["checkpoint"]): _at(row, path) for row in results(record, "gradients")}


def _at(data: Any, path: Sequence[str]) -> float | None:
    for key in path:
        data = data[key]
    return None if data is None else float(data)


def checkpoint_steps(record: Record, names: Sequence[str]) -> dict[str, int]:
    """Return steps over all phases at which checkpoints are, as `main-40` or, at the end of a phase, `main`."""
    starts, total = {}, 0
    for phase, steps in record.steps.items():
        starts[phase] = total
        total += steps
    found = {}
    for name in names:
        phase, _, step = name.rpartition("-")
        if phase in starts and step.isdigit():
            found[name] = starts[phase] + int(step)
        elif name in starts:
            found[name] = starts[name] + record.steps[name]
    return found


def last_phase_start(record: Record) -> int:
    """Return steps over all phases before the last one."""
    return sum(record.steps.values()) - record.steps[list(record.steps)[-1]]


# Of the evaluations while training


def column(record: Record, name: str, level: str | None, view: str | None) -> list[float | None]:
    """Return a figure of the evaluations while training. Raises NotThereError."""
    columns: Mapping[str, list[float | None]] = record.training["columns"]
    for key, found in columns.items():
        own, *place = key.split("/")
        if own == name and len(place) == 2 and level in (None, place[0]) and view in (None, place[1]):
            return found
    raise NotThereError(f"{name}: no evaluation while training of level={level}, view={view}")


def num_while_training(record: Record, asked: Asked) -> int:
    """Count the problems of each evaluation while training, of a group its own: those that there are, or the number
    wanted."""
    name = f"problems:{asked.name}" if asked.what.startswith("by:") else "problems"
    try:
        return int(column(record, name, asked.level, asked.view)[-1] or record.training["num"])
    except NotThereError:
        return int(record.training["num"])


# Where along a run a value is: over all checkpoints or evaluations, whose steps are given


def steps(record: Record, places: Sequence[int]) -> Numbers:
    """Count optimizer steps (of reinforcement: updates)."""
    return [float(place) for place in places]


def examples(record: Record, places: Sequence[int]) -> Numbers:
    """Count training examples."""
    return [float(place * int(record.config["scale"]["batch_size"])) for place in places]


def env_steps(record: Record, places: Sequence[int]) -> Numbers:
    """Count turns played; what has not been used up yet is no number in the metrics."""
    return [value or 0.0 for value in record.training["columns"].get("env_steps", [0.0] * len(places))]


def compute(record: Record, places: Sequence[int]) -> Numbers:
    """Add up 6 N D of training and 2 N D of the rollouts, with N parameters and D tokens (appendix D.3 of the
    dissertation), in GFLOP."""
    columns, num = record.training["columns"], record.training["parameters"]
    if num is None:
        raise NotThereError("compute: the number of parameters is not known")
    none = [0.0] * len(places)
    trained, generated = (columns.get(key, none) for key in ("tokens_trained", "tokens_generated"))
    return [(6 * num * (a or 0) + 2 * num * (b or 0)) / 1e9 for a, b in zip(trained, generated, strict=True)]
