"""The examples of a phase by number: algorithm 1 (appendix C.1) and its interleaved variant (appendix F).

Nothing is drawn up in memory: example i is computed from (supervision, phase, seed, i) in a few
microseconds, whatever the number of examples, so any worker can make any part of the data in any order.

Counts. Shares are rounded so that the examples of the parts add up to the phase's `num_examples` exactly
(largest remainder; the earlier part at a tie). A part of n examples, k views and e epochs has
ceil(n / (e k)) distinct instances, and the shuffled set S of its (instance, view) pairs is repeated and cut
after n: with epochs=1 nothing is shown twice even where n is not divisible by k. If the cut falls within a
copy of S (1.5 epochs), which pairs are in it is random, as in algorithm 1; the views are then equal in
expectation only.

Instances. Problem number = seed * SEED_STRIDE + slot * POOL_STRIDE + number within the part. The slot is a
hash of the phase's name (or of its `pool`), so phases do not share instances, as algorithm 1 draws afresh for
each, unless given the same `pool`; a phase keeps its data when other phases join, and different seeds see
different instances in a different order.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import random
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from vlmreason.segments import View
from vlmreason.supervision import INTERNALIZE, Supervision, exact

POOL_STRIDE = 10**10  # the most instances of one level of a task in one phase
NUM_POOLS = 1000
SEED_STRIDE = POOL_STRIDE * NUM_POOLS
MAX_CYCLE = 1000

_MASK = (1 << 64) - 1
_SMALL = 256  # domains up to this size are shuffled outright: too few bits for a good network
_NUM_ROUNDS = 6


@dataclass(frozen=True)
class ExampleRef:
    """Which problem, in which view, with which share of its chain of thought; `begins_at`: position of its first
    token. `condition`: whether the response begins with the line on the kind of the problem."""

    task: str
    level: str
    split: str
    index: int
    view: View
    thought_kept: float
    begins_at: int = 0
    condition: bool = False


class Permutation:
    """A keyed pseudo-random permutation of range(size) in constant memory.

    An alternating Feistel network over the smallest power of two that holds the range; a result outside of
    the range goes through again (cycle walking: less than twice on average).
    """

    def __init__(self, size: int, *key: object) -> None:
        self.size = size
        self._small: list[int] | None = None
        if size <= _SMALL:
            self._small = list(range(size))
            random.Random(int.from_bytes(_hash(key, 16), "big")).shuffle(self._small)
            return
        num_bits = (size - 1).bit_length()
        self._low_bits = num_bits // 2
        self._low_mask = (1 << self._low_bits) - 1
        self._high_mask = (1 << (num_bits - self._low_bits)) - 1
        keys = _hash(key, 8 * _NUM_ROUNDS)
        self._keys = [int.from_bytes(keys[i : i + 8], "big") for i in range(0, len(keys), 8)]

    def __call__(self, number: int) -> int:
        """Where `number` in [0, size) goes."""
        if self._small is not None:
            return self._small[number]
        while True:
            high, low = number >> self._low_bits, number & self._low_mask
            for i in range(0, _NUM_ROUNDS, 2):
                high ^= _mix(low ^ self._keys[i]) & self._high_mask
                low ^= _mix(high ^ self._keys[i + 1]) & self._low_mask
            number = high << self._low_bits | low
            if number < self.size:
                return number


@dataclass(frozen=True)
class _Source:
    """The examples of one part on one task."""

    part: str
    task: str
    level: str
    views: tuple[View, ...]
    view_counts: tuple[int, ...]
    distinct: int
    first: int
    thought_kept: float
    begins: tuple[int, int] | None = None

    @property
    def count(self) -> int:
        return sum(self.view_counts)


class Mixture:
    """The examples of one phase: `len(mixture)` and `mixture[i]`, the order of training for i = 0, 1, ...

    `task` is the task of the run, for parts that name none. A function of its arguments alone. Raises
    ValueError for counts that cannot be, IndexError outside of [0, num_examples).
    """

    def __init__(self, supervision: Supervision, phase: str, task: str | None, seed: int) -> None:
        if seed < 0:
            raise ValueError(f"seed={seed}: 0 or more is expected")
        supervision.task_names(task)  # raises where a part has no task
        self.phase = phase
        self.seed = seed
        self.num_examples = supervision.phase(phase).num_examples
        self._order = supervision.phase_order(phase)
        self._condition = supervision.phase(phase).condition
        self._cycle: list[tuple[int, int, int, int]] = []  # (source, view, rank among its kind, number of its kind)
        self._sources = self._make_sources(supervision, task)
        self._full_end, self._none_start = self._thought_ends(supervision)
        if self._order == "shuffle":
            self._whole = Permutation(self.num_examples, seed, phase, "all")
            self._pairs = [
                Permutation(source.distinct * len(source.views), seed, phase, source.part, source.task)
                for source in self._sources
            ]
        else:
            self._instances = [
                [Permutation(source.distinct, seed, phase, source.part, source.task, view) for view in source.views]
                for source in self._sources
            ]

    @property
    def cycle_length(self) -> int | None:
        """Return interleaved: any so many examples in a row hold every view of the phase; shuffled: None."""
        return len(self._cycle) or None

    def __len__(self) -> int:
        return self.num_examples

    def __getitem__(self, number: int) -> ExampleRef:
        if not 0 <= number < self.num_examples:
            raise IndexError(f"example {number} of {self.num_examples}")
        source, instance, view = self._interleaved(number) if self._cycle else self._shuffled(number)
        kept = source.thought_kept * self._thought_kept(number)
        begins_at = 0 if source.begins is None else self._draw(number, *source.begins)
        index, shown = source.first + instance, source.views[view]
        return ExampleRef(source.task, source.level, "train", index, shown, kept, begins_at, self._condition)

    def part_of(self, number: int) -> str:
        """Name the part of the phase that example `number` belongs to."""
        source, _, _ = self._interleaved(number) if self._cycle else self._shuffled(number)
        return source.part

    def identity(self) -> dict[str, Any]:
        """Give what decides the examples, and nothing else: equal ones make the same examples in the same order."""
        return {
            "phase": self.phase,
            "seed": self.seed,
            "num_examples": self.num_examples,
            "order": self._order,
            "thought": [self._full_end, self._none_start],
            "cycle": self._cycle,
            "sources": [
                {
                    key: value
                    for key, value in dataclasses.asdict(source).items()
                    if key != "begins" or value is not None
                }
                for source in self._sources
            ],
        } | ({"condition": True} if self._condition else {})

    def _draw(self, number: int, low: int, high: int) -> int:
        """A number of [low, high], by that of the example."""
        found = int.from_bytes(_hash((self.seed, self.phase, number, "begins"), 8), "big")
        return low + found % (high - low + 1)

    def describe(self) -> list[dict[str, Any]]:
        """Return one row per part, task and view: phase, part, task, level, view, examples, instances, epochs, thought.

        `instances` are the distinct ones of the part (all of its views share them), `epochs` how often each
        pair of instance and view is shown on average, `thought` the share of the chain of thought kept,
        averaged over the phase. Where the last copy of the pairs is cut, `examples` of a view is the
        expected number; the views of a part add up exactly.
        """
        num_middle = max(0, self._none_start - self._full_end)
        schedule = (min(self._full_end, self.num_examples) + num_middle / 2) / self.num_examples
        return [
            {
                "phase": self.phase,
                "part": source.part,
                "task": source.task,
                "level": source.level,
                "view": view,
                "examples": count,
                "instances": source.distinct,
                "epochs": round(source.count / (source.distinct * len(source.views)), 4),
                "thought": round(source.thought_kept * schedule, 4),
            }
            for source in self._sources
            for view, count in zip(source.views, source.view_counts, strict=True)
        ]

    def _shuffled(self, number: int) -> tuple[_Source, int, int]:
        position = self._whole(number)
        for source, pairs in zip(self._sources, self._pairs, strict=True):
            if position < source.count:
                instance, view = divmod(pairs(position % pairs.size), len(source.views))
                return source, instance, view
            position -= source.count
        raise AssertionError("the sources hold all examples")

    def _interleaved(self, number: int) -> tuple[_Source, int, int]:
        turn, slot = divmod(number, len(self._cycle))
        s, view, rank, num_kind = self._cycle[slot]
        source = self._sources[s]
        return source, self._instances[s][view]((turn * num_kind + rank) % source.distinct), view

    def _thought_kept(self, number: int) -> float:
        if number < self._full_end:
            return 1.0
        if number >= self._none_start:
            return 0.0
        return (self._none_start - number) / (self._none_start - self._full_end + 1)

    def _thought_ends(self, supervision: Supervision) -> tuple[int, int]:
        """The first example with less than the whole chain of thought, and the first with none."""
        thought = supervision.phase_thought(self.phase)
        if thought == "keep":
            return self.num_examples, self.num_examples
        if thought == "remove":
            return 0, 0
        full, _, none = supervision.phase(self.phase).thought_shares or INTERNALIZE
        return round(full * self.num_examples), self.num_examples - round(none * self.num_examples)

    def _make_sources(self, supervision: Supervision, task: str | None) -> list[_Source]:
        phase = supervision.phase(self.phase)
        where = f"supervision.phases.{self.phase}"
        tasks = supervision.phase_tasks(self.phase, task)
        entries = [
            (name, part, t) for name, part in phase.parts.items() for t in ((part.task,) if part.task else tasks)
        ]
        shares = [exact(p.weight) / (1 if p.task else len(tasks)) for _, p, _ in entries]
        view_counts = self._count(where, shares, [len(p.views) for _, p, _ in entries])
        base = self.seed * SEED_STRIDE + _pool_slot(supervision, phase.pool or self.phase) * POOL_STRIDE
        used: dict[tuple[str, str], int] = {}
        sources = []
        for (name, part, t), counts in zip(entries, view_counts, strict=True):
            place = f"{where}.parts.{name}"
            count, num_views = sum(counts), len(part.views)
            if count == 0:
                raise ValueError(f"{where}.num_examples={self.num_examples}: too few, nothing is left for parts.{name}")
            if part.distinct is None:
                # when interleaved, one view may be ahead of the others by part of a cycle
                shown = max(counts) * num_views if self._order == "interleave" else count
                distinct = math.ceil(shown / (exact(part.epochs or 1) * num_views))
            else:
                distinct = part.distinct
                if distinct > math.ceil(count / num_views):
                    raise ValueError(
                        f"{place}.distinct={distinct}: at most {math.ceil(count / num_views)} instances fit into "
                        f"{count} examples in {num_views} views"
                    )
            first = part.first if part.first is not None else used.get((t, part.level), 0)
            used[t, part.level] = max(used.get((t, part.level), 0), first + distinct)
            if first + distinct > POOL_STRIDE:
                raise ValueError(f"{place}: {first + distinct} instances, at most {POOL_STRIDE} are allowed")
            source = (name, t, part.level, part.views, counts, distinct, base + first, part.thought_kept, part.begins)
            sources.append(_Source(*source))
        return sources

    def _count(self, where: str, shares: list[Fraction], num_views: list[int]) -> list[tuple[int, ...]]:
        """Examples of each view of each source; sets the cycle when interleaved."""
        if self._order == "shuffle":
            counts = _apportion(self.num_examples, shares)
            return [tuple(_apportion(n, [Fraction(1)] * k)) for n, k in zip(counts, num_views, strict=True)]
        parts = [share / k for share, k in zip(shares, num_views, strict=True)]
        scale = math.lcm(*(part.denominator for part in parts))
        turns = [int(part * scale) for part in parts]
        turns = [n // math.gcd(*turns) for n in turns]
        length = sum(n * k for n, k in zip(turns, num_views, strict=True))
        if length > MAX_CYCLE:
            raise ValueError(
                f"{where}: order=interleave needs {length} examples per cycle, at most {MAX_CYCLE}: simplify weights"
            )
        self._cycle = [(s, v, r, n) for s, n in enumerate(turns) for v in range(num_views[s]) for r in range(n)]
        num_turns, rest = divmod(self.num_examples, length)
        counts_of = [[num_turns * n] * k for n, k in zip(turns, num_views, strict=True)]
        for s, v, _, _ in self._cycle[:rest]:
            counts_of[s][v] += 1
        return [tuple(counts) for counts in counts_of]


def mixtures(supervision: Supervision, task: str | None, seed: int) -> dict[str, Mixture]:
    """Return the mixture of every phase that has one, in the order of training."""
    return {name: Mixture(supervision, name, task, seed) for name, phase in supervision.phases.items() if phase.parts}


def _apportion(total: int, shares: list[Fraction]) -> list[int]:
    """Whole numbers of sum `total` nearest to the shares."""
    quotas = [total * share / sum(shares) for share in shares]
    counts = [math.floor(quota) for quota in quotas]
    by_rest = sorted(range(len(shares)), key=lambda i: (counts[i] - quotas[i], i))
    for i in by_rest[: total - sum(counts)]:
        counts[i] += 1
    return counts


def _pool_slot(supervision: Supervision, pool: str) -> int:
    """The pool's own slot; where hashes meet, the later phase keeps its slot and the earlier moves on by one."""
    taken: dict[str, int] = {}
    for name, phase in reversed(supervision.phases.items()):
        slot = int.from_bytes(_hash(phase.pool or name, 8), "big") % NUM_POOLS
        while slot in taken.values() and (phase.pool or name) not in taken:
            slot = (slot + 1) % NUM_POOLS
        taken.setdefault(phase.pool or name, slot)
    return taken[pool]


def _hash(key: object, size: int) -> bytes:
    return hashlib.blake2b(json.dumps(key, separators=(",", ":")).encode(), digest_size=size).digest()


def _mix(x: int) -> int:
    x = (x * 0x9E3779B97F4A7C15) & _MASK
    x = ((x ^ (x >> 32)) * 0xD6E8FEB86659FD93) & _MASK
    return x ^ (x >> 32)
