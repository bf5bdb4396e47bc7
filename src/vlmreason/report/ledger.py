"""The ledger of claims as Markdown, between the markers of a file."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

from vlmreason.studies.claims import Contrast, Judged, Verdict
from vlmreason.studies.estimates import Estimate

BEGIN, END = "<!-- ledger {} -->", "<!-- end of ledger -->"


def ledger(verdicts: Sequence[Verdict]) -> list[str]:
    """Return lines of Markdown: a table, the counts, what was tried where a claim does not hold."""
    lines = ["| claim | paper | effect (95 %) | claimed | seeds x problems | verdict |", "|---" * 6 + "|"]
    for verdict in verdicts:
        words = (
            verdict.claim.text, _short(verdict.claim.place), shown_effect(verdict.deciding) + _of_several(verdict),
            shown_claimed(verdict.deciding.contrast), shown_size(verdict.effect, verdict.deciding.num_wanted),
            f"**{verdict.verdict}**" + ("†" if verdict.marks else ""),
        )  # fmt: skip
        lines.append(f"| {' | '.join(words)} |")
    lines += ["", counts(verdicts)]
    tried = [verdict for verdict in verdicts if verdict.claim.tried and verdict.verdict in ("fails", "not decided")]
    lines += ["", *(f"- {verdict.claim.text}: {verdict.claim.tried}" for verdict in tried)] if tried else []
    marks = dict.fromkeys(mark for verdict in verdicts for mark in verdict.marks)
    lines += ["", f"† with runs {'; '.join(marks)}"] if marks else []
    return lines


def counts(verdicts: Sequence[Verdict]) -> str:
    """Write `11 hold, 3 fail, 5 not decided, 9 without runs.`, and how many are of another scale."""
    number = Counter(verdict.verdict for verdict in verdicts)
    return (
        f"{number['holds']} hold, {number['fails']} fail, {number['not decided']} not decided, "
        f"{number['no runs']} without runs"
        + (f", {elsewhere} not at this scale." if (elsewhere := number["not at this scale"]) else ".")
    )


def shown_effect(judged: Judged) -> str:
    """Write `+12.3 (+8.1 to +16.5)`; a bound's without signs, a ratio's with an x."""
    if judged.effect is None:
        return "-"
    contrast, effect = judged.contrast, judged.effect
    sign, unit = ("", " x") if contrast.ratio else ("", "") if contrast.right is None else ("+", "")
    largest = max(abs(value) for value in (effect.mean, effect.ci_low or 0.0, effect.ci_high or 0.0))
    digits = 1 if largest >= 10 else 2 if largest >= 1 else 3
    mean, low, high = (
        "" if value is None else f"{value:{sign}.{digits}f}" for value in (effect.mean, effect.ci_low, effect.ci_high)
    )
    return f"{mean}{unit}" + (f" ({low} to {high})" if low else "")


def shown_claimed(contrast: Contrast) -> str:
    """Write `> 0` or `-5 to 5`."""
    low, high = contrast.limits()
    if low == -math.inf:
        return f"< {high:g}"
    return f"> {low:g}" if high == math.inf else f"{low:.3g} to {high:.3g}"


def shown_size(effect: Estimate | None, num_wanted: int = 0) -> str:
    """Write `3 x 200`, or `3` for one number per run; `1 of 3 x 200` where fewer seeds are there than wanted."""
    if effect is None:
        return "-"
    missing = f" of {num_wanted}" if effect.num_seeds < num_wanted else ""
    return f"{effect.num_seeds}{missing}" + ("" if effect.num_problems is None else f" x {effect.num_problems}")


def insert(text: str, study: str, lines: Sequence[str]) -> str:
    """Return `text` (of a README) with the lines of a study's ledger between its markers. Raises ValueError."""
    head, begin, rest = text.partition(BEGIN.format(study))
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{BEGIN.format(study)} and {END} are expected in the text")
    return "\n".join([head + begin, *lines, end + tail])


def _short(place: str) -> str:
    """As `4.1, fig. 5`."""
    return re.sub(r"\b(sections?|appendix|appendices) ", "", place).replace("figure", "fig.")


def _of_several(verdict: Verdict) -> str:
    if len(verdict.contrasts) == 1 or verdict.effect is None:
        return ""
    return f", {'weakest' if verdict.claim.hold == 'all' else 'strongest'} of {len(verdict.contrasts)}"
