"""Make the pictures of the documentation that need no run: one problem in its views, and each task at both scales.

    python docs/pictures/make.py

tests/report/pages/test_gallery.py compares them. The pictures of results come from `vlmreason figure`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image, ImageDraw

from vlmreason.assembly.build import load_task
from vlmreason.dialogue.build import Dialogue, build_dialogue
from vlmreason.pictures import Picture, font
from vlmreason.places import conf_dir
from vlmreason.scale import Scale
from vlmreason.segments import KINDS, VIEWS
from vlmreason.structure import structure
from vlmreason.tasks.base import Task

TASKS = (
    "consecutive_table_readout",
    "table_readout",
    "grid_navigation",
    "visual_analogy",
    "pattern_heldout_visual_analogy",
)
HEIGHT, WIDTH = 432, 720  # of the paper-scale picture at most; the nano one is three times its own size (px)
GAP = 24  # between the two (px)
NUM_COLORS = 64  # of the palette: keeps the files small

INK, SOFT, LINE, PAPER = "#1d2430", "#5d6778", "#d9dee6", "#ffffff"
COLORS = {kind.name: kind.colours[0] for kind in KINDS}  # as on every page
SIZE, LEADING, MARGIN = 17, 24, 18  # letters, lines, around things (px)
LEFT, RIGHT = 324, 780  # columns: the picture, the views (px)
NUM_LINES = 7  # of a prompt or a segment


def main() -> None:
    folder = Path(__file__).resolve().parent
    for name, image in drawn().items():
        path = folder / f"{name}.png"
        image.save(path, optimize=True)
        print(f"{path}: {path.stat().st_size // 1000} kB")


def drawn() -> dict[str, Image.Image]:
    """Every picture by the name of its file."""
    strips = {name: strip(problem_picture(name, "nano"), problem_picture(name, "paper")) for name in TASKS}
    return {"problem": problem(task_at("table_readout", "nano"))} | strips


def task_at(name: str, scale: str) -> Task[Any]:
    settings = yaml.safe_load((conf_dir() / "scale" / f"{scale}.yaml").read_text())
    return load_task(name, structure(Scale, settings, "scale"))


def problem_picture(name: str, scale: str) -> Picture:
    task = task_at(name, scale)
    picture: Picture = task.draw(task.sample("hard", "train", 0).state)
    return picture


def strip(nano: Picture, paper: Picture) -> Image.Image:
    """Both pictures side by side on white, the upper edges aligned."""
    left = Image.fromarray(np.kron(nano, np.ones((3, 3, 1), np.uint8)))
    right = Image.fromarray(paper)
    right.thumbnail((WIDTH, HEIGHT), Image.Resampling.LANCZOS)
    whole = Image.new("RGB", (left.width + GAP + right.width, max(left.height, right.height)), "white")
    whole.paste(left, (0, 0))
    whole.paste(right, (left.width + GAP, 0))
    return whole.quantize(NUM_COLORS, dither=Image.Dither.NONE)


def problem(task: Task[Any]) -> Image.Image:
    """One problem: its picture, and what is asked and answered under each view, the response in coloured segments."""
    sampled = task.sample("simple", "train", 0)
    cards = [card(build_dialogue(task, sampled, view)) for view in VIEWS[:3]]  # those of the papers
    height = sum(image.height for image in cards) + MARGIN * (len(cards) + 1)
    whole = Image.new("RGB", (LEFT + RIGHT + MARGIN, height), PAPER)
    ink = ImageDraw.Draw(whole)
    picture = Image.fromarray(np.kron(task.draw(sampled.state), np.ones((2, 2, 1), np.uint8)))
    whole.paste(picture, (MARGIN, MARGIN))
    down = MARGIN + picture.height + MARGIN
    for words in ("One problem, as picture", "and as text. A response", "is made of segments:"):
        ink.text((MARGIN, down), words, fill=SOFT, font=font(SIZE))
        down += LEADING
    responses = [build_dialogue(task, sampled, view).response for view in VIEWS[:3]]
    shown = {segment.kind for response in responses for segment in response.segments}
    for kind, color in COLORS.items():
        if kind not in shown:
            continue
        down += 8
        ink.rounded_rectangle((MARGIN, down, MARGIN + 110, down + LEADING + 4), 4, fill=color)
        ink.text((MARGIN + 10, down + 3), kind, fill=INK, font=font(SIZE))
        down += LEADING
    down = MARGIN
    for image in cards:
        whole.paste(image, (LEFT, down))
        down += image.height + MARGIN
    return whole.quantize(NUM_COLORS, dither=Image.Dither.NONE)


def card(dialogue: Dialogue) -> Image.Image:
    """A view: its name, the prompt (with the picture, small, where it is shown), the response in colours."""
    rows = [
        [(f"view: {dialogue.view}", None, True)],
        *([(line, None, False)] for line in _lines(dialogue.prompt, with_picture=dialogue.image is not None)),
        *_coloured(dialogue),
    ]
    whole = Image.new("RGB", (RIGHT, LEADING * len(rows) + 2 * 12), PAPER)
    ink = ImageDraw.Draw(whole)
    ink.rounded_rectangle((0, 0, whole.width - 1, whole.height - 1), 8, outline=LINE, width=2)
    for number, row in enumerate(rows):
        left, top = MARGIN, 12 + number * LEADING
        for words, color, bold in row:
            face = font(SIZE, bold)
            right = left + face.getlength(words)
            if color:
                ink.rectangle((left - 3, top, right + 3, top + LEADING - 1), fill=color)
            ink.text((left, top + 1), words, fill=INK if color or bold else SOFT, font=face)
            left = int(right) + 7
    return whole


def _lines(prompt: str, with_picture: bool) -> Iterator[str]:
    lines = _cut(prompt)
    yield from ([f"[picture]  {lines[0]}", *lines[1:]] if with_picture else lines)


def _cut(text: str) -> list[str]:
    """The lines of a text, of many the first and the last ones."""
    lines = text.rstrip("\n").split("\n")
    return lines if len(lines) <= NUM_LINES else [*lines[: NUM_LINES - 3], "...", *lines[-2:]]


def _coloured(dialogue: Dialogue) -> Iterator[list[tuple[str, str, bool]]]:
    """The rows of a response: (words, colour, bold) each; a new row where the text has one."""
    row: list[tuple[str, str, bool]] = []
    for segment in dialogue.response.segments:
        for number, line in enumerate(_cut(segment.text)):
            if number:
                yield row
                row = []
            row.append((line.strip(), COLORS[segment.kind], False))
        if segment.text.endswith("\n"):
            yield row
            row = []
    if row:
        yield row


if __name__ == "__main__":
    main()
