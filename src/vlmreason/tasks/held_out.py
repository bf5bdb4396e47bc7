"""Pairs of things that go together in no problem that is trained on, as the setting `held_out` of a task lists them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from vlmreason.structure import nearest

Pair = tuple[str, str]


def held_out_pairs(
    held_out: Iterable[Sequence[str]] | None, allowed: Mapping[str, Sequence[str]], least: int = 0
) -> frozenset[Pair]:
    """Return the pairs of a list. `allowed`: what the first and the second of a pair are, and their names. Raises
    ValueError, also for fewer than `least`."""
    found = set()
    pairs = [] if isinstance(held_out, str | None) else list(held_out)
    both = " and ".join(allowed)
    if isinstance(held_out, str | None) or len(pairs) < least:
        raise ValueError(f"task.held_out={held_out!r}: a list of pairs of {both} is expected")
    for pair in pairs:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise ValueError(f"task.held_out: {pair!r} is not a pair of {both}")
        for value, (what, names) in zip(pair, allowed.items(), strict=True):
            if value not in names:
                hint = nearest(str(value), names)
                raise ValueError(f"task.held_out: no {what} {value!r}; there are {', '.join(names)}{hint}")
        found.add((pair[0], pair[1]))
    return frozenset(found)
