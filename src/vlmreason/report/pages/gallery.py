"""Pages with examples of tasks: one in HTML for all levels and views, one in Markdown for a first look.

The HTML page shows picture, prompts, text form, and the response of every view; it is self-contained (pictures as
base64 PNG, no script) and everything on it is escaped. The Markdown page shows one problem of each task, with its
picture in a file.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from vlmreason.dialogue.build import build_dialogue
from vlmreason.pictures import Picture, png_bytes
from vlmreason.report.pages import markup
from vlmreason.segments import VIEWS
from vlmreason.tasks.base import Problem, Task

_VIEW_TITLES = {
    "text": "text: the problem as text",
    "image": "image: the problem as a picture",
    "image_via_text": "image via text: a picture, written as text first",
    "both": "both: a picture and its text form in one prompt",
}

ENLARGED = 2  # a pixel of a problem is so many in the files of the Markdown page
NUM_LINES = 8  # of a prompt or a segment there; more are cut
WIDTH = 88  # characters of a line there

_STYLE = """
main, header { max-width: 1240px; margin: 0 auto; padding: 0 24px; }
header { padding-top: 32px; }
nav a { margin-right: 16px; }
.views .soft { margin: 10px 0 4px; font-size: 13px; }
.id { font: 12px/1.4 "DejaVu Sans Mono", monospace; color: var(--soft); }
.problem { margin: 0 0 20px; padding: 16px;
  background: var(--card); border: 1px solid var(--line); border-radius: 8px; }
.top { display: flex; justify-content: space-between; gap: 16px; margin-bottom: 12px; align-items: baseline; }
.given { display: grid; grid-template-columns: minmax(0, var(--shown)) minmax(0, 1fr); gap: 20px; margin-bottom: 16px; }
.given img { width: 100%; max-height: 460px; object-fit: contain; object-position: left top;
  image-rendering: var(--rendering, auto); border: 1px solid var(--line); background: #fff; }
.views { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 16px; }
@media (max-width: 900px) { .given, .views { grid-template-columns: minmax(0, 1fr); } }
"""


def page(tasks: Sequence[Task[Any]], scale: str, split: str, first: int, num: int) -> str:
    """Return the page: `num` problems from index `first` on, of every level of every task. Raises ValueError."""
    if num < 1:
        raise ValueError(f"num={num}: 1 or more is expected")
    shown = [(task, _problems(task, split, first, num)) for task in tasks]
    links = "".join(f'<a href="#{escape(task.name)}">{escape(task.name)}</a>' for task in tasks)
    sections = "".join(_task(task, scale, problems) for task, problems in shown)
    found = ((task, problem) for task, problems in shown for problem in problems)
    key = markup.key(
        task.response(problem.state, view) for task, problem in found for view in task.shown(problem.level, VIEWS)
    )
    body = (
        f"<header><h1>vlmreason gallery</h1><p class=soft>Sizes: {escape(scale)}. Split: {escape(split)}.</p>"
        f"<p class=key>A response is made of segments: {key}</p><nav>{links}</nav></header>\n"
        f"<main>\n{sections}</main>\n"
    )
    return markup.document("vlmreason gallery", _STYLE, body)


def _problems(task: Task[Any], split: str, first: int, num: int) -> list[Problem[Any]]:
    """Make `num` problems of every level from index `first` on, or those that there are."""
    places = ((level, index) for level in task.levels for index in task.first(level, split, first + num)[first:])
    return [task.sample(level, split, index) for level, index in places]


def _task(task: Task[Any], scale: str, problems: Sequence[Problem[Any]]) -> str:
    shown = "".join(_problem(task, problem, scale) for problem in problems)
    return f'<section>\n<h2 id="{escape(task.name)}">{escape(task.name)}</h2>\n{shown}</section>\n'


def _problem(task: Task[Any], problem: Problem[Any], scale: str) -> str:
    shown, picture = _picture(task, problem)
    views = "".join(_view(task, problem, view) for view in task.shown(problem.level, VIEWS))
    return (
        f'<article class="problem">\n<div class="top"><h3>{escape(problem.level)}</h3>'
        f'<span class="id">{escape(problem.id)}</span></div>\n<div class="given" style="--shown: {shown}px">'
        f"<div>{picture}</div><div><h4>Text form</h4><pre>{escape(task.text(problem.state))}</pre></div></div>\n"
        f'<div class="views">{views}</div>\n</article>\n'
    )


def _picture(task: Task[Any], problem: Problem[Any]) -> tuple[int, str]:
    """How wide the picture is shown (px), and its markup."""
    if problem.level in task.text_only:
        return 420, "<h4>No picture: of text alone</h4>"
    picture = task.draw(problem.state)
    height, width = picture.shape[:2]
    enlarged = width < 420  # nano pictures are shown larger than they are, pixel by pixel
    rendering = ' style="--rendering: pixelated"' if enlarged else ""
    image = markup.image(png_bytes(picture), problem.id, rendering)
    return (420 if enlarged or width < 1.5 * height else 640), f"<h4>Picture ({width} x {height} px)</h4>{image}"


def _view(task: Task[Any], problem: Problem[Any], view: str) -> str:
    dialogue = build_dialogue(task, problem, view)
    return (
        f"<div><h4>{escape(_VIEW_TITLES[view])}</h4><p class=soft>Prompt</p><pre>{escape(dialogue.prompt)}</pre>"
        f"<p class=soft>Response</p><pre>{markup.response(dialogue.response)}</pre></div>"
    )


@dataclass(frozen=True)
class Entry:
    """A task by the name of its file in conf/, with the view that it is shown under."""

    name: str
    task: Task[Any]
    view: str
    file: str


def markdown(entries: Sequence[Entry], scale: str, split: str, index: int, pictures: str) -> str:
    """Write the Markdown page: one problem per entry, of its first level with a picture; these lie in `pictures`."""
    parts = [_INTRODUCTION.format(scale=scale)]
    for entry in entries:
        task, problem = entry.task, _shown(entry, split, index)
        dialogue = build_dialogue(task, problem, entry.view)
        levels = ", ".join(f"`{level}`" for level in task.levels)
        parts.append(
            f"## {entry.name}\n\nLevels: {levels}; here `{problem.level}`. Settings: [{entry.file}]({entry.file}).\n"
        )
        if dialogue.image is not None:
            parts.append(f"![{problem.id}]({pictures}/{entry.name}.png)\n")
        named = [
            ("prompt", dialogue.prompt),
            *((f"{part.kind} {part.label}".strip(), part.text) for part in dialogue.response.segments),
        ]
        margin = max(len(name) for name, _ in named)
        lines = [line for name, text in named for line in _named(name.ljust(margin), text)]
        parts.append("\n".join(["```text", *lines, "```\n"]))
    return "\n".join(parts)


def pictures(entries: Sequence[Entry], split: str, index: int) -> dict[str, Picture]:
    """Draw the pictures of the Markdown page, by the entry's name."""
    return {
        entry.name: np.kron(entry.task.draw(_shown(entry, split, index).state), _PIXEL)
        for entry in entries
        if entry.view != "text"
    }


_PIXEL = np.ones((ENLARGED, ENLARGED, 1), np.uint8)
_INTRODUCTION = """# Gallery

One problem of every task and environment at `scale={scale}`: the picture as the model gets it (enlarged), the prompt,
and the response with its segments named; long ones are cut. Those that read files of the user's are not shown.
`vlmreason gallery` writes a page with all levels and views.
"""


def _shown(entry: Entry, split: str, index: int) -> Problem[Any]:
    pictured = next(level for level in entry.task.levels if level not in entry.task.text_only)
    return entry.task.sample(pictured, split, index)


def _named(name: str, text: str) -> Iterator[str]:
    """The lines of a text behind its name, wrapped and cut."""
    lines = [part for line in text.rstrip("\n").split("\n") for part in textwrap.wrap(line, WIDTH) or [""]]
    cut = [*lines[: NUM_LINES - 1], "..."] if len(lines) > NUM_LINES else lines
    for number, line in enumerate(cut):
        yield f"{name if number == 0 else ' ' * len(name)} | {line}".rstrip()
