"""Failures on analogies (appendix K.3): the error rates of table 14, in the order of the reasoning.

A share is True where the response errs. Values are read from the trace; patterns, relation and option from the
answer, as the scorer reads them. Measures of the trace do not apply to a response without one.
"""

from __future__ import annotations

from typing import Any

from vlmreason.tasks.analogies.panels import LETTERS, AnalogyState, solve
from vlmreason.tasks.analogies.visual_analogy import VisualAnalogy
from vlmreason.tasks.findings import Finding, right_steps

VALUES = ("type", "color", "size", "quantity", "position")
ROWS = (
    *(f"examples_{name}" for name in VALUES),
    "examples_pattern",
    "examples_domains",
    "examples_relation",
    *(f"query_{name}" for name in VALUES),
    "options_domain",
    "options_values",
    "options_relation",
    "solution",
    "trace",
    "exact_match",
)
"""Rows of table 14: the values of both examples; their patterns (d_i, r_i); whether d_1 and d_2 are told apart; the
common relation; the values of the query; for all options the attribute, its values, the relation; the option; the
whole trace; patterns and option."""


def find(task: VisualAnalogy, state: AnalogyState, response: str, thought: str) -> Finding:
    """Return `failure` of an incorrect response is the first row of ROWS that is wrong, or unparsed."""
    score, solution = task.score(state, response), solve(state)
    named, _ = task.read_answer(response)
    steps = right_steps(task.thought(state), thought)
    given = [named.get(letter) for letter in LETTERS]
    pairs: list[tuple[Any, Any]] = list(zip(given, solution.option_patterns, strict=True))
    parts = score.parts
    wrong: dict[str, bool | None] = {
        **{f"examples_{name}": not parts[f"example_{name}"] for name in VALUES},
        **{f"query_{name}": not parts[f"query_{name}"] for name in VALUES},
        "examples_pattern": not parts["example_patterns"],
        "examples_domains": not parts["domains_differ"],
        "examples_relation": not parts["relation"],
        "options_domain": any(one is None or one[0] != gold[0] for one, gold in pairs),
        "options_values": not all(task.option_values(state, response)),
        "options_relation": any(one is None or one[1] != gold[1] for one, gold in pairs),
        "solution": not parts["option"],
        "trace": not parts["trace"],
        "exact_match": not score.correct,
    }
    if steps is None:
        of_trace = [f"{stage}_{name}" for stage in ("examples", "query") for name in VALUES]
        wrong |= dict.fromkeys([*of_trace, "options_values", "trace"])
    rows = {name: wrong[name] for name in ROWS}
    failure = next((name for name, value in rows.items() if value), None) if score.parsed else "unparsed"
    known = [value for value in rows.values() if value is not None]
    return Finding(
        correct=score.correct,
        failure=None if score.correct else failure,
        first_error=steps[0] if steps and steps[0] < steps[1] and not score.correct else None,
        severity=sum(known) / len(known),
        shares=rows,
    )
