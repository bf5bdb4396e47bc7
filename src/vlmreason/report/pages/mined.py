"""Mined pairs of pictures as one HTML page: how many, against what random pairs are like, and the pairs side by side.

Nothing is loaded from anywhere, and names of files are escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from vlmreason.report.pages import markup, study_style

MAX_NAMED = 200  # duplicates, and files that are no pictures
_SIDE = 300  # of the drawing (px)

_STYLE = """
.single { max-width: 1320px; margin: 0 auto; padding: 0 20px 60px; }
.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(400px, 1fr)); gap: 18px; }
.pair { margin: 0; padding: 14px; }
.two { display: grid; grid-template-columns: 1fr 1fr; gap: 10px; }
.two figure { margin: 0; } .two figcaption { font-size: 12px; color: var(--soft); overflow-wrap: anywhere; }
.two img { width: 100%; height: 190px; object-fit: contain; background: #fff; border: 1px solid var(--line); }
.two img.small { image-rendering: pixelated; }
.cosine { display: grid; grid-template-columns: 150px 1fr 56px; gap: 10px; align-items: center; font-size: 13px;
  margin-top: 6px; }
.cosine span:first-child { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; color: var(--soft); }
.cosine span:last-child { text-align: right; font-variant-numeric: tabular-nums; }
.track { height: 9px; border-radius: 5px; background: var(--wash); overflow: hidden; }
.track i { display: block; height: 100%; background: var(--paper); } .track i.alike { background: var(--mark); }
.overview { display: flex; flex-wrap: wrap; gap: 28px; align-items: flex-start; }
svg text { fill: var(--soft); font-size: 11px; } svg circle { fill: var(--mark); opacity: .45; }
svg path { stroke: var(--line); fill: none; }
"""


@dataclass(frozen=True)
class Shown:
    """A pair on the page: names, cosines by the first and the second tower, pictures as PNG with their widths."""

    names: tuple[str, str]
    cosines: tuple[float, float]
    pictures: tuple[bytes, bytes]
    widths: tuple[int, int]


@dataclass(frozen=True)
class Facts:
    """What was searched: `random`: of each tower cosines of random pairs by quantile; `points`: cosines of kept
    pairs."""

    folder: str
    towers: tuple[str, str]
    thresholds: tuple[float, float]
    pictures: int
    found: int
    random: Sequence[Mapping[float, float]]
    points: Sequence[tuple[float, float]]
    duplicates: Sequence[tuple[str, str]]
    none: Sequence[tuple[str, str]]


def page(facts: Facts, pairs: Sequence[Shown]) -> str:
    """Return the page, with the pairs in the order in which they are given."""
    total = facts.pictures * (facts.pictures - 1) // 2
    share = f"{100 * facts.found / total:.3g} %" if total else "-"
    tiles = "".join(
        f'<div class="tile"><b>{value}</b><span>{words}</span></div>'
        for value, words in (
            (f"{facts.found:,}", "pairs found"), (share, f"of {total:,} pairs"),
            (f"{facts.pictures:,}", "different pictures"), (f"{len(facts.duplicates):,}", "duplicates"),
            (f"{len(facts.none):,}", "files that are no pictures"),
        )
    )  # fmt: skip
    alike, unlike = map(escape, facts.towers)
    cards = "".join(_card(facts.towers, one) for one in pairs)
    body = (
        f'<div class="single"><header><h1>Alike to one, different to the other</h1><p class="soft">Pairs of '
        f"<code>{escape(facts.folder)}</code> whose cosine is above {facts.thresholds[0]:.4g} by <b>{alike}</b> and "
        f"below {facts.thresholds[1]:.4g} by <b>{unlike}</b>: at least one of the two pictures is ambiguous to {alike}."
        f'</p><div class="tiles">{tiles}</div></header><main><section class="card overview">'
        f"<div><h3>Against random pairs</h3>{_quantiles(facts)}</div>"
        f"<div><h3>Pairs that were found</h3>{_drawing(facts)}</div></section>"
        f"<h2>{len(pairs)} pairs whose cosines differ most</h2>"
        + (f'<div class="pairs">{cards}</div>' if cards else '<p class="none">No pair is beyond both thresholds.</p>')
        + _named("Duplicates, counted with the first one of the same pixels", facts.duplicates)
        + _named("Files that are no pictures", facts.none)
    )
    return markup.document("Mined pairs", study_style.STYLE + _STYLE, f"{body}</main></div>\n")


def _card(towers: tuple[str, str], pair: Shown) -> str:
    figures = "".join(
        f"<figure>{markup.image(png, name, ' class=small' if width < 150 else '')}"
        f"<figcaption>{escape(name)}</figcaption></figure>"
        for name, png, width in zip(pair.names, pair.pictures, pair.widths, strict=True)
    )
    bars = "".join(
        f'<div class="cosine"><span title="{escape(tower)}">{escape(tower)}</span><span class="track">'
        f'<i class="{kind}" style="width: {100 * max(cosine, 0):.1f}%"></i></span><span>{cosine:.3f}</span></div>'
        for tower, kind, cosine in zip(towers, ("alike", "unlike"), pair.cosines, strict=True)
    )
    return f'<article class="card pair"><div class="two">{figures}</div>{bars}</article>'


def _quantiles(facts: Facts) -> str:
    """A table: cosines of random pairs at some quantiles, and the thresholds."""
    heads = "".join(f"<th>{100 * at:g} %</th>" for at in facts.random[0])
    rows = "".join(
        f"<tr><th>{escape(tower)}</th>{''.join(f'<td>{value:.3f}</td>' for value in found.values())}"
        f"<td>{sign} {threshold:.3f}</td></tr>"
        for tower, found, sign, threshold in zip(
            facts.towers, facts.random, ("&gt;", "&lt;"), facts.thresholds, strict=True
        )
    )
    return (
        '<p class="soft">Cosines of random pairs of the same pictures, at quantiles.</p><table><thead><tr><th></th>'
        f"{heads}<th>threshold</th></tr></thead><tbody>{rows}</tbody></table>"
    )


def _drawing(facts: Facts) -> str:
    """A drawing of the cosines of pairs: across by the first tower, up by the second."""
    left = min([facts.thresholds[0], 1 - 1e-6])
    low = min([*(unlike for _, unlike in facts.points), facts.thresholds[1]])
    across, up = max(1 - left, 1e-6), max(facts.thresholds[1] - low, 1e-6)
    dots = "".join(
        f'<circle r="2.5" cx="{34 + (_SIDE - 44) * min((alike - left) / across, 1):.1f}" '
        f'cy="{_SIDE - 28 - (_SIDE - 44) * (unlike - low) / up:.1f}"/>'
        for alike, unlike in facts.points
    )
    edge, floor = _SIDE - 10, _SIDE - 28
    return (
        f'<svg width="{_SIDE}" height="{_SIDE}" role="img" aria-label="cosines of pairs">'
        f'<path d="M34 16V{floor}H{edge}"/>{dots}'
        f'<text x="34" y="{_SIDE - 12}">{left:.3f}</text><text x="{edge - 12}" y="{_SIDE - 12}">1</text>'
        f'<text x="{_SIDE // 2 - 30}" y="{_SIDE - 12}">{escape(facts.towers[0][:24])}</text>'
        f'<text x="2" y="{floor}">{low:.2f}</text><text x="2" y="24">{facts.thresholds[1]:.2f}</text>'
        f'<text x="8" y="{_SIDE // 2}" transform="rotate(-90 12 {_SIDE // 2})">{escape(facts.towers[1][:24])}</text>'
        "</svg>"
    )


def _named(title: str, files: Sequence[tuple[str, str]]) -> str:
    if not files:
        return ""
    lines = "".join(f"<li><code>{escape(name)}</code> {escape(what)}</li>" for name, what in files[:MAX_NAMED])
    more = f"<p>and {len(files) - MAX_NAMED:,} more</p>" if len(files) > MAX_NAMED else ""
    return f"<h2>{title}</h2><details><summary>{len(files):,}</summary><ul>{lines}</ul>{more}</details>"
