"""RAVEN's files: puzzles come back as they were written, hostile files are named and never half-read."""

from __future__ import annotations

import dataclasses
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from support.shipped import shipped

from vlmreason.tasks.base import state_to_json
from vlmreason.tasks.matrices.panels import CONFIGURATIONS
from vlmreason.tasks.matrices.raven import Raven
from vlmreason.tasks.matrices.raven_files import RavenFiles
from vlmreason.tasks.matrices.raven_xml import read_images, read_panels, read_puzzle, write_puzzle

SIZES = shipped("raven", "paper").sizes


def written(folder: Path, level: str = "center", num: int = 3, choices: str = "iraven") -> list:
    """Puzzles of ours in RAVEN's files."""
    task = Raven(SIZES, choices=choices)  # type: ignore[arg-type]
    states = [task.sample(level, "test", index).state for index in range(num)]
    below = folder / CONFIGURATIONS[level].folder
    below.mkdir(parents=True, exist_ok=True)
    for number, state in enumerate(states):
        write_puzzle(below / f"RAVEN_{number}_test", state, task.artist)
    return states


@pytest.mark.parametrize("choices", ["raven", "iraven"])
@pytest.mark.parametrize("level", CONFIGURATIONS)
def test_puzzles_come_back_as_they_were_written(level: str, choices: str, tmp_path: Path) -> None:
    ours = Raven(SIZES)
    states = written(tmp_path, level, 3, choices)
    task = RavenFiles(SIZES, data=str(tmp_path))
    assert task.num_problems(level, "test") == 3 and task.num_problems(level, "train") == 0
    for number, state in enumerate(states):
        found = task.sample(level, "test", number).state
        assert (found.configuration, found.context, found.choices, found.answer) == (
            state.configuration, state.context, state.choices, state.answer,
        )  # fmt: skip
        assert task.thought(found) == ours.thought(state) and task.text(found) == ours.text(state)
        assert task.score(found, "".join(ours.thought(state)) + ours.answer(state)).parts["proven"] == 1
        assert np.array_equal(task.draw(found), ours.draw(state))
        assert task.state_from_json(state_to_json(found)) == found


def test_files_hold_what_ravens_hold(tmp_path: Path) -> None:
    (state,) = written(tmp_path, "left_right", 1)
    stem = tmp_path / CONFIGURATIONS["left_right"].folder / "RAVEN_0_test"
    with np.load(stem.with_suffix(".npz")) as arrays:
        assert arrays["image"].shape == (16, 160, 160) and arrays["image"].dtype == np.uint8
        assert int(arrays["target"]) == int(arrays["predict"]) == state.answer
        matrix = arrays["meta_matrix"]
        assert matrix.shape == (8, 9) and (matrix[:, :4].sum(axis=1) == 1).all()
        assert (arrays["meta_target"] == matrix.max(axis=0)).all()
    assert read_images(stem.with_suffix(".npz")).max() == 255
    text = stem.with_suffix(".xml").read_text()
    assert text.count("<Panel>") == 16 and text.count("<Rule ") == 8 and 'name="Left_Right"' in text


def test_pictures_of_another_size_are_brought_to_ours(tmp_path: Path) -> None:
    written(tmp_path, "center", 1)
    sizes = shipped("raven").sizes
    placing = {name: getattr(sizes, name) for name in ("picture", "panel", "matrix", "choices", "outline", "frame")}
    task = RavenFiles(dataclasses.replace(SIZES, **placing), data=str(tmp_path))
    assert task.draw(task.sample("center", "test", 0).state).shape == (144, 144, 3)


def spoil(folder: Path, end: str, change) -> str:
    """What is said of three puzzles of which the second is changed."""
    written(folder)
    path = folder / "center_single" / f"RAVEN_1_test.{end}"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match="1 of 3 puzzles cannot be used") as caught:
        RavenFiles(SIZES, data=str(folder)).num_problems("center", "test")
    with pytest.warns(UserWarning, match="1 of 3 puzzles are left out"):
        assert RavenFiles(SIZES, data=str(folder), broken="skip").num_problems("center", "test") == 2
    return str(caught.value)


def pickled(raw: bytes) -> bytes:
    whole = io.BytesIO()
    np.savez(whole, image=np.zeros((16, 2, 2), np.uint8), target=np.array([print], dtype=object))
    return whole.getvalue()


def bomb(raw: bytes) -> bytes:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("target.npy", b"\0" * 2**25)
    return whole.getvalue()


@pytest.mark.parametrize(
    ("end", "change", "said"),
    [
        ("npz", lambda raw: raw[: len(raw) // 2], "RAVEN_1_test.npz: "),
        ("npz", lambda raw: b"", "RAVEN_1_test.npz: "),
        ("npz", pickled, "allow_pickle=False"),
        ("npz", bomb, "more than 16777216 bytes"),
        ("xml", lambda raw: raw[: len(raw) // 2], "no puzzle in XML"),
        ("xml", lambda raw: b'<!DOCTYPE d [<!ENTITY a "aaa">]>' + raw, "a document type, which is not read"),
        ("xml", lambda raw: raw.replace(b"<Rules>", b"<Rules>" + b"<x/>" * 5000), "more than 4000 nodes"),
        ("xml", lambda raw: raw.replace(b"<Rules>", b"<Rules>" + b" " * 2**20), "RAVEN_1_test.xml"),
        ("xml", lambda raw: raw.replace(b'Type="', b'Type="9'), "type 9"),
        ("xml", lambda raw: raw.replace(b'Size="', b'Size="-'), "is no level"),
        ("xml", lambda raw: raw.replace(b"<Panel>", b"<P>", 1).replace(b"</Panel>", b"</P>", 1), "no puzzle in XML"),
    ],
)
def test_files_that_hold_no_puzzle_are_named(end, change, said: str, tmp_path: Path) -> None:
    assert said in spoil(tmp_path, end, change)


def test_two_right_answers_and_another_answer_are_named(tmp_path: Path) -> None:
    (state,) = written(tmp_path, "center", 1)
    stem = tmp_path / "center_single" / "RAVEN_0_test"
    panels = stem.with_suffix(".xml").read_text().split("<Panel>")
    wrong = (state.answer + 1) % 8
    panels[9 + wrong], kept = panels[9 + state.answer], panels[9 + wrong]
    if wrong == 7:  # the last one carries the end of the file
        panels[9 + wrong] = panels[9 + wrong] + kept[kept.index("</Panels>") :]
    elif state.answer == 7:
        panels[9 + wrong] = panels[9 + wrong][: panels[9 + wrong].index("</Panels>")]
    stem.with_suffix(".xml").write_text("<Panel>".join(panels))
    with pytest.raises(ValueError, match=r"RAVEN_0_test\.xml: 2 choices obey the rules"):
        read_puzzle(stem, "center", SIZES)


def test_links_out_of_the_folder_and_lonely_files_are_named(tmp_path: Path) -> None:
    written(tmp_path / "other", "center", 1)
    below = tmp_path / "set" / "center_single"
    below.mkdir(parents=True)
    for end in ("npz", "xml"):
        (below / f"RAVEN_0_test.{end}").symlink_to(tmp_path / "other" / "center_single" / f"RAVEN_0_test.{end}")
    with pytest.raises(ValueError, match=r"leads out of task\.data"):
        RavenFiles(SIZES, data=str(tmp_path / "set")).num_problems("center", "test")
    (below / "RAVEN_0_test.xml").unlink()
    with pytest.raises(ValueError, match=r"RAVEN_0_test\.npz is alone"):
        RavenFiles(SIZES, data=str(tmp_path / "set")).num_problems("center", "test")
    with pytest.raises(ValueError, match=r"task\.data: missing"):
        RavenFiles(SIZES).num_problems("center", "test")
    task = RavenFiles(SIZES, data=str(tmp_path / "other"))
    state = task.sample("center", "test", 0).state
    with pytest.raises(ValueError, match="is no name of a puzzle"):
        task.draw(type(state)(state.configuration, state.context, state.choices, state.answer, "../../x"))


def test_panels_of_xml_are_read_without_their_arrays(tmp_path: Path) -> None:
    (state,) = written(tmp_path, "out_grid", 1)
    path = tmp_path / CONFIGURATIONS["out_grid"].folder / "RAVEN_0_test.xml"
    assert read_panels(path) == (*state.context, *state.choices)
