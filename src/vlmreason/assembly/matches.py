"""Ask towers about pairs of pictures, by matching, by a linear read-out, by their model (`vlmreason match`)."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vlmreason.analysis import matching
from vlmreason.answering import choices
from vlmreason.assembly import build, towers
from vlmreason.dialogue.build import ask
from vlmreason.files import write_json, write_text_atomic
from vlmreason.intervals import paired, share
from vlmreason.models.contract import Prompt
from vlmreason.structure import check_positive
from vlmreason.tasks.base import Task
from vlmreason.tasks.pairs.base import PairTask
from vlmreason.terminal import columns

BATCH = 64  # pictures that are seen together
MIXED = "mixed"
MEASURES: Mapping[str, str] = {
    "texts": "statements take their own pictures (MMVP-VLM)",
    "pictures": "pictures take their own statements",
    "both": "both do",
    "readout": "both questions right by a linear read-out of the tower",
    "model": "both questions right by the model itself, which chooses",
}
"""What is said of a pair."""


@dataclass(frozen=True)
class Settings:
    """The keys of `vlmreason match`; see conf/match.yaml."""

    towers: tuple[str, ...]
    levels: tuple[str, ...] | None
    pairs: int
    readout: int
    grid: int
    caption: str
    out: str
    accelerator: str

    def __post_init__(self) -> None:
        check_positive(self, "pairs", "grid")
        if not self.towers or len(set(self.towers)) < len(self.towers):
            raise ValueError(f"towers={list(self.towers)}: one or more different ones are expected")
        if self.readout < 0 or 0 < self.readout < 4:
            raise ValueError(f"readout={self.readout}: 0, or 4 training pictures and more, are expected")
        if self.caption.count("{statement}") != 1:
            raise ValueError(f"caption={self.caption!r}: a text with {{statement}} in it is expected")


@dataclass(frozen=True)
class Pair:
    """Two pictures with one question: the states, in the order in which their answers are (a) and (b)."""

    name: str
    pattern: str
    states: tuple[Any, Any]


def match(own: Settings, task: Task[Any]) -> Path:
    """Ask all towers, write what was found, print a table; returns the file. Raises ValueError."""
    if not isinstance(task, PairTask):
        raise ValueError(f"task={task.name}: pairs of pictures are expected, as visual_pairs and mmvp_vlm_files")
    levels = own.levels or tuple(level for level in task.levels if level != MIXED)
    for level in levels:
        build.check_level(task, level, "levels")
    pairs = [pair for level in levels for pair in pairs_of(task, level, own.pairs)]
    rows, found = list[dict[str, Any]](), dict[str, Any]()
    for word in own.towers:
        tower = towers.open_tower(word, own.accelerator)
        asked = dict(answers(tower, task, levels, pairs, own))
        if not asked:
            raise ValueError(f"towers={word}: it has no vectors of texts and no model behind it; readout=2000 reads it")
        rows += [
            {
                "tower": word,
                "pair": pair.name,
                "pattern": pair.pattern,
                **{key: said[at] for key, said in asked.items()},
            }
            for at, pair in enumerate(pairs)
        ]
        found[word] = summary(pairs, asked)
    out = Path(own.out)
    write_json(out / "matches.json", {"task": task.name, "measures": dict(MEASURES), "towers": found})
    write_text_atomic(out / "pairs.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    print(table(found))
    return out / "matches.json"


def pairs_of(task: PairTask, level: str, num: int) -> Iterator[Pair]:
    """Return the first test pairs of a level. Raises ValueError for neighbours that are none."""
    states = [task.sample(level, "test", index).state for index in task.first(level, "test", 2 * num)]
    for one, other in zip(states[::2], states[1::2], strict=True):
        groups = task.groups(one)
        if task.groups(other)["pair"] != groups["pair"]:
            raise ValueError(f"task={task.name} level={level}: two neighbours are no pair")
        if task.right(one) == task.right(other):
            continue  # corrected labels may leave both pictures one answer: there is nothing to match
        ordered = (one, other) if task.right(one) == 0 else (other, one)
        yield Pair(f"{level}/{groups['pair']}", groups.get("pattern", level), ordered)


def answers(
    tower: Any, task: PairTask, levels: Sequence[str], pairs: Sequence[Pair], own: Settings
) -> Iterator[tuple[str, list[bool]]]:
    """Give by measure whether each pair is right, of those measures that a tower allows."""
    if tower.both:
        pictures = seen(tower.embed, task, [state for pair in pairs for state in pair.states])
        texts = [own.caption.format(statement=one) for pair in pairs for one in task.statements(pair.states[0])]
        told = in_batches(lambda some: tower.embed([Prompt(text, None) for text in some]), texts)
        made = [matching.matched(pictures[at : at + 2], told[at : at + 2]) for at in range(0, len(texts), 2)]
        for name in ("texts", "pictures", "both"):
            yield name, [getattr(one, name) for one in made]
    if own.readout:
        yield "readout", read_out(tower, task, levels, pairs, own)
    if hasattr(tower, "base"):
        yield "model", chosen(tower.base, task, pairs)


def read_out(tower: Any, task: PairTask, levels: Sequence[str], pairs: Sequence[Pair], own: Settings) -> list[bool]:
    """Say which pairs a linear read-out has right, learned for each level on its training pictures."""
    see = functools.partial(tower.places, grid=own.grid) if hasattr(tower, "places") else tower.embed
    found: list[bool] = []
    for level in levels:
        train, validation = (
            [task.sample(level, split, index).state for index in task.first(level, split, num)]
            for split, num in (("train", own.readout), ("validation", own.readout // 4))
        )
        shown = [state for pair in pairs if pair.name.startswith(f"{level}/") for state in pair.states]
        options, right = [task.two_options(state) for state in validation], list(map(task.right, validation))
        made = matching.choose_fit(
            (seen(see, task, train), [task.two_options(state)[task.right(state)] for state in train]),
            (seen(see, task, validation), options, right),
        )
        said = made.answers(seen(see, task, shown), [task.two_options(state) for state in shown])
        found += [said[at : at + 2] == [0, 1] for at in range(0, len(said), 2)]
    return found


def chosen(learner: Any, task: PairTask, pairs: Sequence[Pair]) -> list[bool]:
    """Say which pairs a model has right that chooses between the options of its question."""
    states = [state for pair in pairs for state in pair.states]
    right: list[bool] = []
    for at in range(0, len(states), BATCH):
        some = states[at : at + BATCH]
        prompts = [Prompt(*ask(task, state, "image")) for state in some]
        made = choices.choose(learner, task, some, prompts, 2 * BATCH)
        right += [task.score(state, one.text).correct for state, one in zip(some, made, strict=True)]
    return [all(right[at : at + 2]) for at in range(0, len(right), 2)]


def seen(see: Callable[[Sequence[Prompt]], Any], task: PairTask, states: Sequence[Any]) -> Any:
    """Return what a tower sees of the pictures of states, (N, D)."""
    return in_batches(lambda some: see([Prompt("", task.draw(state)) for state in some]), states)


def in_batches(see: Callable[[Sequence[Any]], Any], items: Sequence[Any]) -> Any:
    parts = [see(items[at : at + BATCH]).numpy() for at in range(0, len(items), BATCH)]
    return np.concatenate(parts).astype(np.float32)


def summary(pairs: Sequence[Pair], asked: Mapping[str, Sequence[bool]]) -> dict[str, Any]:
    """Count right pairs by pattern and of all, and hold the model against the read-out where both are there."""
    patterns = [*dict.fromkeys(pair.pattern for pair in pairs), "all"]
    found: dict[str, Any] = {}
    for pattern in patterns:
        at = [number for number, pair in enumerate(pairs) if pattern in (pair.pattern, "all")]
        rights = {name: [said[number] for number in at] for name, said in asked.items()}
        found[pattern] = {name: dataclasses.asdict(share(sum(some), len(some))) for name, some in rights.items()}
        if {"readout", "model"} <= rights.keys():
            found[pattern]["model_to_readout"] = dataclasses.asdict(paired(rights["model"], rights["readout"]))
    return found


def table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Set the shares of right pairs in a table: a row for each pattern of each tower."""
    names = [name for name in MEASURES if any(name in one["all"] for one in found.values())]
    rows = [
        [tower, pattern, str(next(iter(said.values()))["num"]), *(_percent(said.get(name)) for name in names)]
        for tower, patterns in found.items()
        for pattern, said in patterns.items()
    ]
    return columns(["tower", "pattern", "pairs", *names], rows, left=2)


def _percent(one: Mapping[str, Any] | None) -> str:
    if one is None or one["share"] is None:
        return "-"
    return f"{100 * one['share']:.1f} ({100 * one['ci_low']:.0f} to {100 * one['ci_high']:.0f})"
