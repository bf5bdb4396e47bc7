"""The report of a study as Markdown, with its pictures as files beside it: for a repository or a paper's notes.

Text from records stands in code, where nothing of it is markup.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

from vlmreason.report import ledger, writing
from vlmreason.report.pages.content import Artifact, Report
from vlmreason.report.pages.examples import Answer, Example


def digest(report: Report, folder: Path, examples: Sequence[Path]) -> str:
    """Return the text, for a file in `folder`. `examples`: files of the examples' pictures, in their order."""
    missing = sum(artifact.num_missing for artifact in report.artifacts)
    complete = sum(artifact.state == "complete" for artifact in report.artifacts)
    lines = [
        f"# {report.study.title}", "",
        f"{report.study.source}; scale {report.scale}. {complete} of {len(report.artifacts)} tables and figures are "
        f"complete, {len(report.runs)} runs ({report.hours:.1f} h of training), {missing} values missing. Made "
        f"{report.time} by code version {code(report.version)}.", "",
        f"Runs by version: {_counted(report.commits)}. By machine: {_counted(report.machines)}.", "",
    ]  # fmt: skip
    if report.verdicts:
        lines += ["## Claims", "", *ledger.ledger(report.verdicts), ""]
    lines += ["## Tables and figures", ""]
    for artifact in report.artifacts:
        lines += _artifact(artifact, report.scale, folder)
    if report.examples:
        lines += ["## Answers, right and wrong", ""]
    for example, picture in zip(report.examples, examples, strict=True):
        lines += _example(example, _link(picture, folder))
    lines += ["## Runs", "", *_runs(report), ""]
    if report.faults:
        lines += ["## Damaged and passed over", "", *(f"- {code(fault)}" for fault in report.faults), ""]
    return "\n".join(lines)


def code(text: str) -> str:
    """Return text of any content as code within a line, or within a table."""
    plain = re.sub(r"[`|\s]+", " ", text).strip()
    return f"`{plain or ' '}`"


def block(text: str) -> list[str]:
    """Return text of any content as lines of code."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return [f"{fence}text", *text.splitlines(), fence]


def _counted(items: Sequence[tuple[str, int]]) -> str:
    return "; ".join(f"{code(word)} ({num})" for word, num in items) or "none"


def _link(path: Path, folder: Path) -> str:
    return quote(path.relative_to(folder).as_posix())


def _artifact(artifact: Artifact, scale: str, folder: Path) -> list[str]:
    result, experiment = artifact.result, artifact.result.experiment
    lines = [
        f"### {artifact.label}: {experiment.title}",
        "",
        f"{experiment.place} ({result.name}). The paper: {experiment.expected}",
        "",
    ]
    if artifact.picture:
        others = [f"[{path.suffix[1:]}]({_link(path, folder)})" for path in artifact.files if path != artifact.picture]
        lines += [f"![{experiment.title}]({_link(artifact.picture, folder)})", "", *others, ""]
    lines += [*writing.table(result), "", *(f"- {note}" for note in result.notes)]
    for number in experiment.paper:
        where = ", ".join(str(word) for word in (number.panel, number.series, number.x) if word not in ("", None))
        lines.append(f"- The paper{f', {where}' if where else ''}: {number.value:g} ({number.place}).")
    words = "" if scale == "nano" else f" scale={scale}"
    lines += [f"- Missing: {place} ({code(why)})." for place, why in artifact.missing()]
    if artifact.num_missing:
        lines.append(f"- What is missing is made by `vlmreason sweep experiment={result.name}{words}`.")
    return [*lines, ""]


def _example(example: Example, picture: str) -> Iterator[str]:
    yield from (f"### {example.task}, {example.level}: {code(example.id)}", "")
    if example.note:
        yield from (f"The problem is {code(example.note)}", "")
    else:
        yield from (f"![{example.id}]({picture})", "")
    for view, prompt in example.prompts.items():
        yield from (f"Prompt, {view}:", "", *block(prompt), "")
    for response in dict.fromkeys(example.expected.values()):
        yield from ("Expected:", "", *block(response.text), "")
    for answer in example.answers:
        yield from (f"{code(answer.strategy)} on {code(answer.view)}: {_said(answer)}", "")
        yield from (*block(answer.response.text), "")


def _said(answer: Answer) -> str:
    where = ""
    if answer.mark is not None:
        word = answer.response.text[slice(*answer.mark)]
        where = f", first unexpected word {code(word)} at character {answer.mark[0] + 1}"
    elif answer.missing is not None:
        where = f", ends where {code(answer.missing)} is expected"
    said = f"; {code(answer.said)}" if answer.said else ""
    return f"{'right' if answer.right else '**wrong**'}{where}{said} ({code(answer.run)})"


def _runs(report: Report) -> Iterator[str]:
    heads = ["run", "seed", "examples", *(f"{level} {view} (%)" for level, view in report.evaluated), "seconds"]
    heads += ["machine", "code", "used by", "other settings"]
    yield f"| {' | '.join(heads)} |"
    yield "|---" * len(heads) + "|"
    for run in report.runs:
        found = [run.accuracy.get(place) for place in report.evaluated]
        shares = [
            "" if one is None else f"{100 * one[0]:.1f} ({100 * one[1]:.1f} to {100 * one[2]:.1f})" for one in found
        ]
        seconds = "" if run.seconds is None else f"{run.seconds:.0f}"
        words = [code(run.name), str(run.seed), str(run.num_examples), *shares, seconds, code(run.machine)]
        words += [code(run.commit), ", ".join(run.used_by), code(run.settings) if run.settings else ""]
        yield f"| {' | '.join(words)} |"
