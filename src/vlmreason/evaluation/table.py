"""A summary as a table for the terminal: levels x views."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vlmreason.evaluation.groups import Grouped, in_order
from vlmreason.evaluation.scoring import Cell, Summary
from vlmreason.intervals import Share, wilson_interval
from vlmreason.terminal import columns

_TRACES = ("prefix right", "stopped early")  # of tasks that teach a chain of thought
_HEADER = ("level", "view", "accuracy", "95 % interval", "problems", "unparsed", "cut off", "tokens")
_EPISODES = ("level", "view", "accuracy", "95 % interval", "episodes", "unparsed turns", "cut off", "tokens a turn")

MAX_ROWS = 12  # values of a kind of group that are shown one by one


def format_table(summary: Summary) -> str:
    """Return one row per (level, view): accuracy with interval (%), counts, and the mean number of generated tokens.

    Of tasks that teach a chain of thought how far it is right, and how many end too soon behind a right beginning.
    Of episodes the share of turns that could not be read, episodes with a turn that was cut off, and tokens per turn.
    """
    header = _EPISODES if is_of_episodes(summary.total.parts) else _HEADER
    traced = _TRACES if summary.total.prefix_right is not None else ()
    rows = [(*_row(cell), *(_trace(cell) if traced else ())) for cell in summary.cells]
    lines = columns((*header, *traced), rows, left=2).splitlines()
    lines += _group_lines(summary.groups)
    if summary.total.missing:
        lines.append(f"{summary.total.missing} of {summary.total.num} have no response and count as incorrect")
    return "\n".join(lines)


def verdict(summary: Summary) -> str:
    """Say in one sentence what a summary comes to."""
    total = summary.total
    counts = ((total.missing, "have no response"), (total.unparsed, "not read"), (total.cut_off, "cut off"))
    faults = ", ".join(f"{number} {what}" for number, what in counts if number)
    interval = f"{100 * total.accuracy:.1f} % ({100 * total.ci_low:.1f} to {100 * total.ci_high:.1f})"
    return f"{total.correct} of {total.num} right, {interval}" + (f"; {faults}" if faults else "")


def _group_lines(groups: Sequence[Grouped]) -> list[str]:
    """A further table, with a column per level and view: accuracy (%) of each value of a kind of group, with interval.

    Of kinds with more than MAX_ROWS values there is one row: how many groups have all their problems right.
    """
    places = list(dict.fromkeys((one.level or "all", one.view or "-") for one in groups))
    kinds = dict.fromkeys(one.group for one in groups)
    rows: list[list[str]] = []
    for kind in kinds:
        of_kind = {(one.level or "all", one.view or "-"): one for one in groups if one.group == kind}
        values = sorted({value for one in of_kind.values() for value in one.values}, key=in_order)
        if 2 <= len(values) <= MAX_ROWS and all(one.values for one in of_kind.values()):
            for value in values:
                found = (of_kind[place].values.get(value) if place in of_kind else None for place in places)
                rows.append([f"{kind}: {value}", *map(_share, found)])
        elif any(1 < one.all_right.num < one.accuracy.num for one in of_kind.values()):
            rights = (of_kind[place].all_right if place in of_kind else None for place in places)
            rows.append([f"all of a {kind} right", *map(_share, rights)])
    if not rows:
        return []
    rows.insert(0, ["by group (%)", *(f"{level} {view}" for level, view in places)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    (first, *rest) = widths
    cells = ([row[0].ljust(first), *map(str.rjust, row[1:], rest)] for row in rows)
    return ["", *("  ".join(row) for row in cells)]


def _share(found: Share | None) -> str:
    if found is None or found.share is None or found.ci_low is None or found.ci_high is None:
        return "-"
    return f"{100 * found.share:.1f} ({100 * found.ci_low:.0f} to {100 * found.ci_high:.0f})"


def format_course(lines: Iterable[Mapping[str, Any]], phase: str, num: int) -> str:
    """Return accuracy along a phase from its lines of metrics.jsonl, with 95 % Wilson intervals; "" where none was
    evaluated.

    `num`: problems per level and view of each evaluation, where a line does not say that there were fewer.
    """
    found = [line for line in lines if line["phase"] == phase and any(key.startswith("accuracy/") for key in line)]
    if not found:
        return ""
    keys = [key for key in found[0] if key.startswith("accuracy/")]
    rows = [("step", "env steps", *(" ".join(key.split("/")[1:]) for key in keys))]
    for line in found:
        cells = []
        for key in keys:
            asked = int(line.get(key.replace("accuracy/", "problems/", 1), num))
            low, high = wilson_interval(round(line[key] * asked), asked)
            cells.append(f"{100 * line[key]:.0f} % ({100 * low:.0f} to {100 * high:.0f})")
        rows.append((str(line["step"]), f"{line.get('env_steps', 0):.0f}", *cells))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    table = ["  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join([f"{phase}: accuracy on {num} validation problems while training", *table])


def is_of_episodes(measures: Mapping[str, Any]) -> bool:
    """Say whether these are the measures of whole episodes (vlmreason.envs.episodes)."""
    return {"turns", "parsed_share"} <= measures.keys()


def unparsed_turns(measures: Mapping[str, Any]) -> str:
    """Write the mean share of an episode's turns that could not be read."""
    return f"{100 * (1 - measures['parsed_share']):.1f} %"


def _trace(cell: Cell) -> tuple[str, str]:
    if cell.prefix_right is None:
        return "-", "-"
    return f"{100 * cell.prefix_right:.1f} %", str(cell.stopped_early)


def _row(cell: Cell) -> tuple[str, ...]:
    episodes, tokens = is_of_episodes(cell.parts), cell.mean_tokens
    if episodes and tokens is not None:
        tokens = tokens / cell.parts["turns"] if cell.parts["turns"] else None
    return (
        cell.level or "all",
        cell.view or "-",
        f"{100 * cell.accuracy:.1f} %",
        f"{100 * cell.ci_low:.1f} to {100 * cell.ci_high:.1f}",
        str(cell.num),
        unparsed_turns(cell.parts) if episodes else str(cell.unparsed),
        str(cell.cut_off),
        "-" if tokens is None else f"{tokens:.1f}",
    )
