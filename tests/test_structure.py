"""What `structure` says of data that is of another form."""

from dataclasses import dataclass
from typing import Any, Literal

import pytest

from vlmreason.structure import MAX_MESSAGE, one_line, structure


@dataclass(frozen=True)
class Settings:
    number: int = 0
    items: tuple[int, ...] = ()
    table: dict[str, int] | None = None
    choice: Literal["one", "two"] = "one"
    either: int | tuple[int, ...] = 0


LONG = "x" * 300_000


@pytest.mark.parametrize(
    "data",
    [
        LONG,
        {"number": LONG},
        {"number": [LONG] * 3},
        {"items": LONG},
        {"items": [LONG]},
        {"table": list(range(100_000))},
        {"choice": LONG},
        {"either": LONG},
        {LONG: 1},
    ],
)
def test_messages_stay_short(data: Any) -> None:
    with pytest.raises(ValueError, match=r"settings|no such key") as found:
        structure(Settings, data, "settings")
    assert len(str(found.value)) < 1500


def test_short_values_are_shown_whole() -> None:
    with pytest.raises(ValueError, match=r"^number='text': int is expected$"):
        structure(Settings, {"number": "text"})


@pytest.mark.parametrize("text", ["x" * 300_000, "a\n b" * 100_000, "\x1b[31mred\x07" * 10_000, "\u202e" * 5000])
def test_messages_are_short_lines_without_control_characters(text: str) -> None:
    line = one_line(f"config.yaml: task={text}: allowed are a, b")
    assert len(line) <= MAX_MESSAGE and line.isprintable()
    assert line.startswith("config.yaml: task=") and line.endswith(": allowed are a, b")


def test_a_message_that_is_short_stays() -> None:
    assert one_line("level=hart: there are easy, hard (did you mean 'hard'?)\n") == (
        "level=hart: there are easy, hard (did you mean 'hard'?)"
    )
