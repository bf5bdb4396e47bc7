"""Problems with the answers to them, right and wrong, as cards of a page.

Who answered is a link to the place of the run in the page. Whatever comes from a model or a record is escaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape

from vlmreason.report.pages import markup
from vlmreason.report.pages.content import rank
from vlmreason.report.pages.examples import Answer, Example
from vlmreason.segments import VIEWS


def anchor(run: str) -> str:
    """Return the place of a run in the page."""
    return "run-" + re.sub(r"[^\w.-]", "_", run, flags=re.ASCII)


def card(example: Example) -> str:
    """Return a problem with the answers to it."""
    head = f'<div class="eyebrow"><span>{escape(example.level)}</span><span>{escape(example.id)}</span></div>'
    answers = f'<div class="answers">{"".join(_pairs(example))}</div>'
    if example.note:
        note = f"<p class=soft>The problem is {escape(example.note)}</p>"
        return f'<article class="card">{head}{note}{answers}</article>\n'
    rendering = ' style="--rendering: pixelated"' if example.size[0] < 420 else ""
    given = "".join(f"<h4>Prompt, {escape(in_words(v))}</h4><pre>{escape(p)}</pre>" for v, p in example.prompts.items())
    expected = "".join(
        f"<pre>{markup.response(response)}</pre>" for response in dict.fromkeys(example.expected.values())
    )
    return (
        f'<article class="card">{head}<div class="given"><div>{markup.image(example.picture, example.id, rendering)}'
        f"</div><div>{given}<h4>Expected response</h4>{expected}</div></div>{answers}</article>\n"
    )


def _pairs(example: Example) -> Iterator[str]:
    """Answers, a line for each strategy, a column for each view."""
    views = sorted({answer.view for answer in example.answers}, key=lambda view: (rank(VIEWS, view), view))
    for strategy in dict.fromkeys(answer.strategy for answer in example.answers):
        for view in views:
            found = [answer for answer in example.answers if (answer.strategy, answer.view) == (strategy, view)]
            yield "".join(map(_answer, found)) or "<div></div>"


def in_words(view: str) -> str:
    """Return `image via text` of `image_via_text`."""
    return view.replace("_", " ")


def _answer(answer: Answer) -> str:
    verdict = "right" if answer.right else "wrong"
    ends = f" <mark>ends here, expected: {escape(answer.missing)}</mark>" if answer.missing is not None else ""
    run = f'<a href="#{anchor(answer.run)}" title="{escape(answer.run)}">{escape(answer.strategy)}</a>'
    said = f'<span class="soft said">{escape(answer.said)}</span>' if answer.said else ""
    return (
        f'<div><p><span class="badge {verdict}">{verdict}</span>{run}<span class=soft>on '
        f"{escape(in_words(answer.view))}</span>{said}</p><pre{' class=else' if answer.right else ''}>"
        f"{markup.response(answer.response, answer.mark)}{ends}</pre></div>"
    )
