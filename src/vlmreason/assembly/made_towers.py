"""Make towers by their recipes and measure what they see (`vlmreason towers`)."""

from __future__ import annotations

import functools
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vlmreason.analysis import matching, probing
from vlmreason.assembly import build, matches
from vlmreason.files import plain, read_json, write_csv_atomic, write_json
from vlmreason.models.contract import Prompt
from vlmreason.models.embedders import HubEncoder
from vlmreason.models.nano import towers
from vlmreason.scale import Scale
from vlmreason.streams import stream
from vlmreason.structure import check_choice, check_positive
from vlmreason.tasks.base import Task
from vlmreason.tasks.facts import Factual
from vlmreason.tasks.pairs.base import PATTERNS, PairTask
from vlmreason.terminal import columns
from vlmreason.training.towers.train import Recipe, train

BATCH = 64  # pictures that are seen together
MEASURES: Mapping[str, str] = {
    "vector": "%, told by a linear probe of the vector of the whole picture",
    "places": "%, told by a linear probe of what a projector gets",
    "cosine": "mean cosine of two pictures that differ in this alone",
    "matched": "%, pairs whose statements take their own pictures",
    "blind": "%, pairs alike by this tower and not by that of views",
}

Told = dict[str, dict[str, float]]
"""By measure and fact."""
Both = Callable[[Path, str], Mapping[str, tuple[Any, Any]]]
"""Gives a tower's vectors of the first and the second pictures of a task's pairs, by pattern: its folder, the task."""


@dataclass(frozen=True)
class Settings:
    """The keys of `vlmreason towers`; see conf/towers.yaml."""

    make: tuple[str, ...]
    seeds: tuple[int, ...]
    recipes: dict[str, Recipe]
    sizes: towers.TowerSizes
    pictures: int
    pairs: int
    alike: float
    unlike: float
    out: str
    to: str | None

    def __post_init__(self) -> None:
        check_positive(self, "pairs")
        if self.pictures < 8:
            raise ValueError(f"pictures={self.pictures}: 8 or more are expected")
        if not self.make or not self.seeds:
            raise ValueError("make, seeds: one or more is expected")
        for name in self.make:
            check_choice("make", name, self.recipes)
        for key in ("alike", "unlike"):
            if not -1 <= getattr(self, key) <= 1:
                raise ValueError(f"{key}={getattr(self, key)}: a cosine from -1 to 1 is expected")


def make(own: Settings, scale: Scale) -> Path:
    """Make the towers that are not there, and measure all. Raises ValueError."""
    build.quieten()
    tasks = {name: _task(name, scale) for word in own.make for name in own.recipes[word].tasks}
    found: dict[tuple[str, int], Told] = {}
    both = functools.cache(functools.partial(_both, own, tasks))
    for seed in own.seeds:
        seeing = {word: _tower(own, word, seed, tasks) for word in own.make}
        for word, folder in seeing.items():
            found[word, seed] = _told(own, word, folder, tasks, both)
        _add_blind(own, seed, seeing, tasks, found, both)
    print(_table(found))
    if own.to is not None:
        write_csv_atomic(Path(own.to), _numbers(found))
    return Path(own.out)


def _task(name: str, scale: Scale) -> Any:
    task = build.load_task(name, scale)
    if not isinstance(task, Factual):
        raise ValueError(f"recipes.tasks: {name} says nothing of its pictures; visual_pairs and sets of labels do")
    return task


def _tower(own: Settings, word: str, seed: int, tasks: Mapping[str, Any]) -> Path:
    """The folder of a tower, trained where it is not there. Raises ValueError for one of other settings."""
    recipe, folder = own.recipes[word], Path(own.out) / f"{word}-{seed}"
    chosen = [tasks[name] for name in recipe.tasks]
    pictures = {task.name: [task.version, task.sizes] for task in chosen}
    what = plain({"recipe": recipe, "sizes": own.sizes, "seed": seed, "pictures": pictures})
    path = folder / towers.FACTS
    if folder.exists():
        there = read_json(path).get("settings") if path.is_file() else None
        if there != what:
            raise ValueError(
                f"out={own.out}: {folder.name} is there with other settings; delete it, or choose another out"
            )
        return folder
    _check_named(word, recipe, chosen)
    say = functools.partial(_caption, {fact: task for task in chosen for fact in task.nameable})
    texts = [say({fact: value}) for task in chosen for fact, values in task.nameable.items() for value in values]
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    mixed = stream(word, seed).getrandbits(31)
    encoder = towers.begin(part, own.sizes, texts if recipe.objective == "captions" else (), mixed)
    print(f"vlmreason: {folder} by {recipe.steps} steps of {recipe.batch_size} pictures", file=sys.stderr, flush=True)
    draw = functools.partial(_drawn, chosen, recipe.batch_size, mixed)
    losses = train(encoder, recipe, own.sizes.patch, draw, say, mixed, progress=True)
    encoder.save(part)
    write_json(part / towers.FACTS, {"settings": what, "layer": recipe.layer, "losses": losses})
    part.rename(folder)
    return folder


def _check_named(word: str, recipe: Recipe, chosen: Sequence[Any]) -> None:
    for task in chosen:
        for fact in recipe.named or ():
            check_choice(f"recipes.{word}.named", fact, task.nameable)


def _caption(tasks: Mapping[str, Any], facts: Mapping[str, str]) -> str:
    return "a photo of " + ", ".join(tasks[fact].phrase(fact, value) for fact, value in facts.items())


def _states(task: Task[Any], split: str, first: int, num: int) -> list[Any]:
    """Pictures of all kinds of a task; of pairs one of each."""
    level, every = ("mixed", 2) if isinstance(task, PairTask) else (task.levels[0], 1)
    return [task.sample(level, split, every * index).state for index in range(first, first + num)]


def _drawn(tasks: Sequence[Any], batch_size: int, seed: int, step: int) -> tuple[list[Any], list[Mapping[str, str]]]:
    """The pictures of a step with their facts, from all tasks in turn."""
    sizes = [len(range(at, batch_size, len(tasks))) for at in range(len(tasks))]
    states = [
        (task, state)
        for task, num in zip(tasks, sizes, strict=True)
        for state in _states(task, "train", seed + step * num, num)
    ]
    return [task.draw(state) for task, state in states], [task.named_in(state) for task, state in states]


def _told(own: Settings, word: str, folder: Path, tasks: Mapping[str, Any], both: Both) -> Told:
    """What one tower tells of the pictures that it was trained on the like of."""
    encoder = HubEncoder("out", str(folder))
    see_places = functools.partial(towers.place_states, *towers.open_tower(folder, "out"))
    found: Told = {}
    for name in own.recipes[word].tasks:
        task = tasks[name]
        shown = _states(task, "train", 0, own.pictures), _states(task, "test", 0, own.pictures // 2)
        for measure, see in (("vector", _images(encoder.embed)), ("places", see_places)):
            vectors = [_seen(see, task, states) for states in shown]
            for fact in task.nameable:
                values = [[task.named_in(state)[fact] for state in states] for states in shown]
                share = probing.probe((vectors[0], values[0]), (vectors[1], values[1]))
                found.setdefault(measure, {})[_column(task, fact)] = 100 * share
        if isinstance(task, PairTask):
            for pattern, (first, second) in both(folder, name).items():
                found.setdefault("cosine", {})[pattern] = float(probing.cosines(first, second).mean())
                if encoder.both:
                    right = list(_matched(encoder, task, _pairs(own, task, pattern), first, second))
                    found.setdefault("matched", {})[pattern] = 100 * float(np.mean(right))
    for measure in ("cosine", "matched"):
        if shares := found.get(measure):
            shares["mean"] = float(np.mean(list(shares.values())))
    return found


def _add_blind(
    own: Settings, seed: int, folders: Mapping[str, Path], tasks: Mapping[str, Any],
    found: Mapping[tuple[str, int], Told], both: Both,
) -> None:  # fmt: skip
    """Count for every tower of captions the pairs that are alike to it, and not to that of views."""
    by_views = next((word for word in folders if own.recipes[word].objective == "views"), None)
    if by_views is None:
        return
    for word, folder in folders.items():
        for name in own.recipes[word].tasks:
            if own.recipes[word].objective != "captions" or not isinstance(tasks[name], PairTask):
                continue
            seen, by_other = both(folder, name), both(folders[by_views], name)
            for pattern in PATTERNS:
                near, far = (probing.cosines(*vectors[pattern]) for vectors in (seen, by_other))
                share = float(np.mean((near > own.alike) & (far < own.unlike)))
                found[word, seed].setdefault("blind", {})[pattern] = 100 * share


def _pairs(own: Settings, task: PairTask, pattern: str) -> list[matches.Pair]:
    return list(matches.pairs_of(task, pattern, own.pairs))


def _both(own: Settings, tasks: Mapping[str, Any], folder: Path, name: str) -> dict[str, tuple[Any, Any]]:
    see, found = _images(HubEncoder("out", str(folder)).embed), {}
    for pattern in PATTERNS:
        states = [state for pair in _pairs(own, tasks[name], pattern) for state in pair.states]
        seen = _seen(see, tasks[name], states)
        found[pattern] = seen[::2], seen[1::2]
    return found


def _matched(
    encoder: HubEncoder, task: PairTask, pairs: Sequence[matches.Pair], first: Any, second: Any
) -> Iterator[bool]:
    for at, pair in enumerate(pairs):
        texts = [Prompt(f"a photo of {statement}", None) for statement in task.statements(pair.states[0])]
        pictures = np.stack([first[at], second[at]])
        yield matching.matched(pictures, encoder.embed(texts).numpy()).texts


def _images(embed: Callable[[Sequence[Prompt]], Any]) -> Callable[[Sequence[Any]], Any]:
    return lambda images: embed([Prompt("", image) for image in images])


def _seen(see: Callable[[Sequence[Any]], Any], task: Task[Any], states: Sequence[Any]) -> Any:
    parts = [states[at : at + BATCH] for at in range(0, len(states), BATCH)]
    return np.concatenate([see([task.draw(state) for state in part]).numpy() for part in parts]).astype(np.float32)


def _column(task: Any, fact: str) -> str:
    """The name of a fact; of a set of labels, which has one, that of the set."""
    return str(task.name) if len(task.nameable) == 1 else fact


def _facts(found: Mapping[tuple[str, int], Told]) -> list[str]:
    return list(dict.fromkeys(fact for told in found.values() for values in told.values() for fact in values))


def _table(found: Mapping[tuple[str, int], Told]) -> str:
    facts = _facts(found)
    rows = [
        [f"{word}-{seed}", measure, *(_figure(measure, values.get(fact)) for fact in facts)]
        for (word, seed), told in found.items()
        for measure, values in told.items()
    ]
    notes = [
        f"{measure}: {words}" for measure, words in MEASURES.items() if any(measure in one for one in found.values())
    ]
    return "\n".join([columns(["tower", "measure", *facts], rows, left=2), *notes])


def _figure(measure: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if measure == "cosine" else f"{value:.0f}"


def _numbers(found: Mapping[tuple[str, int], Told]) -> list[list[str]]:
    """The rows of a file as artifacts read it: one for each tower, measure and seed, a column for each fact."""
    facts = _facts(found)
    rows = [["series", "seed", *facts]]
    for (word, seed), told in found.items():
        for measure, values in told.items():
            figures = [f"{values[fact]:.4f}" if fact in values else "" for fact in facts]
            rows.append([f"{word}: {measure}", str(seed), *figures])
    return rows
