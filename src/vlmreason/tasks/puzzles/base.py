"""What all puzzles with five options are: asked, answered by the value of an option, judged by value and by option.

`correct` is the strict accuracy of SMART-101 (S_acc): the value that is given is the right one. The part `option` is
its option accuracy (O_acc): the option nearest to the value is the right one, so that a response without a match among
the options chooses too. `error` is how far off the value is, as a share of the puzzle's classes.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Protocol, TypeVar

from vlmreason.answers import HEAD, AnswerSpace
from vlmreason.structure import first_line
from vlmreason.tasks.base import MAX_RESPONSE_CHARS, Modality, Score, Task
from vlmreason.tasks.puzzles.values import MAX_CHARS, OPTIONS, Form, Value, error, nearest_option


class Puzzle(Protocol):
    """What a state has: the five options as they are written, in order, and the letter of the right one."""

    @property
    def options(self) -> tuple[str, ...]: ...

    @property
    def letter(self) -> str: ...


P = TypeVar("P", bound=Puzzle)
LEVEL = "puzzle"


class PuzzleTask(Task[P]):
    """A task of puzzles, each an instance of a root puzzle, which needs a skill."""

    levels = (LEVEL,)
    lists_options: bool = True
    """Whether a prompt lists the options; where they are in the picture it does not help."""

    @abstractmethod
    def kind_of(self, state: P) -> str:
        """Name the root puzzle."""

    @abstractmethod
    def skill(self, state: P) -> str:
        """Name the skill that the root puzzle needs."""

    @abstractmethod
    def form(self, kind: str) -> Form:
        """Return how the answers of a root puzzle are written."""

    @abstractmethod
    def kinds(self) -> Mapping[str, AnswerSpace]:
        """Return the root puzzles with what their answers can be."""

    @abstractmethod
    def question(self, state: P) -> str:
        """Return the question, which stands in the prompt whatever else does."""

    def values(self, state: P) -> tuple[Value, ...]:
        """Return the values of the options, in order."""
        form = self.form(self.kind_of(state))
        return tuple(form.read(option) for option in state.options)

    def value(self, state: P) -> Value:
        """Return the right value."""
        return self.form(self.kind_of(state)).read(state.options[OPTIONS.index(state.letter)])

    def state_from_json(self, data: object) -> P:
        try:
            state = super().state_from_json(data)
            self.kinds()[self.kind_of(state)].numbers(self.answer(state))
            if len(self.values(state)) != len(OPTIONS):
                raise ValueError("five options are expected")
        except (KeyError, ValueError) as error:
            why = first_line(error).removeprefix(f"problem of {self.name}")
            raise ValueError(f"problem of {self.name}: {why.lstrip('.: ')}") from error
        return state

    def listed(self, state: P) -> str:
        """Write the options as a question lists them."""
        return ", ".join(f"{letter}: {option}" for letter, option in zip(OPTIONS, state.options, strict=True))

    def groups(self, state: P) -> Mapping[str, str]:
        return {"skill": self.skill(state), "puzzle": self.kind_of(state)}

    def answer(self, state: P) -> str:
        return HEAD + state.options[OPTIONS.index(state.letter)]

    def options(self, state: P) -> tuple[str, ...]:
        """Return the options as responses; two that are written alike are one."""
        return tuple(dict.fromkeys(HEAD + option for option in state.options))

    def convert(self, state: P) -> str:
        return "Convert the picture to text:"

    def prompt(self, state: P, modality: Modality) -> str:
        text = f"{self.text(state)}\n" if modality == "text" else ""
        listed = f"\nOptions: {self.listed(state)}" if self.lists_options else ""
        return f"{text}{self.question(state)}{listed}"

    def score(self, state: P, response: str) -> Score:
        """Judge the value behind the last "Answer:"; the letter of an option stands for its value where the options are
        no letters themselves."""
        given = self._given(state, response[:MAX_RESPONSE_CHARS])
        if given is None:
            return Score(False, False, {"option": 0.0, "error": 1.0})
        right, num = self.value(state), self.kinds()[self.kind_of(state)].num_classes
        chosen = nearest_option(self.values(state), given) == OPTIONS.index(state.letter)
        return Score(given == right, True, {"option": float(chosen), "error": error(right, given, num)})

    def _given(self, state: P, response: str) -> Value | None:
        *_, last = self.answer_marker().split(response)
        if last == response:
            return None
        text, kind = last[:MAX_CHARS].strip().partition("\n")[0].strip().removesuffix("."), self.kind_of(state)
        try:
            return self.form(kind).read(text)
        except ValueError:
            is_letter = len(text) == 1 and text in OPTIONS
            return self.values(state)[OPTIONS.index(text)] if is_letter else None
