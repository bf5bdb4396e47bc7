"""V-IRL: follow instructions through a town, one action at a coordinate (section 5.4, appendix D.2).

A right action leads to the next coordinate of the route; after a wrong one the agent stays, what it said and a
verifier's message join the prompt, and after `attempts` wrong ones at a coordinate the episode ends. Rewards by name:
"action" is 1 or -1, "limit" -1 where the attempts are used up, else 0, and, with `image` and chain of thought,
"landmark" is -1.5 where the "current observation" is not the landmark that is there and its side, in the words of the
history of the prompt, or names one where none is; else 0.

Routes are of synthetic towns or the user's files (`envs/worlds/routes.py`). Levels: standard; rule_ood says turns by
left and right instead of compass points; visual_ood is in another town, with other facades and signs.
"""

from __future__ import annotations

import json
import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from vlmreason.envs.base import Env, Outcome, Reward, given
from vlmreason.envs.replies import read_action, read_object
from vlmreason.envs.worlds.panoramas import Panoramas, draw_views, read_panoramas, routes_in_view, views_of_files
from vlmreason.envs.worlds.routes import (
    COMPASS,
    LOOKS,
    NAMES,
    SIDES,
    TURNS,
    Point,
    Route,
    compass,
    rail,
    read_routes,
    sample_route,
    structure_of,
    turn_label,
    way_of,
)
from vlmreason.pictures import Picture
from vlmreason.streams import split_of, stream
from vlmreason.structure import check_choice, check_positive
from vlmreason.tasks.base import MAX_ATTEMPTS, Belongs, Modality, Score, choose_wording

FORWARD, STOP = "forward()", "stop()"
OBSERVATION, INSTRUCTION = "current observation", "current instruction"
_MAX_QUOTE = 1000  # letters of an earlier response that come back in the prompt
_MIN_PICTURE = 12  # pixels


@dataclass(frozen=True)
class VIRLSizes:
    """`roads`: straight roads of a synthetic route, both ends included; `straight`: most coordinates on a road;
    `diagonals`: turns of 45 degrees too; `names` of landmarks: short | full. Pixels: `picture` (width, height), `font`.
    """

    roads: tuple[int, int]
    straight: int
    diagonals: bool
    names: str
    picture: tuple[int, int]
    font: int

    def __post_init__(self) -> None:
        check_choice("names", self.names, NAMES)
        most = len(NAMES[self.names])
        if not 1 <= self.roads[0] <= self.roads[1] <= most:
            raise ValueError(f"roads={list(self.roads)}: allowed is a range within 1 to {most}")
        check_positive(self, "straight")
        if min(self.picture) < _MIN_PICTURE or any(side % 2 for side in self.picture):
            raise ValueError(f"picture={list(self.picture)}: even numbers from {_MIN_PICTURE} upwards are expected")
        if self.font < 1:
            raise ValueError(f"font={self.font}: 1 pixel or more is expected")


@dataclass(frozen=True)
class VIRLState:
    """`position` counts the coordinates of the route from 0; `tried` are the wrong responses there. `look` is the
    town's: home | away; `relative` says turns by left and right."""

    route: Route
    look: str = "home"
    relative: bool = False
    position: int = 0
    tried: tuple[str, ...] = ()
    turn: int = 0


@dataclass(frozen=True)
class VIRLWording:
    """Templates. Instructions are `turn_first`, `turn` ({side}, {heading}), `walk` ({landmark}, {side}), `walk_on`
    (no landmark there) and `walk_last`, each with {number}; observations are `seen` ({landmark}, {side}) or `unseen`,
    then `crossing` at one. `past` ({number}, {observation}, {action} or {short}, its direction alone) is a step of the
    history and `here` ({number}, {observation}) the present one. `verdict` ({response}, {action}) follows a wrong
    answer; `cite` ({number}, {instruction}) is the "current instruction" of the expert. The prompts may use
    {instructions}, {directions}, {history}, {here}, {verdicts} and {reply}.
    """

    prompt_text: str
    prompt_image: str
    reply: str
    reply_action: str
    convert: str
    turn_first: str
    turn: str
    walk: str
    walk_on: str
    walk_last: str
    seen: str
    unseen: str
    crossing: str
    past: str
    here: str
    here_image: str
    verdict: str
    cite: str


_ACTIONS = (
    '"forward()" walks on by one step; "turn_direction(x)" turns, where x is one of {directions}; "stop()" ends the '
    "walk at the destination."
)
WORDINGS: Mapping[str, VIRLWording] = {
    "terse": VIRLWording(
        prompt_text="{instructions}\nDone: {history}\n{here}\n{verdicts}{reply}",
        prompt_image="{instructions}\nDone: {history}\n{here}\n{verdicts}{reply}",
        reply="forward() stop() turn_direction({directions})",
        reply_action="only forward() stop() turn_direction({directions})",
        convert="Convert the picture to text:",
        turn_first="{number} turn {side} {heading}",
        turn="{number} turn {side} {heading}",
        walk="{number} go to {landmark} {side}",
        walk_on="{number} go to crossing",
        walk_last="{number} end at {landmark} {side}",
        seen="{landmark} {side}",
        unseen="none",
        crossing=" crossing",
        past="{observation} {short}, ",
        here="Here: {observation}",
        here_image="Here:{crossing}",
        verdict="Not {action}. ",
        cite="{number}",
    ),
    "verbose": VIRLWording(
        prompt_text="You are finding your way through a town on foot. Follow these instructions in order:\n"
        "{instructions}\n\nAt every coordinate you give one action. " + _ACTIONS + "\n\n"
        "What you have observed (O) and done (A) so far:\n{history}{here}\n{verdicts}\n{reply}",
        prompt_image="You are finding your way through a town on foot. Follow these instructions in order:\n"
        "{instructions}\n\nThe picture is a grid of four street views: ahead of you (upper left), to your right (upper "
        "right), behind you (lower left) and to your left (lower right). Look for the landmarks of the instructions.\n"
        "At every coordinate you give one action. " + _ACTIONS + "\n\n"
        "What you have observed (O) and done (A) so far:\n{history}{here}\n{verdicts}\n{reply}",
        reply='Reply with one JSON object of this form:\n{{\n  "current observation": "<what is to be seen now>",\n'
        '  "current instruction": "<the instruction that applies now>",\n  "action": "<one of the actions>"\n}}',
        reply_action='Reply with one JSON object of this form:\n{{"action": "<one of the actions>"}}',
        convert="Convert the street views in the picture to text, what is to be seen at this place:",
        turn_first="{number}. First, turn {side} to face {heading}.",
        turn="{number}. Turn {side} to face {heading}.",
        walk="{number}. Walk on to the next intersection, where {landmark} is on your {side}.",
        walk_on="{number}. Walk on to the next intersection.",
        walk_last="{number}. Walk on to the destination, where {landmark} is on your {side}.",
        seen="{landmark} is on your {side}",
        unseen="No landmarks nearby",
        crossing="; there is an intersection",
        past="O_{number}: {observation}\nA_{number}: {action}\n",
        here="O_{number}: Now: {observation}\nA_{number}:",
        here_image="O_{number}: the four street views{crossing}\nA_{number}:",
        verdict="You answered: {response}\nThat action is wrong at this place. Look at the observation and the "
        "instructions again and give another one.\n",
        cite="{instruction}",
    ),
}


class VIRL(Env[VIRLState]):
    """Navigation by instructions, observations and street views.

    `image`: whether landmarks are to be recognized, which costs 1.5 where it fails. `attempts`: tries at a coordinate.
    `penalty`: the "action" reward of an unreadable response; None: that of a wrong action. `routes`: a folder or file
    of routes for standard and rule_ood, divided into splits by their ways; `routes_visual_ood`: the ones of
    visual_ood, all of them in every split. None: synthetic towns. Index i is route i modulo their number.
    """

    name = "virl"
    version = 2
    levels = ("standard", "rule_ood", "visual_ood")
    state_type = VIRLState
    sizes_type = VIRLSizes

    def __init__(
        self,
        sizes: VIRLSizes,
        trace: str = "terse",
        wording: Mapping[str, str] | None = None,
        cot: bool = True,
        penalty: float | None = None,
        image: bool = True,
        attempts: int = 2,
        routes: str | None = None,
        routes_visual_ood: str | None = None,
    ) -> None:
        if attempts < 1:
            raise ValueError(f"attempts={attempts}: 1 or more is expected")
        self.sizes = sizes
        self.wording: VIRLWording = choose_wording(WORDINGS, trace, wording or {})
        self.cot, self.penalty, self.image, self.attempts = cot, penalty, image, attempts
        self._paths = {"home": routes, "away": routes_visual_ood}
        for setting, path in (("routes", routes), ("routes_visual_ood", routes_visual_ood)):
            if path is not None and not Path(path).exists():
                raise ValueError(f"{setting}={path!r}: there is no such file or folder")
        self._check_wording()

    def _check_wording(self) -> None:
        route = sample_route(random.Random(0), (2, 2), 1, NAMES["short"], False)
        for position in range(len(rail(route, self.sizes.straight))):
            state = VIRLState(route, position=position, tried=("",) * min(1, self.attempts - 1))
            try:
                asked, expert = self.prompt(state, "text") + self.prompt(state, "image"), self.expert(state)
            except (LookupError, ValueError, AttributeError) as error:
                raise ValueError(f"wording of {self.name}: a template cannot be filled in: {error!r}") from None
            score = self.score(state, expert)
            point = self._here(state)
            named = point.landmark is None or _words(point.landmark) in _words(self._seen(point))
            if self.text(state) not in asked or not named or not score.correct or not all(score.parts.values()):
                raise ValueError(
                    f"wording of {self.name}: {{here}} in prompt_text, {{observation}} in here and {{landmark}} in "
                    f"seen are expected, so that {expert!r} is right"
                )

    @cached_property
    def _files(self) -> dict[str, tuple[Route, ...]]:
        """The routes of files of each look that has them."""
        found = {
            look: routes_in_view(read_routes(Path(path)), self._panoramas.get(look), Path(path))
            for look, path in self._paths.items()
            if path is not None
        }
        if len(found) == len(LOOKS):
            home = {repr(structure_of(r, self.sizes.straight)) for r in found["home"]}
            shared = sum(repr(structure_of(r, self.sizes.straight)) in home for r in found["away"])
            if shared:
                raise ValueError(f"routes_visual_ood={self._paths['away']!r}: {shared} routes are in routes as well")
        return found

    @cached_property
    def _panoramas(self) -> dict[str, Panoramas]:
        if not self.image:
            return {}
        read = {look: read_panoramas(Path(path)) for look, path in self._paths.items() if path is not None}
        return {look: panoramas for look, panoramas in read.items() if panoramas is not None}

    @cached_property
    def _splits(self) -> dict[tuple[str, str], tuple[Route, ...]]:
        """Routes of files by look and split."""
        divided: dict[tuple[str, str], list[Route]] = {}
        for look, routes in self._files.items():
            for split in ("train", "validation", "test"):
                divided[look, split] = [
                    r for r in routes if look == "away" or split_of(self.name, way_of(r, self.sizes.straight)) == split
                ]
        return {where: tuple(routes) for where, routes in divided.items()}

    @property
    def max_turns(self) -> int:
        longest = self.sizes.roads[1] * (1 + self.sizes.straight) + 1
        of_files = (len(rail(r, self.sizes.straight)) for routes in self._files.values() for r in routes)
        return self.attempts * max([longest, *of_files])

    def num_problems(self, level: str, split: str) -> int | None:
        routes = self._splits.get((_look(level), split))
        return None if routes is None else len(routes)

    def met_in_training(self, trained: Collection[str], level: str, split: str) -> str:
        if level == "visual_ood" and level in trained and self._paths["away"] is not None:
            return "routes_visual_ood is not divided, so that all its routes are for training too"
        return ""

    def start(self, level: str, split: str, index: int) -> VIRLState:
        look, relative = _look(level), level == "rule_ood"
        routes = self._splits.get((look, split))
        if routes is None:
            return super().start(level, split, index)
        if not routes:
            raise self.unreachable(level, f"none of the {len(self._files[look])} routes is in the split {split}")
        return VIRLState(routes[index % len(routes)], look, relative)

    def _state(self, level: str, split: str, index: int) -> VIRLState:
        """A coordinate of the route of that number, each as likely as the others."""
        state = self.start(level, split, index)
        rng = stream(self.name, self.version, level, split, index, "turn")
        return replace(state, position=(at := rng.randrange(len(self._rail(state)))), turn=at)

    def _sample(self, level: str, rng: random.Random, belongs: Belongs) -> VIRLState:
        if level == "visual_ood" and self._paths["home"] is not None:
            raise self.unreachable(level, "with routes from files it needs routes_visual_ood, those of another town")
        sizes = self.sizes
        for _ in range(MAX_ATTEMPTS):
            route = sample_route(rng, sizes.roads, sizes.straight, NAMES[sizes.names], sizes.diagonals)
            state = VIRLState(route, _look(level), level == "rule_ood")
            if belongs(self.key(state)):
                return state
        raise self.unreachable(level, "no route of the split was found")

    def key(self, state: VIRLState) -> object:
        return way_of(state.route, self.sizes.straight)

    def _rail(self, state: VIRLState) -> tuple[Point, ...]:
        return rail(state.route, self.sizes.straight)

    def _here(self, state: VIRLState) -> Point:
        return self._rail(state)[state.position]

    def actions(self, state: VIRLState) -> Sequence[str]:
        """Return the action space of the level."""
        turns = TURNS if state.relative else COMPASS
        return (FORWARD, STOP, *(f"turn_direction({x})" for x in turns))

    def best(self, state: VIRLState) -> str:
        """Return the one right action."""
        return _right_action(self._here(state), state.relative)

    @property
    def rewards(self) -> tuple[Reward, ...]:
        seen = (given("landmark", "-1.5 where the landmark is named wrongly"),) if self.cot and self.image else ()
        return (
            given("action", "1 for the right action, else -1"),
            given("limit", "-1 at a last attempt that fails"),
            *seen,
        )

    def turn(self, state: VIRLState, response: str, rng: random.Random) -> Outcome[VIRLState]:
        action = read_action(response, self.actions(state), self.answer_key)
        right = action == self.best(state)
        wrong = self.penalty if action is None and self.penalty is not None else -1.0
        parts = self._parts(state, response, right)
        ends = self._here(state).last if right else len(state.tried) + 1 >= self.attempts
        rewards = {"action": 1.0 if right else wrong, "limit": -1.0 if ends and not right else 0.0}
        if self.cot and self.image:
            rewards["landmark"] = 0.0 if self._detects(state, self._observation(response) or "") else -1.5
        if not right:
            after = replace(state, tried=(*state.tried, _quoted(response)), turn=state.turn + 1)
        elif ends:
            after = replace(state, turn=state.turn + 1)
        else:
            after = replace(state, position=state.position + 1, tried=(), turn=state.turn + 1)
        return Outcome(after, rewards, ends, ends and right, action is not None, action, parts)

    def score(self, state: VIRLState, response: str) -> Score:
        """Tell whether the action is the right one: accuracy per step."""
        action = read_action(response, self.actions(state), self.answer_key)
        right = action == self.best(state)
        return Score(right, action is not None, self._parts(state, response, right))

    def _parts(self, state: VIRLState, response: str, right: bool) -> dict[str, float]:
        parts = {"step_accuracy": float(right)}
        if self.cot:
            seen = self._observation(response)
            parts["recognition"] = float(seen is not None and self._detects(state, seen))
        return parts

    def _detects(self, state: VIRLState, seen: str) -> bool:
        """Whether an observation is the expert's of the landmark that is there; where none is it may be empty.

        The crossing, which every prompt tells, can be left out; case and punctuation do not count.
        """
        point = self._here(state)
        told = [self._landmark(point)] if point.landmark else [self.wording.unseen, ""]
        return _words(seen) in {_words(one + crossing) for one in told for crossing in ("", self._crossing(point))}

    def _observation(self, response: str) -> str | None:
        """The observation of a readable response."""
        found = read_object(response, self.answer_key)
        seen: Any = None if found is None else found.get(OBSERVATION)
        return seen if isinstance(seen, str) else None

    def text(self, state: VIRLState) -> str:
        return self._present(state, self.wording.here)

    def _present(self, state: VIRLState, template: str) -> str:
        point = self._here(state)
        crossing = self._crossing(point)
        return template.format(number=state.position + 1, observation=self._seen(point), crossing=crossing)

    def _seen(self, point: Point) -> str:
        return self._landmark(point) + self._crossing(point)

    def _landmark(self, point: Point) -> str:
        words = self.wording
        return words.seen.format(landmark=point.landmark, side=point.side) if point.landmark else words.unseen

    def _crossing(self, point: Point) -> str:
        return self.wording.crossing if point.crossing else ""

    def _instructions(self, state: VIRLState) -> list[str]:
        words, ends, heading = self.wording, state.route.milestones, state.route.heading
        found = []
        for i, end in enumerate(ends):
            template = words.turn if i else words.turn_first
            label = turn_label(heading, end.heading)
            found.append(template.format(number=2 * i + 1, side=label, heading=compass(end.heading)))
            template = words.walk_last if i == len(ends) - 1 else words.walk if end.landmark else words.walk_on
            landmark, side = end.landmark or "it", end.side or "front"
            found.append(template.format(number=2 * i + 2, landmark=landmark, side=side))
            heading = end.heading
        return found

    def prompt(self, state: VIRLState, modality: Modality) -> str:
        words = self.wording
        history = ""
        for number, point in enumerate(self._rail(state)[: state.position], start=1):
            action = _right_action(point, state.relative)
            history += words.past.format(
                number=number, observation=self._seen(point), action=action, short=_short(action)
            )
        verdicts = ""
        for tried in state.tried:
            done = read_action(tried, self.actions(state), self.answer_key)
            verdicts += words.verdict.format(response=tried, action="that" if done is None else _short(done))
        directions = ", ".join(TURNS if state.relative else COMPASS)
        reply = (words.reply if self.cot else words.reply_action).format(directions=directions)
        present = words.here if modality == "text" else words.here_image
        template = words.prompt_text if modality == "text" else words.prompt_image
        return template.format(
            instructions="\n".join(self._instructions(state)),
            directions=directions,
            history=history,
            here=self._present(state, present),
            verdicts=verdicts,
            reply=reply,
        )

    def convert(self, state: VIRLState) -> str:
        return self.wording.convert

    def draw(self, state: VIRLState) -> Picture:
        point, size = self._here(state), self.sizes.picture
        if self._paths[state.look] is not None and state.look in self._panoramas:
            return views_of_files(point, self._panoramas[state.look], size)
        return draw_views(point, state.look, size, self.sizes.font)

    def thought(self, state: VIRLState) -> list[str]:
        if not self.cot:
            return []
        point = self._here(state)
        instruction = self._instructions(state)[point.instruction]
        number = point.instruction + 1
        sentence = instruction.removeprefix(f"{number}. ")
        cited = self.wording.cite.format(number=number, instruction=sentence)
        return [f'{{"{OBSERVATION}": {_json(self._seen(point))}, ', f'"{INSTRUCTION}": {_json(cited)}, ']

    def answer(self, state: VIRLState) -> str:
        return self.write_answer(self.best(state))

    def state_from_json(self, data: object) -> VIRLState:
        state = super().state_from_json(data)
        where = f"problem of {self.name}"
        if state.look not in LOOKS or not state.route.milestones:
            raise ValueError(f"{where}: a look of {', '.join(LOOKS)} and a route with milestones are expected")
        if any(
            (m.landmark is None) != (m.side is None) or m.side not in (None, *SIDES) for m in state.route.milestones
        ):
            raise ValueError(f"{where}: a landmark has a side: {', '.join(SIDES)}")
        if not 0 <= state.position < len(self._rail(state)):
            raise ValueError(f"{where}: position={state.position}: 0 to {len(self._rail(state)) - 1} is expected")
        return state


def _look(level: str) -> str:
    return "away" if level == "visual_ood" else "home"


def _right_action(point: Point, relative: bool) -> str:
    if point.last:
        return STOP
    if point.turn is None:
        return FORWARD
    return f"turn_direction({turn_label(point.heading, point.turn) if relative else compass(point.turn)})"


def _short(action: str) -> str:
    """An action in words: its direction where it is a turn."""
    return action.removeprefix("turn_direction").strip("()")


def _words(text: str) -> str:
    """Letters and digits in lower case, other signs as single spaces, with one at both ends."""
    return f" {' '.join(''.join(c if c.isalnum() else ' ' for c in text.casefold()).split())} "


def _quoted(response: str) -> str:
    """What a response may bring into later prompts: no sign that could be a special token, and not too much."""
    plain = "".join(c for c in response[:_MAX_QUOTE] if (c.isprintable() or c == "\n") and c not in "<>|")
    return plain.strip()


def _json(text: str) -> str:

    return json.dumps(text, ensure_ascii=False)
