"""What comes out by the groups that problems belong to (`Task.groups`): skills, pairs, relations.

For every kind of group: each of its values apart, the accuracy where not problems but groups are drawn, and how many
groups have all their problems right. A group counts with those of its problems that were asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any

from vlmreason.intervals import Share, clustered_share, share

MAX_VALUES = 100  # of a kind of group that are listed one by one

Mark = tuple[Mapping[str, str], bool]
"""The groups of a problem, and whether its response is right."""


@dataclass(frozen=True)
class Grouped:
    """A level in a view by one kind of group.

    accuracy: of the problems that have such a group, with an interval over groups. all_right: groups with all problems
    right. values: problems by value, in order, with an interval over the groups of another kind that lie within them
    (pairs within a skill), where there are such; empty beyond MAX_VALUES. parts: of each value the means of what the
    task's score has beside right and wrong, where it has anything.
    """

    level: str | None
    view: str | None
    group: str
    accuracy: Share
    all_right: Share
    values: Mapping[str, Share]
    parts: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return an object of summary.json."""
        data = asdict(self)
        return data if self.parts else {key: value for key, value in data.items() if key != "parts"}


def by_group(
    level: str | None, view: str | None, marks: Sequence[Mark], parts: Sequence[Mapping[str, float]] = ()
) -> list[Grouped]:
    """Add up the problems of a level in a view by each kind of group that they have; `parts`: of each mark's score."""
    means = part_means([groups for groups, _ in marks], parts)
    kinds = list(dict.fromkeys(kind for groups, _ in marks for kind in groups))
    members = {kind: _members(marks, kind) for kind in kinds}
    found = []
    for kind in kinds:
        within = [other for other in kinds if other != kind and _lie_within(members[other].values(), kind)]
        finest = max(within, key=lambda other: len(members[other]), default=None)
        listed = members[kind] if len(members[kind]) <= MAX_VALUES else {}
        found.append(
            Grouped(
                level,
                view,
                kind,
                accuracy=clustered_share([_rights(of_one) for of_one in members[kind].values()]),
                all_right=all_right(marks, kind),
                values={value: _clustered(listed[value], finest) for value in sorted(listed, key=in_order)},
                parts={
                    value: {name: mean for name, (mean, _) in of_one.items()}
                    for value, of_one in means.get(kind, {}).items()
                },
            )
        )
    return found


Means = Mapping[str, tuple[float, int]]
"""Of each part of a score its mean, and of how many problems."""


def part_means(
    groups: Sequence[Mapping[str, str]], parts: Sequence[Mapping[str, float]]
) -> dict[str, dict[str, Means]]:
    """Return kind of group -> value -> means of the parts of scores; without kinds of more than MAX_VALUES values."""
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for of_one, scored in zip(groups, parts, strict=False):
        for kind, value in of_one.items() if scored else ():
            for name, part in scored.items():
                found.setdefault(kind, {}).setdefault(value, {}).setdefault(name, []).append(part)
    return {
        kind: {
            value: {name: (fmean(all_of), len(all_of)) for name, all_of in of_value.items()}
            for value, of_value in sorted(of_kind.items(), key=lambda one: in_order(one[0]))
        }
        for kind, of_kind in found.items()
        if len(of_kind) <= MAX_VALUES
    }


def all_right(marks: Iterable[Mark], kind: str) -> Share:
    """Count the groups of a kind all of whose problems are right."""
    rights = [all(_rights(of_one)) for of_one in _members(marks, kind).values()]
    return share(sum(rights), len(rights))


def in_order(value: str) -> tuple[bool, int, str]:
    """Order values as people do: numbers by size, before words."""
    return not value.isdecimal(), int(value) if value.isdecimal() and len(value) < 20 else 0, value


def _members(marks: Iterable[Mark], kind: str) -> dict[str, list[Mark]]:
    """The problems of each value of a kind."""
    found: dict[str, list[Mark]] = {}
    for mark in marks:
        if kind in mark[0]:
            found.setdefault(mark[0][kind], []).append(mark)
    return found


def _lie_within(groups: Iterable[Sequence[Mark]], kind: str) -> bool:
    """Whether the problems of each group have one value of a kind in common."""
    return all(len({mark[0].get(kind) for mark in of_one}) == 1 for of_one in groups)


def _rights(marks: Iterable[Mark]) -> list[bool]:
    return [right for _, right in marks]


def _clustered(marks: Sequence[Mark], kind: str | None) -> Share:
    """How many are right, where problems of the same value of `kind` count as drawn together."""
    if kind is None or any(kind not in groups for groups, _ in marks):
        rights = _rights(marks)
        return share(sum(rights), len(rights))
    return clustered_share([_rights(of_one) for of_one in _members(marks, kind).values()])
