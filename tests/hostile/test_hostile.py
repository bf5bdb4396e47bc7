"""Whatever a stranger's file, response or server holds: no traceback, nothing that takes seconds or a gigabyte.

Cases are drawn from a seed: `VLMREASON_HOSTILE_SEED` (default 0) and `VLMREASON_HOSTILE_CASES` (default 300) choose
others and more. A case that fails is named by its number, and `python tests/hostile/worker.py FOLDER SEED N N+1`
repeats it alone.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
SEED = os.environ.get("VLMREASON_HOSTILE_SEED", "0")
NUM = int(os.environ.get("VLMREASON_HOSTILE_CASES", "300"))


def ended(folder: Path, seed: str, num: int) -> list[dict[str, Any]]:
    """How the first `num` cases of a seed ended; a process that ends itself is begun again behind its case."""
    found: list[dict[str, Any]] = []
    first = 0
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])}
    while first < num:
        words = [sys.executable, str(HERE / "worker.py"), str(folder), seed, str(first), str(num)]
        done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        found += [line for line in lines if "case" in line]
        if done.returncode == 0:
            return found
        begun = [line["begins"] for line in lines if "begins" in line]
        assert begun, done.stderr[-3000:]
        if begun[-1] not in [line["case"] for line in found]:
            why = "gigabytes" if done.returncode == 77 else done.stderr[-3000:]
            found.append({"case": begun[-1], "kind": "?", "ended": "fault", "text": why})
        first = begun[-1] + 1
    return found


@pytest.mark.slow
def test_every_hostile_case_ends_well_or_in_one_sentence(tmp_path: Path) -> None:
    found = ended(tmp_path, SEED, NUM)
    assert [line["case"] for line in found] == list(range(NUM))
    assert not [line for line in found if line["ended"] == "fault"]
    kinds = Counter((line["kind"], line["ended"]) for line in found)
    assert NUM < 300 or all(kinds[kind, "sentence"] for kind in ("problems", "run", "study", "model", "sweep", "reply"))


if __name__ == "__main__":  # `python test_hostile.py FOLDER SEED NUM`: what ended how, and the faults
    lines = ended(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
    for line in lines:
        if line["ended"] == "fault":
            print(f"{line['case']} {line['kind']}: {line['text']}\n")
    print(Counter((line["kind"], line["ended"]) for line in lines))
    print("most seconds", max(line.get("seconds", 0) for line in lines))
    print("most MiB", max(line.get("bytes", 0) for line in lines) / 2**20)
