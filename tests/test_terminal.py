"""Tables for a person, JSON for programs."""

import os

import pytest

from vlmreason import terminal


def test_columns_line_up() -> None:
    table = terminal.columns(("level", "share"), [("simple", "1.0 %"), ("hard", "100.0 %")], left=1)
    assert table.splitlines() == ["level     share", "------  -------", "simple    1.0 %", "hard    100.0 %"]


@pytest.mark.parametrize(("asked", "tty", "expected"), [
    (None, True, False), (None, False, True), (True, True, True), (False, False, False),
])  # fmt: skip
def test_json_goes_where_nobody_looks_or_where_it_is_asked_for(
    asked: bool | None, tty: bool, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: tty)
    assert terminal.prints_json(asked) is expected


def test_text_fits_into_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.get_terminal_size", lambda _: os.terminal_size((40, 24)))
    assert terminal.in_line("Answer:  2\n3") == "Answer: 2 3"
    assert terminal.in_line("x" * 99, used=5) == "x" * 32 + "..."


def test_colours_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert terminal.styled("so", "mark") == "so"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert terminal.styled("so", "wrong") == "\x1b[31mso\x1b[0m" and terminal.styled("", "wrong") == ""
    monkeypatch.setenv("NO_COLOR", "1")
    assert terminal.styled("so", "wrong") == "so"


def test_control_characters_are_written_out() -> None:
    assert terminal.printable("a\x1b[31mb\r\n\tc\u202e\x00é\ud800") == "a\\x1b[31mb\\r\n\tc\\u202e\\x00é\\ud800"
