"""Pictures kept by their content: drawn once, never wrong, never in the way."""

from pathlib import Path
from typing import Any

import pytest

from vlmreason.report.figures import draw, kept
from vlmreason.studies.experiment import Cost, Experiment
from vlmreason.studies.results import Result

STYLES = {"Mix": ("#1f77b4", "o")}


def result(title: str = "A figure", kind: Any = "lines") -> Result:
    return Result("s2h/fig5", "nano", Experiment(title, "figure 5", kind, Cost("", ""), "", (0,)), (), ())


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VLMREASON_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "figures"


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The formats of every picture that is drawn."""
    found: list[tuple[str, ...]] = []

    def pictures(one: Result, styles: Any, records: Any, formats: Any, load_task: Any) -> dict[str, bytes]:
        found.append(tuple(formats))
        return {form: f"{one.experiment.title} {form}".encode() for form in formats}

    monkeypatch.setattr(draw, "pictures", pictures)
    return found


def test_what_is_shown_already_is_not_drawn_again(cache: Path, drawn: list[Any], tmp_path: Path) -> None:
    files = kept.draw(result(), STYLES, [], tmp_path / "a", ["png", "pdf"])
    assert files == [tmp_path / "a.png", tmp_path / "a.pdf"]
    assert kept.draw(result(), STYLES, [], tmp_path / "b", ["pdf", "png"]) == [tmp_path / "b.pdf", tmp_path / "b.png"]
    assert drawn == [("png", "pdf")]
    assert (tmp_path / "b.png").read_bytes() == b"A figure png"
    kept.draw(result(), STYLES, [], tmp_path / "c", ["png", "svg"])
    assert drawn[1:] == [("svg",)]
    assert (tmp_path / "c.svg").read_bytes() == b"A figure svg"


def test_whatever_changes_a_picture_has_it_drawn(
    cache: Path, drawn: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.draw(result(), STYLES, [], tmp_path / "a", ["png"])
    kept.draw(result("Another"), STYLES, [], tmp_path / "a", ["png"])
    assert (tmp_path / "a.png").read_bytes() == b"Another png"
    kept.draw(result(), {"Mix": ("#000000", "o")}, [], tmp_path / "a", ["png"])
    kept.draw(result(kind="bars"), STYLES, [], tmp_path / "a", ["png"])
    monkeypatch.setattr(kept, "_code", lambda: "another version")
    kept.draw(result(), STYLES, [], tmp_path / "a", ["png"])
    assert len(drawn) == 5


@pytest.mark.parametrize("damage", [b"", b"short", b"x" * 100])
def test_a_damaged_file_is_drawn_and_mended(damage: bytes, cache: Path, drawn: list[Any], tmp_path: Path) -> None:
    kept.draw(result(), STYLES, [], tmp_path / "a", ["png"])
    (path,) = cache.iterdir()
    whole = path.read_bytes()
    path.write_bytes(damage)
    kept.draw(result(), STYLES, [], tmp_path / "b", ["png"])
    assert (tmp_path / "b.png").read_bytes() == b"A figure png"
    assert len(drawn) == 2
    assert path.read_bytes() == whole


def test_a_cache_that_cannot_be_written_is_none(drawn: list[Any], tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "file").write_text("in the way")
    for folder in (str(tmp_path / "file"), ""):
        monkeypatch.setenv("VLMREASON_CACHE", folder)
        kept.draw(result(), STYLES, [], tmp_path / "a", ["png"])
        assert (tmp_path / "a.png").read_bytes() == b"A figure png"
    assert len(drawn) == 2


def test_the_oldest_files_go_first(cache: Path, drawn: list[Any], tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(kept, "MAX_BYTES", 3 * (kept.DIGEST + len(b"n 0 png")))
    for number in (0, 1, 2, 0, 3):
        kept.draw(result(f"n {number}"), STYLES, [], tmp_path / "a", ["png"])
    assert sorted(path.read_bytes()[kept.DIGEST :] for path in cache.iterdir()) == [b"n 0 png", b"n 2 png", b"n 3 png"]


def test_a_kept_picture_is_the_drawn_one(cache: Path, tmp_path: Path) -> None:
    kept.draw(result(), STYLES, [], tmp_path / "a", ["png", "pdf"])
    kept.draw(result(), STYLES, [], tmp_path / "b", ["png", "pdf"])
    draw.draw(result(), STYLES, [], tmp_path / "c", ["png", "pdf"])
    for form in ("png", "pdf"):
        pictures = {(tmp_path / f"{name}.{form}").read_bytes() for name in "abc"}
        assert len(pictures) == 1
        assert len(pictures.pop()) > 1000
