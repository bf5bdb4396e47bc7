"""What comes out by the groups that problems belong to (`Task.groups`): skills, pairs, relations.

For every kind of group: each of its values apart, the accuracy where not problems but groups are drawn, and how many
groups have all their problems right. A group counts with those of its problems that were asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
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
    (pairs within a skill), where there are such; empty beyond MAX_VALUES.
    """

    level: str | None
    view: str | None
    group: str
    accuracy: Share
    all_right: Share
    values: Mapping[str, Share]

    def to_json(self) -> dict[str, Any]:
        """Return an object of summary.json."""
        return asdict(self)


def by_group(level: str | None, view: str | None, marks: Sequence[Mark]) -> list[Grouped]:
    """Add up the problems of a level in a view by each kind of group that they have."""
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
            )
        )
    return found


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
