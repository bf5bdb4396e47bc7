"""Several runs on the same problems as one HTML page: how they differ in numbers, and their answers side by side.

Nothing is loaded from anywhere. Whatever comes from a run or a record is escaped.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from html import escape

from vlmreason.report.pages import answers, markup, study_style
from vlmreason.report.pages.examples import Example


def page(
    runs: Sequence[tuple[str, str]], header: Sequence[str], rows: Sequence[Sequence[str]], examples: Sequence[Example]
) -> str:
    """Return the page. runs: the letter of each and its name. header, rows: of the table of differences."""
    legend = "".join(
        f'<dt><b>{escape(letter)}</b></dt><dd id="{answers.anchor(name)}"><code>{escape(name)}</code></dd>'
        for letter, name in runs
    )
    heads = "".join(f"<th>{escape(word)}</th>" for word in header)
    lines = "".join(f"<tr>{_cells(row)}</tr>" for row in rows)
    responses = [response for example in examples for response in example.expected.values()]
    key = markup.key(responses + [answer.response for example in examples for answer in example.answers])
    shown = "".join(
        f"<h3>{escape(place)}</h3>{''.join(map(answers.card, group))}"
        for place, group in itertools.groupby(examples, _place)
    )
    title = f"{' and '.join(letter for letter, _ in runs)}, on the same problems"
    body = (
        f'<div class="single"><header><h1>{escape(title)}</h1>'
        f'<dl class="facts">{legend}</dl></header><main>'
        '<p class="soft">Each run against the first: the difference of both shares in points, with Newcombe\'s 95 % '
        "interval for pairs; problems that only the first (lost) or only the second (gained) has right; p of "
        "McNemar's exact test. The problems are drawn, the runs are not: nothing is said about other seeds.</p>"
        f'<div class="scroll card"><table class="numbers"><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table>'
        "</div>"
    )
    if examples:
        body += (
            '<section id="examples"><h2>Where they differ</h2><p>Problems that one has right and another one '
            "wrong. The first word that is not the expected one is marked: <mark>so</mark> in a wrong answer, "
            '<span class="else"><mark>so</mark></span> in one that is right all the same.</p>'
            f'<p class="key">{key}</p>{shown}</section>'
        )
    else:
        body += "<p class=none>No problem that they differ on has responses of all of them.</p>"
    style = study_style.STYLE + ".single { max-width: 1240px; margin: 0 auto; padding: 0 16px 60px; }\n"
    style += ".single td { white-space: nowrap; }\n"
    return markup.document(title, style, f"{body}</main></div>\n")


def _cells(row: Sequence[str]) -> str:
    level, view, *numbers = map(escape, row)
    return f'<th>{level}</th><td class="word">{view}</td>' + "".join(f"<td>{number}</td>" for number in numbers)


def _place(example: Example) -> str:
    """The level and the view of a problem that was asked in one view."""
    return f"{example.level}, {answers.in_words(next(iter(example.prompts)))}"
