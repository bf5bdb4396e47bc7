"""Math: an operation between two boxes, a sum of what is outside, pegs that neighbours share."""

from __future__ import annotations

import random

from vlmreason.tasks.puzzles.families.scene import COLORS, Family, Made, Mark, label
from vlmreason.tasks.puzzles.values import OPERATORS, Form

OPERATIONS = tuple((sign, number) for sign in range(len(OPERATORS)) for number in range(1, 10))


def result(sign: int, number: int, of: int) -> int | None:
    """Return what an operation makes of a number; None for what is no number from 0 to 60."""
    parts = of // number if of % number == 0 else -1
    found = (of + number, of - number, of * number, parts)[sign]
    return found if 0 <= found <= 60 else None


def solutions(before: int, after: int) -> list[tuple[int, int]]:
    """Return the operations that lead from one number to another."""
    return [one for one in OPERATIONS if result(*one, before) == after]


def _chain(rng: random.Random) -> Made:
    while True:
        numbers, used = [rng.randint(2, 20)], []
        for _ in range(3):
            one = (rng.randrange(4), rng.randint(1, 9))
            after = result(*one, numbers[-1])
            if after is None or len(solutions(numbers[-1], after)) != 1:
                break
            numbers.append(after)
            used.append(one)
        if len(used) == 3:
            break
    hidden = rng.randrange(3)
    written = [f"{OPERATORS[sign]}{number}" for sign, number in used]
    shown = ["?" if i == hidden else text for i, text in enumerate(written)]
    marks = []
    for i, number in enumerate(numbers):
        marks += [Mark("frame", 4, 36 * i + 4, 40, 28), label(4, 36 * i + 4, str(number), 40, 28)]
    for i, text in enumerate(shown):
        marks += [Mark("line", 44, 36 * i + 18, 26, 18), Mark("line", 70, 36 * i + 36, -26, 18)]
        marks += [label(76, 36 * i + 22, text, 40, 28, "blue")]
    before, after = numbers[hidden : hidden + 2]
    question = rng.choice((
        "Which operation belongs in the place of the question mark?",
        "What does the question mark stand for?",
        "What is done to the number at the question mark?",
    ))  # fmt: skip
    text = " ".join(f"{number} [{step}]" for number, step in zip(numbers, shown, strict=False)) + f" {numbers[-1]}"
    sign, number = used[hidden]
    mistakes = tuple(
        (10 * (s + 1) + n,) for s, n in ((sign ^ 1, number), (sign, number % 9 + 1), ((sign + 2) % 4, number))
    )
    steps = (f"from {before} to {after}", f"{before} {written[hidden]} is {after}")
    return Made(tuple(marks), question, text, steps, (10 * (sign + 1) + number,), mistakes)


def _outside(rng: random.Random) -> Made:
    while True:
        outside = [rng.randint(1, 15) for _ in range(rng.randint(2, 4))]
        if 5 <= sum(outside) <= 40:
            break
    inside = [rng.randint(1, 15) for _ in range(rng.randint(2, 4))]
    color = rng.choice(list(COLORS))
    outer = [(x, y) for x in (0, 60, 120) for y in (0, 120)] + [(0, 60), (120, 60)]
    inner = [(36, 36), (84, 36), (36, 84), (84, 84), (60, 60)]
    marks = [Mark("bold", 30, 30, 84, 84, color)]
    for numbers, places in ((outside, outer), (inside, inner[:4])):
        marks += [label(x, y, str(n)) for n, (x, y) in zip(numbers, rng.sample(places, len(numbers)), strict=True)]
    question = rng.choice((
        "What is the sum of the numbers outside the {} square?",
        "Add the numbers that are not in the {} square.",
        "How much are the numbers outside the {} square together?",
    )).format(color)  # fmt: skip
    text = f"inside {' '.join(map(str, inside))}\noutside {' '.join(map(str, outside))}"
    total, steps = outside[0], []
    for number in outside[1:]:
        steps.append(f"{total} + {number} = {total + number}")
        total += number
    mistakes = ((sum(inside),), (sum(inside) + total,), (total - outside[-1],), (total + inside[0],))
    return Made(tuple(marks), question, text, (f"outside: {outside}", *steps), (total,), mistakes)


def _pegs(rng: random.Random) -> Made:
    number, shown = rng.randint(2, 19), 3
    thing, color, holder = (
        rng.choice(("towel", "shirt", "scarf", "flag")),
        rng.choice(list(COLORS)),
        rng.choice(("peg", "clip")),
    )
    marks = [Mark("line", 0, 40, 144, 0)]
    for i in range(shown):
        marks += [Mark("fill", 12 + 40 * i, 42, 40, 56, color), Mark("dot", 2 + 40 * i, 28, 20, 20)]
    marks.append(Mark("dot", 2 + 40 * shown, 28, 20, 20))
    question = rng.choice((
        "Each {t} hangs on two {h}s, and neighbours share one. How many {h}s do {n} {t}s in a row need?",
        "{n} {t}s hang in a row, as in the picture: two beside each other share a {h}. How many {h}s are there?",
        "How many {h}s hold {n} {t}s in one row, if a {h} between two holds both?",
    )).format(t=thing, h=holder, n=number)  # fmt: skip
    steps = (f"{number} {thing}s share {number - 1} {holder}s", f"2 x {number} - {number - 1} = {number + 1}")
    text = f"{shown} {color} {thing}s on {shown + 1} {holder}s"
    return Made(tuple(marks), question, text, steps, (number + 1,), ((number,), (2 * number,), (number - 1,)))


FAMILIES = (
    Family("math_chain", "math", Form("operator"), (11, 49), _chain),
    Family("math_outside", "math", Form("integer"), (5, 40), _outside, split="test"),
    Family("math_pegs", "math", Form("integer"), (3, 20), _pegs),
)
