"""Arithmetic formulas: read what a model wrote, find what solves a deal of cards, and finish what was begun.

A formula has numbers, + - * / and brackets. All values are exact (`Fraction`), so that 8/(3-8/3) is 24, and nothing is
ever evaluated by the interpreter: a model's text is hostile. In the token-by-token games (appendix C.1) a formula is
built of pieces ("10", "+", "("), one a turn; `complete` says how it can still become a solution.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

MAX_CHARS = 200
MAX_DEPTH = 20  # brackets within brackets
MAX_NUMBERS = 20
MAX_DIGITS = 6  # of one number
OPERATORS = "+-*/"
MAX_CARDS = 6  # numbers that are solved for

_TOKEN = re.compile(r" *([0-9]+|[-+*/()=])")


class FormulaError(ValueError):
    """A text that is no formula; the message says why."""


@dataclass(frozen=True)
class Formula:
    """`numbers` are those of the formula in order; `right` is the number behind "=", None where there is none."""

    value: Fraction
    numbers: tuple[int, ...]
    right: int | None = None


def evaluate(text: str, equation: bool = False) -> Formula:
    """Return the value of a formula, whose numbers are whole and not negative.

    `equation`: "= number" may follow, which is returned and not compared. Raises FormulaError.
    """
    tokens = _tokens(text)
    right = None
    if equation and "=" in tokens:
        end = tokens.index("=")
        behind = tokens[end + 1 :]
        if len(behind) != 1 or not behind[0].isdigit():
            raise FormulaError("one number is expected behind =")
        tokens, right = tokens[:end], int(behind[0])
    value, end = _sum(tokens, 0, 0)
    if end < len(tokens):
        raise FormulaError(f"{tokens[end]} is not expected there")
    return Formula(value, tuple(int(token) for token in tokens if token.isdigit()), right)


def _tokens(text: str) -> list[str]:
    if len(text) > MAX_CHARS:
        raise FormulaError(f"a formula has at most {MAX_CHARS} characters")
    tokens, at = [], 0
    text = text.rstrip(" ")
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise FormulaError(f"{text[at:].lstrip(' ')[0]!r} belongs to no formula")
        tokens.append(match.group(1))
        at = match.end()
    numbers = [token for token in tokens if token.isdigit()]
    if len(numbers) > MAX_NUMBERS:
        raise FormulaError(f"a formula has at most {MAX_NUMBERS} numbers")
    for number in numbers:
        if len(number) > MAX_DIGITS or (number[0] == "0" and number != "0"):
            raise FormulaError(f"a number has at most {MAX_DIGITS} digits and does not begin with 0")
    return tokens


def _sum(tokens: Sequence[str], at: int, depth: int) -> tuple[Fraction, int]:
    """The value of the sum that begins at a token, and the token behind it."""
    value, at = _product(tokens, at, depth)
    while at < len(tokens) and tokens[at] in "+-":
        term, end = _product(tokens, at + 1, depth)
        value = value + term if tokens[at] == "+" else value - term
        at = end
    return value, at


def _product(tokens: Sequence[str], at: int, depth: int) -> tuple[Fraction, int]:
    value, at = _operand(tokens, at, depth)
    while at < len(tokens) and tokens[at] in "*/":
        factor, end = _operand(tokens, at + 1, depth)
        if tokens[at] == "/" and factor == 0:
            raise FormulaError("division by zero")
        value = value * factor if tokens[at] == "*" else value / factor
        at = end
    return value, at


def _operand(tokens: Sequence[str], at: int, depth: int) -> tuple[Fraction, int]:
    if at == len(tokens):
        raise FormulaError("the formula is not complete")
    if tokens[at].isdigit():
        return Fraction(int(tokens[at])), at + 1
    if tokens[at] != "(":
        raise FormulaError(f"a number is expected in place of {tokens[at]}")
    if depth == MAX_DEPTH:
        raise FormulaError(f"brackets are at most {MAX_DEPTH} deep")
    value, at = _sum(tokens, at + 1, depth + 1)
    if at == len(tokens) or tokens[at] != ")":
        raise FormulaError("a bracket is not closed")
    return value, at + 1


def join(pieces: Sequence[str]) -> str:
    """Return the pieces of a formula as text; a space keeps two numbers apart that stand side by side."""
    text = ""
    for before, piece in zip(("", *pieces), pieces, strict=False):
        text += f" {piece}" if before.isdigit() and piece.isdigit() else piece
    return text


Numbers = tuple[int, ...]


def solve(numbers: Sequence[int], target: int, operators: str = OPERATORS) -> str | None:
    """Return a formula of all numbers, each once, whose value is the target; None where there is none.

    Numbers that come first are used first where they can be, and brackets only where they must be.
    """
    pieces = complete((), numbers, target, operators)
    return None if pieces is None else join(pieces)


def solvable(numbers: Sequence[int], target: int, operators: str = OPERATORS) -> bool:
    return _makes(tuple(sorted(numbers)), Fraction(target), operators)


def solutions(numbers: Sequence[int], target: int, operators: str = OPERATORS) -> tuple[str, ...]:
    """Return all formulas of all numbers, each once, whose value is the target, without brackets that are not needed.

    Those that differ by the order of numbers alone, as 4*6 and 6*4, are different formulas.
    """
    _check_count(numbers)
    found = _formulas(tuple(sorted(numbers)), Fraction(target), operators)
    return tuple(dict.fromkeys(text for text, _ in found))


def _check_count(numbers: Sequence[int]) -> None:
    if not 1 <= len(numbers) <= MAX_CARDS:
        raise ValueError(f"{len(numbers)} numbers: formulas are found for 1 to {MAX_CARDS}")


@lru_cache(maxsize=4096)
def _splits(numbers: Numbers) -> tuple[tuple[Numbers, Numbers], ...]:
    """The ways to divide numbers in two, either of which may be empty."""
    found = {}
    for chosen in itertools.product((False, True), repeat=len(numbers)):
        first = tuple(number for number, here in zip(numbers, chosen, strict=True) if here)
        found[first] = tuple(number for number, here in zip(numbers, chosen, strict=True) if not here)
    return tuple(found.items())


@lru_cache(maxsize=1024)
def _values(numbers: Numbers, operators: str) -> frozenset[Fraction]:
    """All that formulas of all numbers, each once, can be worth."""
    if len(numbers) == 1:
        return frozenset([Fraction(numbers[0])])
    found: set[Fraction] = set()
    for left, right in _splits(numbers):
        if left and right:
            for x, y in itertools.product(_values(left, operators), _values(right, operators)):
                found.update(_results(x, y, operators))
    return frozenset(found)


def _results(x: Fraction, y: Fraction, operators: str) -> Iterator[Fraction]:
    if "+" in operators:
        yield x + y
    if "-" in operators:
        yield x - y
    if "*" in operators:
        yield x * y
    if "/" in operators and y:
        yield x / y


@lru_cache(maxsize=1 << 16)
def _makes(numbers: Numbers, goal: Fraction, operators: str) -> bool:
    """Whether a formula of all numbers is worth the goal; the values of four and more are not listed for it."""
    if len(numbers) <= 3:
        return bool(numbers) and goal in _values(numbers, operators)
    return any(
        not _factors(x, goal, operators, right).isdisjoint(_values(right, operators))
        or not _others(x, goal, operators).isdisjoint(_values(right, operators))
        for left, right in _splits(numbers)
        if left and len(left) <= len(right)
        for x in _values(left, operators)
    )


def _factors(x: Fraction, goal: Fraction, operators: str, right: Numbers) -> set[Fraction]:
    """The y with x + y, x - y, x * y or x / y at the goal."""
    found: set[Fraction] = set()
    if "+" in operators:
        found.add(goal - x)
    if "-" in operators:
        found.add(x - goal)
    if "*" in operators:
        found.update([goal / x] if x else _values(right, operators) if goal == 0 else ())
    if "/" in operators:
        if goal and x:
            found.add(x / goal)
        elif not goal and not x:
            found.update(y for y in _values(right, operators) if y)
    return found


def _others(x: Fraction, goal: Fraction, operators: str) -> set[Fraction]:
    """The y with y - x or y / x at the goal."""
    found = set()
    if "-" in operators:
        found.add(goal + x)
    if "/" in operators and x:
        found.add(goal * x)
    return found


_BINDS = {"+": 1, "-": 1, "*": 2, "/": 2, "": 3}


@lru_cache(maxsize=4096)
def _formulas(numbers: Numbers, goal: Fraction, operators: str) -> tuple[tuple[str, str], ...]:
    """Formulas worth the goal, each with the operator that comes last in it ("" for a number)."""
    if len(numbers) == 1:
        return ((str(numbers[0]), ""),) if numbers[0] == goal else ()
    found: dict[tuple[str, str], None] = {}
    for left, right in _splits(numbers):
        if not left or not right:
            continue
        for x in sorted(_values(left, operators)):
            for y in sorted(_factors(x, goal, operators, right) & _values(right, operators)):
                for operator in operators:
                    if goal in _results(x, y, operator):
                        pairs = itertools.product(_formulas(left, x, operators), _formulas(right, y, operators))
                        found.update(((_binary(a, operator, b), operator), None) for a, b in pairs)
    return tuple(found)


def _binary(left: tuple[str, str], operator: str, right: tuple[str, str]) -> str:
    a = f"({left[0]})" if _BINDS[left[1]] < _BINDS[operator] else left[0]
    looser = _BINDS[right[1]] < _BINDS[operator] or (operator in "-/" and _BINDS[right[1]] == _BINDS[operator])
    b = f"({right[0]})" if looser else right[0]
    return a + operator + b


Level = tuple[Fraction, Fraction, str]
_NEW: Level = (Fraction(0), Fraction(1), "*")


@dataclass(frozen=True)
class Position:
    """Where a formula stands that was begun: its levels and the numbers that are left, sorted."""

    levels: tuple[Level, ...]
    left: Numbers

    @property
    def expects_number(self) -> bool:
        return self.levels[-1][2] != ""

    @property
    def value(self) -> Fraction | None:
        """Return the value where the formula could end here, None where it could not."""
        total, term, waits = self.levels[-1]
        return None if waits or len(self.levels) > 1 else total + term


def begin(numbers: Sequence[int]) -> Position:
    return Position((_NEW,), tuple(sorted(numbers)))


def follow(position: Position, piece: str) -> Position | None:
    """Return the position behind a further piece; None where no formula goes on so."""
    *below, (total, term, waits) = position.levels
    left = position.left
    if piece.isdigit():
        if not waits or int(piece) not in left:
            return None
        at = left.index(int(piece))
        level = _with_operand((total, term, waits), Fraction(int(piece)))
        return None if level is None else Position((*below, level), left[:at] + left[at + 1 :])
    if piece == "(":
        return Position((*position.levels, _NEW), left) if waits else None
    if waits:
        return None
    if piece == ")":
        upper = _with_operand(below[-1], total + term) if below else None
        return None if upper is None else Position((*below[:-1], upper), left)
    if piece in "+-":
        return Position((*below, (total + term, Fraction(1 if piece == "+" else -1), "*")), left)
    return Position((*below, (total, term, piece)), left)


def complete(
    pieces: Sequence[str], numbers: Sequence[int], target: int, operators: str = OPERATORS
) -> tuple[str, ...] | None:
    """Return pieces that make a begun formula a solution; () where it is one, None where it can be none any more.

    A solution uses all `numbers`, each once. `operators` must hold + where it holds -, and * where it holds /.
    """
    _check_count(numbers)
    position: Position | None = begin(numbers)
    for piece in pieces:
        position = None if position is None else follow(position, piece)
    goal = Fraction(target)
    if position is None or not _reaches(position.levels, position.left, goal, operators):
        return None
    wanted = [str(number) for number in numbers]
    found: list[str] = []
    while position.left or position.value is None:
        for piece in [*dict.fromkeys(wanted), "("] if position.expects_number else [*operators, ")"]:
            after = follow(position, piece)
            if after is not None and _reaches(after.levels, after.left, goal, operators):
                break
        else:
            raise AssertionError("a formula that can be completed has a next piece")
        found.append(piece)
        position = after
    return tuple(found)


def next_pieces(pieces: Sequence[str], numbers: Sequence[int], target: int, operators: str = OPERATORS) -> set[str]:
    """Return the pieces after which a begun formula can still become a solution; "=" where it is one.

    A bracket is opened only where the numbers left are enough for one more operation within each bracket at its place.
    """
    position: Position | None = begin(numbers)
    for piece in pieces:
        position = None if position is None else follow(position, piece)
    if position is None:
        return set()
    goal = Fraction(target)
    found = set()
    if position.expects_number:
        candidates = [str(number) for number in dict.fromkeys(position.left)]
        opened = sum(1 for _ in itertools.takewhile(_NEW.__eq__, reversed(position.levels[1:])))
        if opened < len(position.left) - 1:
            candidates.append("(")
    else:
        candidates = [*operators, ")"]
        if not position.left and position.value == goal:
            found.add("=")
    for piece in candidates:
        after = follow(position, piece)
        if after is not None and _reaches(after.levels, after.left, goal, operators):
            found.add(piece)
    return found


def _with_operand(level: Level, operand: Fraction) -> Level | None:
    total, term, waits = level
    if not waits or (waits == "/" and operand == 0):
        return None
    return total, term * operand if waits == "*" else term / operand, ""


@lru_cache(maxsize=1 << 16)
def _reaches(levels: tuple[Level, ...], left: Numbers, goal: Fraction, operators: str) -> bool:
    """Whether the formula can be completed: the inner bracket takes some of the numbers, the rest is for the outer."""
    if len(levels) == 1:
        return _ends_at(levels[0], left, goal, operators)
    *below, upper, inner = levels
    if inner == upper == _NEW and below:
        return _reaches(levels[:-1], left, goal, operators)  # ((x)) is (x)
    for taken, rest in _splits(left):
        if not rest and not below and upper[1] and goal != upper[0]:
            need = (goal - upper[0]) / upper[1]
            if _ends_at(inner, taken, need if upper[2] == "*" else 1 / need, operators):
                return True
            continue
        for value in _ends(inner, taken, operators):
            level = _with_operand(upper, value)
            if level is not None and _reaches((*below, level), rest, goal, operators):
                return True
    return False


def _chains(level: Level, left: Numbers, operators: str, least_left: int = 0) -> Iterator[tuple[Fraction, Numbers]]:
    """Values of a level once its term has taken some of the numbers as further factors, and the numbers left then.

    Any chain of factors is worth what one bracket in its place could be worth.
    """
    for taken, rest in _splits(left):
        if taken and len(rest) >= least_left:
            for factor in _values(taken, operators):
                done = _with_operand(level, factor)
                if done is not None:
                    yield done[0] + done[1], rest


def _ends(level: Level, left: Numbers, operators: str) -> set[Fraction]:
    """All values that a level can end with, all numbers used."""
    total, term, waits = level
    found = set()
    if not waits:
        if not left:
            return {total + term}
        values = [(total + term, left)]
        levels = [(total, term, sign) for sign in "*/" if sign in operators]
    else:
        values, levels = [], [level]
    for value, rest in itertools.chain(values, *(_chains(each, left, operators) for each in levels)):
        if not rest:
            found.add(value)
            continue
        for more in _values(rest, operators):
            if "+" in operators:
                found.add(value + more)
            if "-" in operators:
                found.add(value - more)
    return found


def _ends_at(level: Level, left: Numbers, goal: Fraction, operators: str) -> bool:
    """Whether a level can end at a value, all numbers used."""
    total, term, waits = level
    if not waits:
        if not left:
            return total + term == goal
        return _adds(total + term, left, goal, operators) or any(
            _ends_at((total, term, sign), left, goal, operators) for sign in "*/" if sign in operators
        )
    if not left:
        return False
    if term and (waits == "*" or goal != total):
        need = (goal - total) / term
        if _makes(left, need if waits == "*" else 1 / need, operators):
            return True
    elif not term and goal == total and any(not rest for _, rest in _chains(level, left, operators)):
        return True
    chains = _chains(level, left, operators, least_left=1)
    return any(_adds(value, rest, goal, operators) for value, rest in chains)


def _adds(value: Fraction, left: Numbers, goal: Fraction, operators: str) -> bool:
    """Whether further terms of all the numbers lead from a value to the goal."""
    return ("+" in operators and _makes(left, goal - value, operators)) or (
        "-" in operators and _makes(left, value - goal, operators)
    )
