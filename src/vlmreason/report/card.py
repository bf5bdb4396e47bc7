"""The card of an exported model: what it is, how it is opened, how it did."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

Use = Literal["plain", "placed", "adapter", "package"]
"""Who opens it: transformers alone, transformers with one module of this package, PEFT on top of the base, this
package."""

_OPEN = """
from transformers import AutoModelForImageTextToText, AutoProcessor

processor = AutoProcessor.from_pretrained(folder)
model = AutoModelForImageTextToText.from_pretrained(folder)
turn = [{"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": question}]}]
inputs = processor.apply_chat_template(
    turn, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
)
ids = model.generate(**inputs, max_new_tokens=500)[0, inputs["input_ids"].shape[1] :]
print(processor.decode(ids, skip_special_tokens=True))
```
"""

USE: Mapping[Use, str] = {
    "plain": f"""\
It opens with transformers alone. A picture is given before the question:

```python{_OPEN}""",
    "placed": f"""\
Its decoder has learned positions beside rotary ones, which no class of transformers has: it opens where vlmreason is
installed, once `vlmreason.models.nano.placed` has been imported. A picture is given before the question:

```python
import vlmreason.models.nano.placed  # noqa: F401{_OPEN}""",
    "adapter": "It is an adapter: `PeftModel.from_pretrained(base, folder)` opens it on its base.\n",
    "package": "This package alone opens it, by the run it comes from: `vlmreason evaluate run=RUN`.\n",
}


def model_card(
    run: str,
    phase: str,
    config: Mapping[str, Any],
    use: Use,
    summary: Mapping[str, Any] | None,
    packages: Sequence[str] = (),
    loss: str = "",
) -> str:
    """Write the card, Markdown with a header.

    summary: of the run's evaluation, where it is of this model. packages: what its processor needs beside transformers.
    loss: the file beside it with the picture of the loss.
    """
    model, task = config["model"], config.get("task", {})
    header = {"library_name": {"plain": "transformers", "adapter": "peft"}.get(use, "vlmreason")}
    if use != "package":
        header["pipeline_tag"] = "image-text-to-text"
    if model.get("id"):
        header["base_model"] = model["id"]
    header_lines = "".join(f"{key}: {json.dumps(value)}\n" for key, value in header.items())
    taught = config.get("supervision", {}).get("name")
    how = f"`supervision={taught}`, `seed={config.get('seed')}`, phase {phase}"
    about = f"`model={model.get('name')}` trained on `task={task.get('name')}` with vlmreason ({how})."
    needs = f"\nIts processor needs `pip install {' '.join(packages)}`.\n" if packages and use == "plain" else ""
    rest = "`provenance.json` has the whole configuration, the commit and the digest of the weights."
    curve = f"\n![Loss over the steps of training, phase by phase]({loss})\n" if loss else ""
    return f"---\n{header_lines}---\n\n# {run}\n\n{about} {rest}\n\n{USE[use]}{needs}{_results(summary)}{curve}"


def _results(summary: Mapping[str, Any] | None) -> str:
    if not summary or not summary.get("cells"):
        return ""
    lines = ["", "| level | view | accuracy, % (95 % interval) | problems |", "|---|---|---|---|"]
    for cell in summary["cells"]:
        low, mean, high = (f"{100 * cell[key]:.1f}" for key in ("ci_low", "accuracy", "ci_high"))
        lines.append(f"| {cell['level']} | {cell['view']} | {mean} ({low} to {high}) | {cell['num']} |")
    return "\n".join(lines) + "\n"


_BEGIN, _END = "<!-- skills -->", "<!-- end of skills -->"


def with_skills(card: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a base's card with the table of its skills, in place of an older one or at the end.

    A row has task, level, num, and by view the share of whole replies that are right.
    """
    lines = [_BEGIN, "| task | skill | text, % | picture, % | problems |", "|---|---|---|---|---|"]
    for row in rows:
        shares = [f"{100 * row[view]:.0f}" if view in row else "-" for view in ("text", "image")]
        lines.append(f"| {row['task']} | {row['level']} | {shares[0]} | {shares[1]} | {row['num']} |")
    table = "\n".join([*lines, _END])
    before, begin, rest = card.partition(_BEGIN)
    if not begin:
        return f"{card.rstrip()}\n\n**Skills**: whole replies that are right, written greedily.\n\n{table}\n"
    _, end, after = rest.partition(_END)
    if not end:
        raise ValueError(f"the card's table of skills has no end: {_END} is expected")
    return before + table + after
