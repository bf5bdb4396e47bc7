"""What commands that only read records leave alone: seconds of imports."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "transformers", "lightning", "tokenizers", "scipy.stats")


@pytest.mark.parametrize("words", [("figure", "experiment=s2h/fig5"), ("report", "study=beyond")])
def test_reading_records_imports_nothing_heavy(words: tuple[str, ...], tmp_path: Path) -> None:
    code = (
        "import sys\nfrom vlmreason.__main__ import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        f"print('heavy:', *[name for name in {HEAVY!r} if name in sys.modules])"
    )
    arguments = [*words, f"out={tmp_path / 'out'}", f"runs={tmp_path / 'none'}"]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"VLMREASON_CACHE": ""}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "heavy:"
