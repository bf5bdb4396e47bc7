"""RAVEN's matrices (arXiv 1903.02741): which of eight panels completes three rows of three.

Levels are RAVEN's seven configurations. Each attribute of each component follows one of four rules along the rows;
angles, and values of entities that differ within a panel, are noise. Puzzles are drawn here from the published grammar,
no code of the reference is used: the rules that eight panels show are unique for every attribute, and exactly one of
eight different choices obeys them. Answer sets are RAVEN's own, which give the answer away, or those of I-RAVEN
(arXiv 2002.06838).

Pairs of an attribute, or a configuration, and a rule can be held out: then no puzzle of a configuration has one, and
every puzzle of its level `<configuration>_held_out` has.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from vlmreason.pictures import Box, Picture
from vlmreason.structure import check_choice
from vlmreason.tasks.base import (
    MAX_ATTEMPTS,
    MAX_RESPONSE_CHARS,
    Belongs,
    Modality,
    Problem,
    Score,
    choose_wording,
)
from vlmreason.tasks.held_out import Pair, held_out_pairs
from vlmreason.tasks.matrices.choices import CHOICES, Editor, changeable, iraven, most_similar, raven
from vlmreason.tasks.matrices.drawing import Artist
from vlmreason.tasks.matrices.kinds import REGULAR, SENTENCES, NumberedPuzzle
from vlmreason.tasks.matrices.panels import (
    CONFIGURATIONS,
    NUM_CHOICES,
    NUM_CONTEXT,
    MatrixSizes,
    MatrixState,
    check_panel,
)
from vlmreason.tasks.matrices.raven_xml import write_puzzle
from vlmreason.tasks.matrices.rules import RULES, Solution, solve
from vlmreason.tasks.matrices.sampler import GOVERNED, SAMPLING, Draft, Kind, Sampler, key_of, rules_that_fit
from vlmreason.tasks.matrices.statements import KINDS, Statements, lines
from vlmreason.tasks.matrices.wording import WORDINGS, MatrixWording, Phrases

HELD_OUT = "_held_out"
_CACHED = 64


class Raven(NumberedPuzzle[MatrixState]):
    name = "raven"
    version = 1
    kind, num_choices = REGULAR, NUM_CHOICES
    levels = tuple(CONFIGURATIONS)
    state_type: ClassVar[type] = MatrixState
    sizes_type: ClassVar[type] = MatrixSizes
    own_file = "puzzles.json"
    explained = True

    def __init__(
        self,
        sizes: MatrixSizes,
        trace: str = "terse",
        wording: Mapping[str, str] | None = None,
        choices: Literal["raven", "iraven"] = "iraven",
        sampling: Literal["balanced", "reference"] = "balanced",
        held_out: Iterable[Sequence[str]] = (),
    ) -> None:
        check_choice("task.choices", choices, CHOICES)
        check_choice("task.sampling", sampling, SAMPLING)
        self.sizes, self.choices, self.sampling = sizes, choices, sampling
        self.wording: MatrixWording = choose_wording(WORDINGS, trace, wording or {})
        self.sentences = SENTENCES[trace]
        self.artist = Artist(sizes)
        self.phrases = Phrases(self.wording, sizes)
        self.statements = Statements(self.phrases)
        self.held_out = held_out_pairs(
            held_out, {"attribute or configuration": (*GOVERNED, *CONFIGURATIONS), "rule": RULES[1:]}
        )
        fitting = {name: rules_that_fit(sizes, name) for name in CONFIGURATIONS} if self.held_out else {}
        for pair in sorted(self.held_out):
            if not any(_of_pair(pair, name).intersection(fit) for name, fit in fitting.items()):
                raise ValueError(f"task.held_out: no configuration can carry {' '.join(pair)}")
        if self.held_out:
            able = [name for name, fit in fitting.items() if self._held_out(name).intersection(fit)]
            self.levels = (*CONFIGURATIONS, *(name + HELD_OUT for name in able))  # type: ignore[misc]
        self._samplers: dict[str, Sampler] = {}
        self.solution = functools.lru_cache(maxsize=_CACHED)(self._solve)

    def _solve(self, state: MatrixState) -> Solution:
        return solve(state, self.sizes)

    def _held_out(self, configuration: str) -> frozenset[Kind]:
        """What a configuration's puzzles do not follow, by attribute and rule."""
        return frozenset(kind for pair in self.held_out for kind in _of_pair(pair, configuration))

    def _sampler(self, level: str) -> Sampler:
        if level not in self._samplers:
            name = level.removesuffix(HELD_OUT)
            kinds = self._held_out(name)
            limits: dict[str, frozenset[Kind]] = {"without": kinds} if level == name else {"one_of": kinds}
            try:
                self._samplers[level] = Sampler(self.sizes, name, self.sampling, **limits)
            except ValueError as error:
                raise self.unreachable(level, f"task.held_out: {error}") from error
        return self._samplers[level]

    def _sample(self, level: str, rng: random.Random, belongs: Belongs) -> MatrixState:
        sampler = self._sampler(level)
        rules = sampler.rules(rng)
        for _ in range(MAX_ATTEMPTS):
            drafts = sampler.matrix(rng, rules, belongs)
            state = None if drafts is None else self._choose(rng, drafts, sampler)
            if state is not None:
                return state
        raise self.unreachable(level, "no puzzle was found: there are too few different levels")

    def _choose(self, rng: random.Random, drafts: list[Draft], sampler: Sampler) -> MatrixState | None:
        *context, answer = zip(*(draft.panels for draft in drafts), strict=True)
        editor = Editor(rng, answer, sampler.ranges, self.sizes)
        wrong = (raven if self.choices == "raven" else iraven)(editor, changeable(drafts, sampler.ranges))
        if wrong is None:
            return None
        rng.shuffle(wrong)
        at = int(rng.random() * NUM_CHOICES)
        return MatrixState(sampler.configuration, tuple(context), (*wrong[:at], answer, *wrong[at:]), at)

    def key(self, state: MatrixState) -> object:
        return key_of(state.context[:3])

    def draw(self, state: MatrixState) -> Picture:
        return self.artist.panels((*state.context, None, *state.choices), state.configuration)

    def option_boxes(self) -> tuple[Box, ...]:
        """Say where the eight choices are shown."""
        side = self.sizes.panel
        return tuple((y, x, side, side) for x, y in self.artist.places[-NUM_CHOICES:])

    def floors(self, state: MatrixState) -> Mapping[str, float]:
        """Say how likely it is right to take any choice (`random`), and one of those that share most attributes with
        the others (`most_alike`), without a look at the matrix."""
        alike = most_similar(state.choices)
        return {"random": 1 / NUM_CHOICES, "most_alike": (state.answer in alike) / len(alike)}

    def groups(self, state: MatrixState) -> Mapping[str, str]:
        """Return the rules of each attribute, of the first component and of the second."""
        found: dict[str, list[str]] = {}
        for line in lines(self.solution(state), state.configuration):
            name = "place" if line.on in ("number", "position") else line.on
            rule = line.found.rule if line.found else "none"
            found.setdefault(name, []).append(f"{line.on} {rule}" if name == "place" else rule)
        return {name: ", ".join(rules) for name, rules in found.items()}

    def text(self, state: MatrixState) -> str:
        joint, write = self.wording.panel_joint, self.phrases.panel
        context = [write(panel, state.configuration) for panel in state.context]
        rows = [joint.join(row) for row in (context[:3], context[3:6], [*context[6:], "?"])]
        choices = (
            self.wording.choice.format(number=number, panel=write(panel, state.configuration))
            for number, panel in enumerate(state.choices, start=1)
        )
        return "\n".join((*rows, *choices))

    def prompt(self, state: MatrixState, modality: Modality) -> str:
        words = {name.partition(" ")[0]: word for name, word in self.phrases.rules.items() if name}
        if modality == "image":
            return self.wording.prompt_image.format(**words)
        return self.wording.prompt_text.format(text=self.text(state), **words)

    def convert(self, state: MatrixState) -> str:
        return self.wording.convert

    def thought(self, state: MatrixState) -> list[str]:
        """Return a step for every attribute of every component, and one for the choices that are ruled out."""
        return self.statements.written(state, self.solution(state))

    def score(self, state: MatrixState, response: str) -> Score:
        """Return whether the choice behind the last "Answer:" is right.

        Parts are of the trace, derived from the panels: shares of its statements that are right (`levels` of the
        panels, `rules`, `predictions`, choices `ruled_out`, and of all of them `statements`), whether all of them are
        (`process`), right choice with a right process (`proven`); and whether it begins with the kind (`kind`).
        """
        response = response[:MAX_RESPONSE_CHARS]
        start = self.answer_start(response, 0)
        given = self.given(response, start)
        right = self.statements.right(state, self.solution(state), response[:start])
        every = [one for kind in KINDS for one in right[kind]]
        correct = given == state.answer
        parts = {kind: _share(right[kind]) for kind in KINDS} | {"statements": _share(every)}
        parts |= {"process": float(all(every)), "proven": float(correct and all(every))}
        parts["kind"] = float(self.says_kind(state, response))
        return Score(correct, given is not None, parts)

    def own_record(self, problem: Problem[MatrixState], folder: Path) -> Mapping[str, Any]:
        """Write the two files of a puzzle as RAVEN has them, in the folder of its configuration; return their name."""
        split = problem.split if problem.split != "validation" else "val"
        stem = folder / CONFIGURATIONS[problem.state.configuration].folder / f"RAVEN_{problem.index}_{split}"
        stem.parent.mkdir(exist_ok=True)
        write_puzzle(stem, problem.state, self.artist)
        return {"id": problem.id, "files": stem.relative_to(folder).as_posix(), "answer": problem.state.answer}

    def state_from_json(self, data: object) -> MatrixState:
        state = super().state_from_json(data)
        try:
            self.check(state)
        except ValueError as error:
            raise ValueError(f"problem of {self.name}: {error}") from error
        return state

    def check(self, state: MatrixState) -> None:
        """Raise ValueError for a puzzle that is none: of the wrong shape, or with another answer than the one given."""
        check_choice("configuration", state.configuration, CONFIGURATIONS)
        if (len(state.context), len(state.choices)) != (NUM_CONTEXT, NUM_CHOICES):
            raise ValueError(f"{NUM_CONTEXT} panels and {NUM_CHOICES} choices are expected")
        for panel in (*state.context, *state.choices):
            check_panel(panel, state.configuration, self.sizes)
        if self.solution(state).answer != state.answer:
            raise ValueError(f"answer={state.answer}: the rules of the panels say {self.solution(state).answer}")


def _of_pair(pair: Pair, configuration: str) -> frozenset[Kind]:
    """What a pair that is held out keeps from a configuration, by attribute and rule."""
    held, rule = pair
    return frozenset((on, rule) for on in (GOVERNED if held == configuration else (held,)))


def _share(right: list[bool]) -> float:
    return sum(right) / len(right) if right else 1.0
