"""Measure: a clock, two towers beside a ruler, parts of a road."""

from __future__ import annotations

import math
import random

from vlmreason.tasks.puzzles.families.scene import COLORS, Family, Made, Mark, label
from vlmreason.tasks.puzzles.values import Form


def _clock(rng: random.Random) -> Made:
    asked, num, later = rng.randint(1, 24), rng.randint(1, 9), rng.random() < 0.5
    now = (asked - num if later else asked + num) % 24
    hour, half = now % 12 or 12, "afternoon" if now >= 12 else "morning"
    turn = math.pi * hour / 6
    marks = [Mark("ring", 0, 0, 144, 144)]
    for i in range(1, 13):
        x, y = 72 + 56 * math.sin(math.pi * i / 6), 72 - 56 * math.cos(math.pi * i / 6)
        marks.append(label(round(x) - 12, round(y) - 12, str(i)))
    marks += [
        Mark("line", 72, 72, round(26 * math.sin(turn)), round(-26 * math.cos(turn)), "red"),
        Mark("line", 72, 72, 0, -36, "blue"),
    ]
    word = "later" if later else "earlier"
    question = rng.choice((
        "It is in the {half}. Which hour of 1 to 24 was or will be {n} hours {w}?",
        "The clock shows an hour of the {half}. Which of the 24 hours is {n} hours {w}?",
        "Take the hour of the {half} on the clock. What is it {n} hours {w}, from 1 to 24?",
    )).format(half=half, n=num, w=word)  # fmt: skip
    start = now or 24
    steps = (f"it is {start} h", f"{start} {'+' if later else '-'} {num} gives {asked} h")
    other = (now - num if later else now + num) % 24 or 24
    mistakes = ((other,), ((asked + 12) % 24 or 24,), (start,), (hour,))
    return Made(tuple(marks), question, f"clock: {hour}", steps, (asked,), mistakes)


def _towers(rng: random.Random) -> Made:
    number = rng.randint(1, 9)
    low = rng.randint(1, 11 - number)
    heights = rng.sample((low, low + number), 2)
    colors = rng.sample(list(COLORS), 2)
    marks = [Mark("line", 24, 4, 0, 132)]
    for tick in range(12):
        marks.append(Mark("line", 24, 136 - 12 * tick, 6, 0))
        if tick % 2 == 0:
            marks.append(label(0, 136 - 12 * tick - 8, str(tick), 22, 16))
    for i, (height, color) in enumerate(zip(heights, colors, strict=True)):
        marks.append(Mark("fill", 48 + 46 * i, 136 - 12 * height, 36, 12 * height, color))
    question = rng.choice((
        "How many cm is the {} tower taller or lower than the {} one?",
        "By how many cm do the heights of the {} and the {} tower differ?",
        "What is the difference of the {} and the {} tower in cm?",
    )).format(*colors)  # fmt: skip
    text = f"{colors[0]} tower {heights[0]} cm\n{colors[1]} tower {heights[1]} cm"
    steps = (f"heights {heights[0]} and {heights[1]}", f"{max(heights)} - {min(heights)} = {number}")
    mistakes = ((low,), (low + number,), (number + 1,), (abs(number - 1),))
    return Made(tuple(marks), question, text, steps, (number,), mistakes)


def _road(rng: random.Random) -> Made:
    total = rng.randint(4, 30)
    first = rng.randint(1, total - 1)
    places = rng.sample("KLMNPQRT", 3)
    parts = {"first": first, "second": total - first, "whole": total}
    asked = rng.choice(sorted(parts))
    bend = 36 + round(72 * first / total)
    marks = [Mark("line", 12, 84, 120, 0), Mark("line", bend, 60, 0, 48, "brown")]
    marks += [label(x - 12, 94, name, color="blue") for x, name in zip((12, bend, 132), places, strict=True)]
    where = {"first": (12 + bend) // 2, "second": (bend + 132) // 2, "whole": 72}
    ends = {"first": places[:2], "second": places[1:], "whole": places[::2]}
    for name, number in parts.items():
        if name != asked:
            marks.append(label(where[name] - 20, 28 if name == "whole" else 60, f"{number}", 40, 20))
    marks.append(Mark("line", 12, 52, 120, 0, "grey"))
    question = rng.choice((
        "How many km is it from {} to {}?", "How far is {} from {} in km?", "What is the distance of {} and {} in km?",
    )).format(*ends[asked])  # fmt: skip
    known = [f"{' to '.join(ends[name])}: {number} km" for name, number in parts.items() if name != asked]
    text = "\n".join((f"in order {' '.join(places)}", *known))
    value = parts[asked]
    one, other = (number for name, number in parts.items() if name != asked)
    sign = "+" if asked == "whole" else "-"
    larger, smaller = max(one, other), min(one, other)
    steps = (f"known: {larger} and {smaller}", f"{larger} {sign} {smaller} = {value}")
    mistakes = ((abs(one - other) if asked == "whole" else one + other,), (one,), (other,), (value + 1,))
    return Made(tuple(marks), question, text, steps, (value,), mistakes)


FAMILIES = (
    Family("measure_clock", "measure", Form("unit", "h"), (1, 24), _clock),
    Family("measure_towers", "measure", Form("unit", "cm"), (1, 9), _towers, split="test"),
    Family("measure_road", "measure", Form("unit", "km"), (1, 30), _road, split="validation"),
)
