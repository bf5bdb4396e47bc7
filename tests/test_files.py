"""Files that come from elsewhere are read within bounds, whatever they are."""

import os
import re
import signal
import time
from pathlib import Path

import pytest

from vlmreason.files import MAX_YAML_BYTES, read_end, read_json, read_jsonl, read_plain_yaml, read_text

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{below}'] * 9)}]\n" for below, name in zip("abcdefgh", "bcdefghi", strict=True)
)
READERS = {"json": read_json, "jsonl": lambda path: list(read_jsonl(path)), "yaml": read_plain_yaml}


@pytest.fixture(autouse=True)
def bounded(monkeypatch: pytest.MonkeyPatch):
    """A reader that waits is stopped."""

    def stop(*_):
        raise AssertionError("more than 10 seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(10)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("kind", READERS)
def test_what_is_no_ordinary_file_is_refused(kind: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("pipe", "zero", "folder", "loop", "missing"):
        with pytest.raises(ValueError, match=rf"{re.escape(str(tmp_path / name))}: cannot be read: ."):
            READERS[kind](tmp_path / name)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (BOMB, r"aliases \(\*a\) are not read"),
        ("a: &a {x: 1}\nb: {<<: *a}\n", "aliases"),
        ("a: &a [*a]\n", "aliases"),
        ("[" * 100_000, "nested deeper than 64|not YAML"),
        ("a:\n" + "".join(f"{' ' * depth}a:\n" for depth in range(1, 400)), "nested deeper than 64"),
        ("a: 1" + "0" * 30, "a number beyond 64 bits"),
        ("a: " + "9" * 10_000, "damaged"),
        ("a: 2020-01-01\n", "date is no plain data"),
        ("a: !!python/object/apply:os.system [ls]\n", "no plain data"),
        ("a: !!binary aGVsbG8=\n", "bytes is no plain data"),
        ("a: [1\n", "not YAML"),
        ("? [1]\n: 2\n", "damaged"),
        ("a: \x00\n", "not YAML"),
        ("#" * (MAX_YAML_BYTES + 1), "larger than such a file is"),
    ],
)
def test_hostile_yaml_is_named(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    started = time.monotonic()
    with pytest.raises(ValueError, match=says) as found:
        read_plain_yaml(path)
    assert str(path) in str(found.value) and "\n" not in str(found.value)
    assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "[" * 300 + "]" * 300, '{"a": 1' + "0" * 40 + "}", "9" * 10_000, "{", "\xff"]
)
def test_hostile_json_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=re.escape(str(path))):
        read_json(path)


def test_plain_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: [1, 2.5, text, null, true]\nb: {c: -3}\n")
    assert read_plain_yaml(tmp_path / "a.yaml") == {"a": [1, 2.5, "text", None, True], "b": {"c": -3}}
    (tmp_path / "a.json").write_text('{"a": [1, 2.5, "text", null, true]}')
    assert read_json(tmp_path / "a.json") == {"a": [1, 2.5, "text", None, True]}


def test_aliases_are_read_where_they_are_allowed(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text("a: &a {x: 1}\nb: {<<: *a, y: [*a, *a]}\n")
    one = {"x": 1}
    assert read_plain_yaml(path, aliases=True) == {"a": one, "b": {"x": 1, "y": [one, one]}}
    for text, says in ((BOMB, "too large"), ("a: &a [*a]\n", "stands for nothing"), ("b: *a\n", "stands for nothing")):
        path.write_text(text)
        with pytest.raises(ValueError, match=says):
            read_plain_yaml(path, aliases=True)


def test_a_mistake_in_yaml_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text("a: 1\nb: [1\nc: 2\n")
    with pytest.raises(ValueError, match=r"plan.yaml: damaged: it is not YAML \(line 3: "):
        read_plain_yaml(tmp_path / "plan.yaml", aliases=True)


def test_the_end_of_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "lines").write_bytes(b"0123456789")
    assert read_end(tmp_path / "lines", 3) == b"789" and read_end(tmp_path / "lines", 30) == b"0123456789"
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "missing"):
        with pytest.raises(ValueError, match="cannot be read"):
            read_end(tmp_path / name, 3)
    (tmp_path / "text").write_bytes(b"\xff")
    with pytest.raises(ValueError, match="not UTF-8"):
        read_text(tmp_path / "text", 10)
