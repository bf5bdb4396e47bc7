"""Picture and text form in one prompt, from the command line to what is written about the run."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support.launching import settings, tiny_base
from support.program import Done

from vlmreason.assembly import compose


@pytest.mark.slow
def test_trained_evaluated_and_checked_with_both(program: Callable[..., Done], tmp_path: Path) -> None:
    own = settings(tiny_base(tmp_path / "base"), 16) | {"supervision": "both", "evaluation.views": ["text", "both"]}
    words = compose.overrides(own)
    checked = program("check", *words, "num=2")
    assert checked.code == 0, checked.err
    assert program("train", *words).code == 0
    [run] = (path.parent for path in (tmp_path / "outputs").glob("*/summary.json"))
    cells = json.loads((run / "summary.json").read_text())["cells"]
    assert [(cell["level"], cell["view"]) for cell in cells] == [
        (level, view) for level in ("simple", "hard") for view in ("text", "both")
    ]
    further = program("evaluate", f"run={run}", "evaluation.views=[both]", "evaluation.num=2", "accelerator=cpu")
    assert further.code == 0 and " both " in further.out
