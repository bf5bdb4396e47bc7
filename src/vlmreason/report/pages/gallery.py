"""One HTML page with examples of tasks: picture, prompts, text form, and the response of every view.

The page is self-contained (pictures as base64 PNG, no script) and everything on it is escaped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

from vlmreason.dialogue.build import build_dialogue
from vlmreason.pictures import png_bytes
from vlmreason.report.pages import markup
from vlmreason.segments import VIEWS, Response
from vlmreason.tasks.base import Problem, Task

_VIEW_TITLES = {
    "text": "text: the problem as text",
    "image": "image: the problem as a picture",
    "image_via_text": "image via text: a picture, written as text first",
}

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
.views { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 16px; }
@media (max-width: 900px) { .given, .views { grid-template-columns: minmax(0, 1fr); } }
"""


def page(tasks: Sequence[Task[Any]], scale: str, split: str, first: int, num: int) -> str:
    """The page: `num` problems from index `first` on, of every level of every task. Raises ValueError."""
    if num < 1:
        raise ValueError(f"num={num}: 1 or more is expected")
    indices = range(first, first + num)
    links = "".join(f'<a href="#{escape(task.name)}">{escape(task.name)}</a>' for task in tasks)
    sections = "".join(_task(task, scale, split, indices) for task in tasks)
    key = markup.key(_responses(tasks, split, indices))
    body = (
        f"<header><h1>vlmreason gallery</h1><p class=soft>Sizes: {escape(scale)}. Split: {escape(split)}.</p>"
        f"<p class=key>A response is made of segments: {key}</p><nav>{links}</nav></header>\n"
        f"<main>\n{sections}</main>\n"
    )
    return markup.document("vlmreason gallery", _STYLE, body)


def _responses(tasks: Sequence[Task[Any]], split: str, indices: range) -> Iterator[Response]:
    for task in tasks:
        states = (task.sample(level, split, index).state for level in task.levels for index in indices)
        yield from (task.response(state, view) for state in states for view in VIEWS)


def _task(task: Task[Any], scale: str, split: str, indices: range) -> str:
    problems = [_problem(task, task.sample(level, split, index), scale) for level in task.levels for index in indices]
    return f'<section>\n<h2 id="{escape(task.name)}">{escape(task.name)}</h2>\n{"".join(problems)}</section>\n'


def _problem(task: Task[Any], problem: Problem[Any], scale: str) -> str:
    state = problem.state
    picture = task.draw(state)
    height, width = picture.shape[:2]
    enlarged = width < 420  # nano pictures are shown larger than they are, pixel by pixel
    rendering = ' style="--rendering: pixelated"' if enlarged else ""
    shown = 420 if enlarged or width < 1.5 * height else 640
    views = "".join(_view(task, problem, view) for view in VIEWS)
    return (
        f'<article class="problem">\n<div class="top"><h3>{escape(problem.level)}</h3>'
        f'<span class="id">{escape(problem.id)}</span></div>\n<div class="given" style="--shown: {shown}px">'
        f"<div><h4>Picture ({width} x {height} px)</h4>"
        f"{markup.image(png_bytes(picture), problem.id, rendering)}</div>"
        f"<div><h4>Text form</h4><pre>{escape(task.text(state))}</pre></div></div>\n"
        f'<div class="views">{views}</div>\n</article>\n'
    )


def _view(task: Task[Any], problem: Problem[Any], view: str) -> str:
    dialogue = build_dialogue(task, problem, view)
    return (
        f"<div><h4>{escape(_VIEW_TITLES[view])}</h4><p class=soft>Prompt</p><pre>{escape(dialogue.prompt)}</pre>"
        f"<p class=soft>Response</p><pre>{markup.response(dialogue.response)}</pre></div>"
    )
