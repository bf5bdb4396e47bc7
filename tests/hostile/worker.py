"""`python worker.py FOLDER SEED FIRST LAST`: hostile cases, each changed from something whole, and what came of it.

A case is a kind (`KINDS`) and a number; what it changes and what is then done with it depend on both and the seed. One
line of JSON per case goes to stdout: its number before it begins, and how it ended. A case must end well or in one
sentence as the program writes it, and may take MAX_SECONDS of the processor and MAX_BYTES more than the unchanged one.
A process that hangs or grows ends itself; the test then goes on behind that case.
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import json
import os
import random
import resource
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from originals import KINDS, Originals

from vlmreason.assembly import errors

MAX_SECONDS = 2.0  # of the processor
MAX_BYTES = 2**30
MAX_CHARS = 2000
HANGING = 60.0  # seconds


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def fault(act: Callable[[], object]) -> tuple[str, str]:
    """How an act ended: "done", "sentence" or "fault", and what was said."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            act()
        except BaseException as error:
            before = said.tell()
            code, text = errors.report(error), said.getvalue()[before:].strip()
            if code == errors.FAILED or type(error).__name__ in ("UnicodeDecodeError", "JSONDecodeError"):
                return "fault", "".join(traceback.format_exception(error))[-3000:]
            if len(text) > MAX_CHARS or not text.isprintable():
                return "fault", f"no sentence of at most {MAX_CHARS} characters: {text[:3000]!r}"
            return "sentence", text
    if any(len(line) > MAX_CHARS for line in said.getvalue().splitlines()):
        return "fault", f"a line of {max(map(len, said.getvalue().splitlines()))} characters on stderr"
    return "done", ""


def watch() -> None:
    """End the process where it takes gigabytes: it would take the machine with it."""
    page = os.sysconf("SC_PAGE_SIZE")
    while True:
        if int(Path("/proc/self/statm").read_text().split()[1]) * page > 4 * MAX_BYTES:
            os._exit(77)
        time.sleep(0.02)


def run(originals: Originals, seed: str, number: int, costs: dict[str, float]) -> dict[str, Any]:
    rng = random.Random(f"{seed}-{number}")
    kind = rng.choices(list(KINDS), [weight for _, weight in KINDS.values()])[0]
    make, _ = KINDS[kind]
    if kind not in costs:  # what it takes unchanged, twice: the first time libraries are loaded
        for _ in range(2):
            with tempfile.TemporaryDirectory() as place:
                act = make(originals, random.Random(0), Path(place), False)
                before = time.process_time()
                ended, text = fault(act)
                costs[kind] = time.process_time() - before
                assert ended == "done", f"{kind}: {text}"
    with tempfile.TemporaryDirectory() as place:
        act = make(originals, rng, Path(place), True)
        before, most = time.process_time(), peak()
        faulthandler.dump_traceback_later(HANGING, exit=True)
        ended, text = fault(act)
        faulthandler.cancel_dump_traceback_later()
        seconds, grown = time.process_time() - before - costs[kind], peak() - most
        for path in Path(place).rglob("*"):
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o700)
    if ended != "fault" and seconds > MAX_SECONDS:
        ended, text = "fault", f"{seconds:.1f} s of the processor; {text}"
    if ended != "fault" and grown > MAX_BYTES:
        ended, text = "fault", f"{grown / 2**20:.0f} MiB; {text}"
    return {"case": number, "kind": kind, "ended": ended, "text": text, "seconds": seconds, "bytes": grown}


def main(folder: str, seed: str, first: int, last: int) -> None:
    originals, costs = Originals(Path(folder)), dict[str, float]()
    threading.Thread(target=watch, daemon=True).start()
    out, sys.stdout = sys.stdout, sys.stderr  # commands print
    for number in range(first, last):
        print(json.dumps({"begins": number}), file=out, flush=True)
        print(json.dumps(run(originals, seed, number, costs)), file=out, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
