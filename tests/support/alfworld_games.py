"""Games of ALFWorld made by hand, in the layout of its data, for the text engine of the package itself.

A game is a room in PDDL beside the domain and the grammar that come with the package; where it is not installed the
files are there all the same, with nothing in them that could be played.
"""

import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

NEEDED = ("alfworld", "textworld", "fast_downward")
MISSING = ", ".join(name for name in NEEDED if importlib.util.find_spec(name) is None)
WHY = f"ALFWorld's text engine is not installed (pip install 'vlmreason[alfworld]'): {MISSING} missing"
OPENABLE = ("Cabinet", "Fridge", "Microwave")
CONTAINS = {
    "Cabinet": ("Mug",), "CounterTop": ("Apple", "Mug"), "Microwave": ("Mug",), "Fridge": ("Apple", "Mug"),
    "SinkBasin": ("Mug",), "Desk": ("Apple", "Mug"),
}  # fmt: skip
"""What may be put where."""
CHANGED = {"clean": "isClean", "heat": "isHot", "cool": "isCool"}


@dataclass(frozen=True)
class Made:
    """A game: what is to be done with which object (`lamp`: under it), and where things are, a place for each."""

    kind: str
    words: str
    what: str
    place: str
    things: Sequence[tuple[str, str]]
    receptacles: Sequence[str] = tuple(CONTAINS)
    lamp: str = ""

    @property
    def folder(self) -> str:
        """Return the first part of the name of its folder."""
        return f"{self.kind}-{self.what}-None-{self.lamp or self.place}"


KITCHEN = (("Apple", "Fridge"), ("Mug", "Cabinet"), ("Mug", "SinkBasin"), ("DeskLamp", "Desk"))
GAMES = (
    Made("pick_and_place_simple", "put a mug in desk", "Mug", "Desk", KITCHEN),
    Made("look_at_obj_in_light", "look at apple under the desklamp", "Apple", "", KITCHEN, lamp="DeskLamp"),
    Made("pick_clean_then_place_in_recep", "put a clean mug in countertop", "Mug", "CounterTop", KITCHEN),
    Made("pick_heat_then_place_in_recep", "put a hot mug in desk", "Mug", "Desk", KITCHEN),
    Made("pick_cool_then_place_in_recep", "put a cool apple in countertop", "Apple", "CounterTop", KITCHEN),
    Made("pick_two_obj_and_place", "put two mug in desk", "Mug", "Desk", KITCHEN),
)
"""One of each kind."""
RECORDED = Made(
    "pick_heat_then_place_in_recep", "put a hot mug in cabinet", "Mug", "Cabinet",
    things=(("Apple", "CounterTop"), ("Mug", "CounterTop")), receptacles=("Cabinet", "CounterTop", "Microwave"),
)  # fmt: skip
"""The game of which the tests have a recording."""


def write_game(trial: Path, made: Made, solvable: bool = True) -> None:
    """Write the files of a game into the folder of its trial."""
    trial.mkdir(parents=True)
    played: Mapping[str, str] = {} if MISSING else {
        "pddl_domain": _shipped("alfred.pddl"),
        "grammar": _shipped("alfred.twl2").replace("UNKNOWN GOAL", made.words),
        "pddl_problem": problem(made),
    }  # fmt: skip
    (trial / "game.tw-pddl").write_text(json.dumps({"solvable": solvable, **played}))
    targets = {"object_target": made.what, "parent_target": made.place, "toggle_target": made.lamp, "mrecep_target": ""}
    (trial / "traj_data.json").write_text(json.dumps({"task_type": made.kind, "pddl_params": targets}))


def write_games(root: Path, num: int = 2) -> Path:
    """Write `num` rooms of each kind for training, as many that were seen and as many that were not."""
    for folder in ("train", "valid_seen", "valid_unseen"):
        for made in GAMES:
            for number in range(num):
                write_game(root / "json_2.1.1" / folder / f"{made.folder}-{number}" / "trial_T1", made)
    return root


def problem(made: Made) -> str:
    """Write the room of a game and its goal in PDDL."""
    places = {name: _id(name, 1) for name in made.receptacles}
    things = [(name, _id(name, number), places[where]) for number, (name, where) in enumerate(made.things, 1)]
    location = {place: f"loc_bar_{number}" for number, place in enumerate(places.values(), 1)}
    kinds = dict.fromkeys([name for name, _ in made.things] + ["Knife", "ButterKnife"])
    objects = [
        "agent1 - agent", *(f"{place} - receptacle" for place in places.values()),
        *(f"{thing} - object" for _, thing, _ in things),
        *(f"loc_bar_{number} - location" for number in range(len(places) + 1)),
        *(f"{name}Type - otype" for name in kinds),
        *(f"{name}Type - rtype" for name in dict.fromkeys([*places, "SinkBasin", "Microwave", "Fridge"])),
    ]  # fmt: skip
    facts = ["(= (total-cost) 0)", "(atLocation agent1 loc_bar_0)"]
    for name, place in places.items():
        facts += [f"(receptacleType {place} {name}Type)", f"(receptacleAtLocation {place} {location[place]})"]
        facts += [f"(openable {place})"] if name in OPENABLE else []
        facts += [f"(canContain {name}Type {thing}Type)" for thing in CONTAINS[name] if thing in kinds]
    for name, thing, place in things:
        facts += [f"(objectType {thing} {name}Type)", f"(inReceptacle {thing} {place})"]
        facts += [f"(objectAtLocation {thing} {location[place]})"]
        can = ("toggleable",) if name == "DeskLamp" else ("pickupable", "cleanable", "heatable", "coolable")
        facts += [f"({one} {thing})" for one in can]
    return "\n".join((
        "(define (problem made) (:domain alfred)", f"(:objects {' '.join(objects)})", f"(:init {' '.join(facts)})",
        f"(:goal {_goal(made)}) (:metric minimize (total-cost)))",
    ))  # fmt: skip


def _goal(made: Made) -> str:
    there = f"(objectType ?o {made.what}Type) (receptacleType ?r {made.place}Type) (inReceptacle ?o ?r)"
    if made.kind == "look_at_obj_in_light":
        return (
            f"(exists (?a - agent ?o - object ?l - object) (and (objectType ?o {made.what}Type) (holds ?a ?o) "
            f"(objectType ?l {made.lamp}Type) (isToggled ?l)))"
        )
    if made.kind == "pick_two_obj_and_place":
        other = f"(objectType ?p {made.what}Type) (inReceptacle ?p ?r) (not (= ?o ?p))"
        return f"(exists (?r - receptacle ?o - object ?p - object) (and {there} {other}))"
    changed = CHANGED.get(made.kind.split("_")[1])
    return f"(exists (?r - receptacle ?o - object) (and {there}{f' ({changed} ?o)' if changed else ''}))"


def _id(name: str, number: int) -> str:
    """The identifier of a thing, off which the package reads its name."""
    return f"Sink_bar_{number}_bar_SinkBasin" if name == "SinkBasin" else f"{name}_bar_{number}"


def _shipped(name: str) -> str:
    spec = importlib.util.find_spec("alfworld")
    assert spec is not None and spec.submodule_search_locations
    return (Path(spec.submodule_search_locations[0]) / "data" / name).read_text()
