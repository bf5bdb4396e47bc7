"""The report of a study as one HTML page: ledger, artifacts, examples, runs, each cell leading to the runs behind it.

Nothing is loaded from anywhere, and the page reads without its script, which only sorts the list of runs. Records are
text from outside: whatever comes from them is escaped.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from typing import get_args

from PIL import Image

from vlmreason.report import ledger, writing
from vlmreason.report.pages import answers, markup, study_style
from vlmreason.report.pages.content import Artifact, Report, Run, seeds_and_runs
from vlmreason.report.pages.examples import Example
from vlmreason.studies import claims
from vlmreason.studies.experiment import PaperNumber
from vlmreason.studies.results import CellResult

_VERDICTS = get_args(claims.Judgement)
_PIXELS_PER_INCH = 120  # of figures on the page


def page(report: Report) -> str:
    """Return the page. Raises OSError where a picture cannot be read."""
    sections = (
        _ledger(report),
        f'<section id="artifacts"><h2>Tables and figures</h2>{"".join(_artifact(a, report) for a in report.artifacts)}'
        "</section>",
        _examples(report.examples),
        _runs(report),
        _passed_over(report),
    )
    body = f'<div class="layout">\n{_toc(report)}\n{_header(report)}<main>\n{"".join(sections)}</main>\n</div>\n'
    return markup.document(f"{report.study.title} ({report.scale})", study_style.STYLE, body, study_style.SCRIPT)


def _header(report: Report) -> str:
    missing = sum(artifact.num_missing for artifact in report.artifacts)
    complete = sum(artifact.state == "complete" for artifact in report.artifacts)
    tiles = [
        (f"{complete} of {len(report.artifacts)}", "tables and figures complete"),
        (str(len(report.runs)), "runs behind them"),
        (f"{missing}", "values still missing"),
        (f"{report.hours:.1f} h", "of training, all runs together"),
    ]
    facts = [
        ("Scale", escape(report.scale)),
        ("Source", _source(report.study.source)),
        ("Made", f"{escape(report.time)} by code version <code>{escape(report.version)}</code>"),
        ("Runs by version", _counted(report.commits, code=True)),
        ("Runs by machine", _counted(report.machines)),
        ("Make it again", f"<code>vlmreason report study={escape(report.name)} scale={escape(report.scale)}</code>"),
    ]
    shown = "".join(f"<div class=tile><b>{value}</b><span>{what}</span></div>" for value, what in tiles)
    return (
        f"<header><h1>{escape(report.study.title)}</h1>"
        '<p class="soft">Every table, figure and claim of the study, from this project\'s own runs at the '
        f"{escape(report.scale)} scale. Numbers are means over runs with 95 % intervals over seeds and problems; those "
        "of the paper stand beside them and come from other models and sizes. What no run has shown yet is listed, not "
        f'left blank.</p><div class="tiles">{shown}</div>{_facts(facts)}</header>\n'
    )


def _facts(facts: Iterable[tuple[str, str]]) -> str:
    return f'<dl class="facts">{"".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts)}</dl>'


def _counted(items: Sequence[tuple[str, int]], code: bool = False) -> str:
    shown = [f"<code>{escape(word)}</code>" if code else escape(word) for word, _ in items]
    return "; ".join(f"{word} ({num})" for word, (_, num) in zip(shown, items, strict=True)) or "none"


def _source(text: str) -> str:
    """The study's source, where it is one of arXiv's as a link."""
    number = re.search(r"\d{4}\.\d{4,5}", text)
    if not number or "arxiv" not in text.lower():
        return escape(text)
    return f'<a href="https://arxiv.org/abs/{number.group()}" rel="noreferrer">{escape(text)}</a>'


def _toc(report: Report) -> str:
    artifacts = "".join(
        f'<a href="#{escape(a.name)}" title="{escape(a.result.experiment.title)}"><span class="dot {a.state}"></span>'
        f"<span>{escape(a.label)}</span><span>{escape(a.result.experiment.title)}</span></a>"
        for a in report.artifacts
    )
    tasks = dict.fromkeys(example.task for example in report.examples)
    examples = "".join(f'<a href="#examples-{escape(task)}">{escape(_words(task))}</a>' for task in tasks)
    return (
        '<nav class="toc" aria-label="Contents"><strong><a href="#claims">Claims</a></strong>'
        f'<strong><a href="#artifacts">Tables and figures</a></strong><div class="sub">{artifacts}</div>'
        f'<strong><a href="#examples">Answers, right and wrong</a></strong>{examples}'
        '<strong><a href="#runs">Runs</a></strong></nav>'
    )


def _words(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _ledger(report: Report) -> str:
    """The claims, by the sections of the paper."""
    if not report.verdicts:
        return ""
    groups: dict[str, list[claims.Verdict]] = {}
    for verdict in report.verdicts:
        groups.setdefault(_place(verdict.claim.place.partition(",")[0]), []).append(verdict)
    rows = "".join(f"<h3>{escape(place)}</h3>{''.join(map(_claim, verdicts))}" for place, verdicts in groups.items())
    counts: Counter[str] = Counter(verdict.verdict for verdict in report.verdicts)
    bar = "".join(
        f'<span class="{_css(verdict)}" style="flex: {counts[verdict]}" title="{counts[verdict]} {verdict}"></span>'
        for verdict in _VERDICTS
        if counts[verdict]
    )
    return (
        f'<section id="claims"><h2>Claims</h2><div class="bar">{bar}</div><p><strong>'
        f"{escape(ledger.counts(report.verdicts))}</strong> A claim holds where the 95 % interval of its effect lies "
        "on the claimed side, fails where it lies on the other, and is not decided in between; claims are judged one "
        "by one, without a correction for their number. Effects are percentage points where the measure is a share. "
        f'Size: seeds x problems.</p><div class="card claims">{rows}</div></section>\n'
    )


def _claim(verdict: claims.Verdict) -> str:
    claim, deciding, several = verdict.claim, verdict.deciding, len(verdict.contrasts) > 1
    contrasts = _list(
        f"{_badge(judged.verdict)} {escape(_contrast(judged.contrast))}: {escape(ledger.shown_effect(judged))}, "
        f"claimed {escape(ledger.shown_claimed(judged.contrast))}"
        for judged in verdict.contrasts
    )
    runs = "<br>".join(f'<a href="#{answers.anchor(run)}">{escape(run)}</a>' for run in verdict.runs)
    summary = f"{len(verdict.contrasts)} comparisons, {claim.hold} must hold" if several else "1 comparison"
    summary += f"; {len(verdict.runs)} runs"
    artifact = claim.experiment.rpartition("/")[2]
    said = [f'{escape(_place(claim.place))}, shown in <a href="#{escape(artifact)}">{escape(artifact)}</a>']
    said += [f"{len(verdict.missing)} values missing"] if verdict.missing else []
    said += [f"runs {escape('; '.join(verdict.marks))}"] if verdict.marks else []
    tried = f"<p><small>Tried: {escape(claim.tried)}</small></p>" if claim.tried else ""
    mean, _, interval = ledger.shown_effect(deciding).partition(" (")
    interval = f" <small>{escape(interval.rstrip(')'))}</small>" if interval else ""
    judged_by = [f"claimed {escape(ledger.shown_claimed(deciding.contrast))}"]
    judged_by += [f"size {escape(ledger.shown_size(deciding.effect))}"] if deciding.effect else []
    judged_by += [f"{'weakest' if claim.hold == 'all' else 'strongest'} of {len(verdict.contrasts)}"] * several
    return (
        f'<div class="claim" id="claim-{escape(claim.id)}"><div>{_badge(verdict.verdict)}</div><div>'
        f"<p>{escape(claim.text)}</p><p><small>{'; '.join(said)}</small></p>{tried}"
        f"<details><summary>{summary}</summary>{contrasts}<small>{runs}</small></details></div>"
        f'<div class="effect"><b>{escape(mean)}</b>{interval}<br><small>{"; ".join(judged_by)}</small></div></div>\n'
    )


def _linked_badge(verdict: claims.Verdict) -> str:
    link = f'href="#claim-{escape(verdict.claim.id)}" title="{escape(verdict.claim.text)}"'
    return f'<a class="by-claim" {link}>{_badge(verdict.verdict)}</a>'


def _badge(verdict: str) -> str:
    return f'<span class="badge {_css(verdict)}">{verdict}</span>'


def _css(verdict: str) -> str:
    return verdict.replace(" ", "_")


def _contrast(contrast: claims.Contrast) -> str:
    """`Mix+, last above Mix, last`, `Text below 25`."""
    right = f"{contrast.bound:g}" if contrast.right is None else _side(contrast.right)
    return f"{_side(contrast.left)} {contrast.relation} {right}"


def _side(side: claims.Side) -> str:
    named = (value if isinstance(value, tuple) else (value,) for value in (side.series, side.panel, side.x))
    return ", ".join(" and ".join(map(str, values)) for values in named if values != (None,)) or "the value"


def _artifact(artifact: Artifact, report: Report) -> str:
    result, experiment = artifact.result, artifact.result.experiment
    placed, others = artifact.paper()
    figure = "<p class=none>Nothing to draw yet.</p>"
    if artifact.picture:
        alt = f"{artifact.label}: {experiment.title}"
        figure = f'<div class="figure">{_picture(artifact.picture.read_bytes(), alt)}</div>'
    if artifact.picture and experiment.draw == "table":
        figure = f"<details><summary>As a picture</summary>{figure}</details>"
    shown = (_table(artifact, placed), figure) if experiment.draw == "table" else (figure, _table(artifact, placed))
    scale = "" if report.scale == "nano" else f" scale={report.scale}"
    commands = (("Draw", "figure"), ("Make the runs", "sweep"))
    facts = [("The paper", escape(experiment.expected))]
    judged = [verdict for verdict in report.verdicts if verdict.claim.experiment == result.name]
    if judged:
        facts.append(("Claims", "".join(map(_linked_badge, judged))))
    facts += [("Cost", escape(getattr(experiment.cost, report.scale, experiment.cost.nano)))]
    facts += [(what, f"<code>vlmreason {command} experiment={escape(result.name)}{scale}</code>")
              for what, command in commands]  # fmt: skip
    notes = [escape(note) for note in result.notes]
    notes += [f"The paper: {escape(_number(number))}." for number in others]
    return (
        f'<article class="card" id="{escape(artifact.name)}"><div class="eyebrow">'
        f"<span>{escape(_place(experiment.place))}</span>{_state(artifact)}</div><h3>{escape(experiment.title)}</h3>"
        f"{''.join(shown)}{_facts(facts)}{_list(notes)}{_missing(artifact, scale)}</article>\n"
    )


def _picture(png: bytes, alt: str) -> str:
    """A figure in the size of its print, so that its letters are about as large as those of the page."""
    with Image.open(io.BytesIO(png)) as opened:
        (width, height), dpi = opened.size, opened.info.get("dpi", (160, 160))[0]
    shown = round(width * _PIXELS_PER_INCH / dpi)
    return markup.image(png, alt, f' width="{shown}" height="{round(shown * height / width)}"')


def _place(place: str) -> str:
    return place[:1].upper() + place[1:]


def _state(artifact: Artifact) -> str:
    words = {
        "complete": f"complete, {artifact.result.num_runs} runs",
        "partial": f"{artifact.num_missing} of {artifact.num_missing + artifact.num_values} values missing",
        "empty": "no runs yet" if artifact.num_missing else "the paper's numbers alone",
    }
    return f'<span class="badge {artifact.state}">{words[artifact.state]}</span>'


def _number(number: PaperNumber) -> str:
    where = [word for word in (number.panel, number.series, "" if number.x is None else str(number.x)) if word]
    return f"{', '.join(where)}{': ' * bool(where)}{number.value:g} ({number.place})"


def _list(items: Iterable[str]) -> str:
    lines = "".join(f"<li>{item}</li>" for item in items)
    return f"<ul>{lines}</ul>" if lines else ""


def _missing(artifact: Artifact, scale: str) -> str:
    """What is missing, folded away: complete studies are long."""
    lines = [f"{escape(place)} <span class=soft>({escape(why)})</span>" for place, why in artifact.missing()]
    if not lines:
        return ""
    return (
        f"<details><summary>{artifact.num_missing} missing values</summary><p>Made by "
        f"<code>vlmreason sweep experiment={escape(artifact.result.name)}{scale}</code></p>"
        f'<div class="missing">{_list(lines)}</div></details>'
    )


def _table(artifact: Artifact, placed: dict[tuple[str, str, str], PaperNumber]) -> str:
    """One row per series, one column per panel and place."""
    experiment = artifact.result.experiment
    places = [place.label for place in experiment.x.places()]
    groups = "".join(
        f'<th class="group first" colspan="{len(places)}">{escape(panel.label)}</th>' for panel in experiment.panels
    )
    columns = [(panel.label, place) for panel in experiment.panels for place in places]
    heads = "".join(f"<th{_first(place, places)}>{escape(place)}</th>" for _, place in columns)
    rows = "".join(
        f"<tr><th>{escape(entry.label or 'value')}</th>"
        + "".join(
            _cell(artifact.result.cell(panel, entry.label, place), placed.get((panel, entry.label, place)),
                  _first(place, places))
            for panel, place in columns
        )
        + "</tr>"
        for entry in experiment.series
    )  # fmt: skip
    has_panels = any(panel.label for panel in experiment.panels)
    corner = f"<th>{escape(experiment.x.label)}</th>"
    head = f"<tr><th></th>{groups}</tr>" if has_panels else ""
    head += f"<tr>{corner}{heads}</tr>" if any(places) else ""
    unit = f'<p class="soft">{escape(experiment.y_label)}</p>' if experiment.y_label else ""
    return f'<div class="scroll">{unit}<table class="numbers"><thead>{head}</thead><tbody>{rows}</tbody></table></div>'


def _first(place: str, places: Sequence[str]) -> str:
    return ' class="first"' if place == places[0] else ""


def _cell(cell: CellResult | None, paper: PaperNumber | None, attributes: str) -> str:
    if cell is None:
        return f"<td{attributes}></td>"
    beside = f"<small class=paper title='{escape(paper.place)}'>paper {paper.value:g}</small>" if paper else ""
    if not cell.cell.seeds and not cell.estimate:
        return f'<td{attributes} title="no run is made for it at this scale"><span class=none>-</span>{beside}</td>'
    if cell.estimate is None and not cell.curves:
        why = "; ".join(dict.fromkeys(missing.reason for missing in cell.missing))
        return f'<td{attributes} title="{escape(why)}"><span class=none>missing</span>{beside}</td>'
    shown = writing.number(cell.estimate, cell.cell.measure) if cell.estimate else writing.shown(cell)
    value, _, interval = shown.partition(" ")
    runs = seeds_and_runs(cell)
    links = " ".join(f'<a href="#{answers.anchor(run)}" title="{escape(run)}">{seed}</a>' for seed, run in runs)
    by = f"<small class=by>seed {links}</small>" if links else ""
    marks = f"<small>{escape('; '.join(cell.marks))}</small>" if cell.marks else ""
    if cell.missing:
        marks += f"<small>{len(cell.missing)} of {len(cell.missing) + len(runs)} missing</small>"
    inside = f"<b>{escape(value)}</b><small>{escape(interval.strip('()'))}</small>{beside}{by}{marks}"
    return f'<td{attributes} title="{escape(", ".join(run for _, run in runs))}">{inside}</td>'


def _examples(examples: Sequence[Example]) -> str:
    if not examples:
        return ""
    tasks = dict.fromkeys(example.task for example in examples)
    responses = [response for example in examples for response in example.expected.values()]
    key = markup.key(responses + [answer.response for example in examples for answer in example.answers])
    shown = "".join(
        f'<h3 id="examples-{escape(task)}">{escape(_words(task))}</h3>'
        + "".join(answers.card(example) for example in examples if example.task == task)
        for task in tasks
    )
    return (
        '<section id="examples"><h2>Answers, right and wrong</h2><p>A few problems of every task, and what one run of '
        "each strategy answered where its record keeps the response. The first word that is not the expected one is "
        "marked: <mark>so</mark> in a wrong answer, <span class=else><mark>so</mark></span> in one that is right all "
        f"the same. Colours are the segments of a response:</p><p class=key>{key}</p>{shown}</section>\n"
    )


def _runs(report: Report) -> str:
    columns = [("run", "word"), ("task", "word"), ("strategy", "word"), ("seed", "number"), ("examples", "number")]
    columns += [(f"{level}, {answers.in_words(view)} (%)", "number") for level, view in report.evaluated]
    columns += [("seconds", "number"), ("machine", "word"), ("code", "word"), ("when", "word"), ("used by", "word")]
    columns += [("other settings", "word"), ("measured later", "word"), ("directory", "word")]
    heads = "".join(f'<th scope="col" class="{kind}" data-sort="{kind}">{escape(name)}</th>' for name, kind in columns)
    rows = "".join(f'<tr id="{answers.anchor(run.name)}">{"".join(_row(run, report))}</tr>' for run in report.runs)
    if not rows:
        return '<section id="runs"><h2>Runs</h2><p class=none>There are none yet.</p></section>\n'
    return (
        '<section id="runs"><h2>Runs</h2><p>Accuracy is that of the final model on its own task. Settings are named '
        "where a run is not as most of its task and strategy are. A click on a head sorts.</p>"
        f'<div class="scroll card"><table class="runs"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>'
        "</div></section>\n"
    )


def _row(run: Run, report: Report) -> Iterator[str]:
    yield f'<th title="{escape(run.name)}"><code>{escape(run.name.rpartition("-")[2])}</code></th>'
    yield f'<td class="word">{escape(run.task)}</td><td class="word">{escape(run.strategy)}</td>'
    yield f"<td>{run.seed}</td><td>{run.num_examples}</td>"
    for place in report.evaluated:
        found = run.accuracy.get(place)
        if found is None:
            yield '<td data-value=""></td>'
        else:
            share, low, high, num = (100 * found[0], 100 * found[1], 100 * found[2], found[3])
            yield f'<td data-value="{share:.4f}" title="{low:.1f} to {high:.1f}, {num} problems">{share:.1f}</td>'
    seconds = "" if run.seconds is None else f"{run.seconds:.0f}"
    yield f'<td data-value="{seconds}">{seconds}</td><td class="word">{escape(run.machine)}</td>'
    yield f'<td class="word"><code>{escape(run.commit)}</code></td><td class="word">{escape(run.time)}</td>'
    links = " ".join(f'<a href="#{escape(name)}">{escape(name)}</a>' for name in run.used_by)
    yield f'<td class="word settings">{links}</td><td class="word settings">{escape(run.settings)}</td>'
    yield f'<td class="word settings">{escape(", ".join(run.later))}</td>'
    yield f'<td class="word"><code>{escape(run.name)}</code></td>'


def _passed_over(report: Report) -> str:
    faults = _list(escape(fault) for fault in report.faults)
    others = _list(f"<code>{escape(name)}</code>" for name in report.others)
    shown = f"<h2>Damaged and passed over</h2>{faults}" if faults else ""
    if others:
        shown += (
            f"<details><summary>{len(report.others)} further runs, which nothing here uses</summary>{others}</details>"
        )
    return f'<section id="passed-over">{shown}</section>\n' if shown else ""
