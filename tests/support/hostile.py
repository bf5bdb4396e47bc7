"""Files, texts and values as a stranger, an accident or a bad sector makes them, drawn from a random stream."""

import copy
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 7, 10**6, 10**9, 2**31, 2**63 - 1, 2**63, 10**30, -(10**12), 0.5, -0.0, 1e308,
    float("nan"), float("inf"), "", "text", "1", "x" * 100_000, "\x1b[2J\x07", "\u0661\u202e", "../../../etc/passwd",
    "/dev/zero", "os.system", [], {}, [[]], [None], {"": {}}, {"a": 1}, {"_target_": "os.system"}, [0] * 100_000,
)  # fmt: skip
"""What takes the place of a value."""

PIECES = (
    "\u0000", "\ud800", "\u202e", "\u0661\u0669", "\\", '"', "{", "}", "[", "]", "<", ">", "&", "-", "_", " ", "\n",
    "\t", "\r\n", "Answer:", "answer", "action", '{"action": ', "0", "-1", "9" * 400, "1e999", "(1,1)", "(", ")", "|",
    "\\n", "->", ",", "'", "$", "True", "null",
    "\\begin{tabular}", "\\end{tabular}", "<image>", "</s>", "\u2028", "\ufeff",
)  # fmt: skip
"""What stands in hostile texts."""


def text(rng: random.Random, gold: str, longest: int) -> str:
    """A text that is near to `gold`, far from it, or long."""
    found = gold
    for _ in range(rng.choice((1, 1, 2, 5))):
        place, piece = rng.randint(0, len(found)), rng.choice(PIECES)
        kind = rng.randrange(8)
        if kind == 0:
            found = found[:place] + piece + found[place:]
        elif kind == 1:
            found = found[:place] + piece * rng.choice((10, 1000, 50_000)) + found[place:]
        elif kind == 2:
            found = found[:place]
        elif kind == 3:
            found = found[place:]
        elif kind == 4:
            found = found * rng.choice((2, 30, 3000))
        elif kind == 5:
            found = "".join(rng.choice(PIECES) for _ in range(rng.choice((3, 100, 20_000))))
        elif kind == 6:
            pair = piece + rng.choice(PIECES)
            found = found[:place] + pair * rng.choice((100, 30_000)) + found[place:]
        else:
            end = rng.randint(place, min(len(found), place + 40))
            found = found[:place] + found[place:end].swapcase() * rng.choice((0, 2)) + found[end:]
        found = found[:longest]
    return found


def data(rng: random.Random, value: Any) -> Any:
    """A copy of plain data with a few places changed."""
    found = [copy.deepcopy(value)]
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        places = list(_places(found))
        holder, key = rng.choice(places)
        kind = rng.randrange(10)
        if kind < 5:
            holder[key] = copy.deepcopy(rng.choice(VALUES))
        elif kind == 5:
            del holder[key]
            if not found:
                return None
        elif kind == 6 and isinstance(holder, dict):
            holder[rng.choice(("", "name", "_target_", "x" * 2000, "\x1b[0m", "1"))] = rng.choice(VALUES)
        elif kind == 7:
            other, there = rng.choice(places)
            if _still(other, there) and _still(holder, key):
                holder[key] = copy.deepcopy(other[there])
        elif kind == 8 and isinstance(holder[key], list):
            holder[key] = holder[key] * rng.choice((0, 2, 1000))
        elif isinstance(holder[key], (int, float)) and not isinstance(holder[key], bool):
            holder[key] = rng.choice((-holder[key], holder[key] + 1, holder[key] * 10**6, str(holder[key])))
        else:
            holder[key] = [holder[key]]
    return found[0] if found else None


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every holder and key below a value, which is a list or a mapping."""
    for key in list(value) if isinstance(value, dict) else range(min(len(value), 200)):
        yield value, key
        if isinstance(value[key], (dict, list)):
            yield from _places(value[key])


def _still(holder: Any, key: Any) -> bool:
    return key in holder if isinstance(holder, dict) else key < len(holder)


def content(rng: random.Random, raw: bytes, suffix: str) -> bytes:
    """The content of a file, changed as text of its kind or byte by byte."""
    if rng.random() < 0.7:
        try:
            if suffix == ".json":
                return json.dumps(data(rng, json.loads(raw))).encode()
            if suffix == ".jsonl":
                return _lines(rng, raw.splitlines())
            if suffix in (".yaml", ".yml"):
                return yaml.safe_dump(data(rng, yaml.safe_load(raw))).encode()
        except (ValueError, RecursionError, yaml.YAMLError):
            pass
    kind, place = rng.randrange(9), rng.randint(0, len(raw))
    if kind == 0:
        return raw[:place]
    if kind == 1:
        return raw[place:]
    if kind == 2:
        return b"".join(bytes([byte ^ (rng.random() < 0.02) << rng.randrange(8)]) for byte in raw[:20_000])
    if kind == 3:
        return raw[:place] + rng.choice(PIECES).encode(errors="surrogatepass") * rng.choice((1, 1000)) + raw[place:]
    if kind == 4:
        return b""
    if kind == 5:
        return raw[:place] + rng.randbytes(rng.choice((1, 30, 5000))) + raw[place:]
    if kind == 6:
        return rng.choice((b"[", b'{"a":', b"- ", b"a: {", b"!!")) * rng.choice((100, 100_000))
    if kind == 7:
        return raw.replace(b"1", rng.choice((b"1" * 30, b"-", b"1e400", b"null")))
    return json.dumps(rng.choice(VALUES)).encode()


def _lines(rng: random.Random, lines: list[bytes]) -> bytes:
    """JSON lines of which one is changed, doubled, gone or in another place."""
    number = rng.randrange(len(lines))
    kind = rng.randrange(5)
    if kind < 2:
        lines[number] = json.dumps(data(rng, json.loads(lines[number]))).encode()
    elif kind == 2:
        lines.insert(rng.randrange(len(lines)), lines[number])
    elif kind == 3:
        del lines[number]
    else:
        rng.shuffle(lines)
    return b"".join(line + b"\n" for line in lines)


def file(rng: random.Random, path: Path) -> None:
    """Change a file, or put something else in its place."""
    if rng.random() < 0.9:
        path.write_bytes(content(rng, path.read_bytes(), path.suffix))
        return
    raw = path.read_bytes()
    path.unlink()
    kind = rng.randrange(7)
    if kind == 0:
        os.mkfifo(path)
    elif kind == 1:
        path.symlink_to(rng.choice(("/dev/zero", "/dev/full", "/proc/self/mem", "/nowhere", path.name)))
    elif kind == 2:
        path.mkdir()
    elif kind == 3:
        path.write_bytes(raw * rng.choice((2, 500)))
    elif kind == 4:
        with path.open("wb") as handle:
            handle.truncate(rng.choice((10**7, 10**12)))  # holes
