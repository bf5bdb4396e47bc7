"""Results of analyses as tables for the terminal, from their JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Data = Mapping[str, Any]


def failures_table(results: Sequence[Data]) -> str:
    """One row per measure, one column per level and view: shares and failures in %, with the 95 % interval."""
    rows = [["", *(f"{cell['level']} {cell['view'] or ''}".strip() for cell in results)]]
    rows.append(["responses", *(str(cell["num"]) for cell in results)])
    rows.append(["incorrect", *(_percent(cell["incorrect"]) for cell in results)])
    for section, title, write in (
        ("failures", "of these: {}", _percent),
        ("shares", "{}", _percent),
        ("means", "{}", _mean),
        ("ratios", "{}", _ratio),
    ):
        names = dict.fromkeys(name for cell in results for name in cell[section])
        for name in names:
            cells = (write(cell[section][name]) if name in cell[section] else "-" for cell in results)
            rows.append([title.format(name.replace("_", " ")), *cells])
        if section == "failures":
            rows.append(["first error after", *(_mean(cell["first_error"]) for cell in results)])
    return _align(rows)


def gradients_table(results: Sequence[Data]) -> str:
    """One row per checkpoint; losses are on the hard level, equations 4, 5 and 2."""
    head = ["checkpoint", "alignment", "cosine", "adam", "norm simple", "norm hard", "text|I", "solution|I,T"]
    rows = [[*head, "solution|I"]]
    for one in results:
        scores, hard = one["alignment"], one["losses"]
        norms = (scores[name]["example_norm"] for name in ("simple", "hard"))
        values = [scores["alignment"], scores["cosine"], scores["adam"], *norms]
        values += [loss["mean"] for loss in hard.values()]
        rows.append([one["checkpoint"], *map(_number, values)])
    errors = [one["alignment"]["projection"] for one in results]
    if errors[0] is None:
        return _align(rows)
    worst = {
        name: max((e[name] for e in errors if e[name] is not None), default=None) for name in ("alignment", "cosine")
    }
    stated = f"in projection to {errors[0]['size']}; standard deviation at most "
    return _align(rows) + f"\n{stated}{_number(worst['alignment'])} of alignment, {_number(worst['cosine'])} of cosine"


def attribution_table(results: Sequence[Data]) -> str:
    """One row per level and region: shares in %."""
    rows = [["level", "region", "area", "attribution", "over area (95 %)", "over input (95 %)", "top pixels"]]
    for one in results:
        focuses = {**one["regions"], "own part of each stretch": one["own"]}
        for name, focus in focuses.items():
            area, share, top = (_mean_percent(focus[key]) for key in ("area", "share", "top"))
            over = (_mean_percents(focus[key]) for key in ("over_area", "over_input"))
            rows.append([one["level"], name.replace("_", " "), area, share, *over, top])
    return _align(rows)


def likelihood_table(results: Sequence[Data]) -> str:
    """One row per level: means per response, log-probabilities as sums over tokens, with the 95 % interval."""
    rows = [["level", "responses", "episodes", "log p thought", "tokens", "log p answer", "tokens", "no action"]]
    for one in results:
        parts = (_mean(one[part][key]) for part in ("thought", "answer") for key in ("logprob", "num_tokens"))
        rows.append([one["level"], str(one["num"]), str(one["num_episodes"]), *parts, _percent(one["unread"])])
    return _align(rows)


def _percent(share: Data) -> str:
    if share["share"] is None:
        return "-"
    return f"{share['count']}/{share['num']} {_percents(share['share'], share['ci_low'], share['ci_high'])}"


def _mean_percent(one: Data) -> str:
    return "-" if one["mean"] is None else f"{100 * one['mean']:.1f}"


def _mean_percents(one: Data) -> str:
    return "-" if one["mean"] is None else _percents(one["mean"], one["ci_low"], one["ci_high"])


def _percents(value: float, low: float | None, high: float | None) -> str:
    return f"{100 * value:.1f}" + ("" if low is None or high is None else f" ({100 * low:.1f} to {100 * high:.1f})")


def _mean(one: Data) -> str:
    if one["mean"] is None:
        return "-"
    if one["ci_low"] is None:
        return f"{one['mean']:.2f}"
    return f"{one['mean']:.2f} ({one['ci_low']:.2f} to {one['ci_high']:.2f})"


def _ratio(one: Data) -> str:
    if one["ratio"] is None:
        return "-"
    if one["ci_low"] is None:
        return f"{one['ratio']:.3f}"
    return f"{one['ratio']:.3f} ({one['ci_low']:.3f} to {one['ci_high']:.3f})"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _align(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)
