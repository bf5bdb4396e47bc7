"""RAVEN's files: puzzles come back as they were written, hostile files are named and never half-read."""

from __future__ import annotations

import dataclasses
import io
import struct
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


def archived(**members: bytes) -> bytes:
    """An archive of arrays, each as its bytes; those that are not named are as they should be."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as file:
        for name, raw in ({"image": IMAGE, "target": TARGET} | members).items():
            file.writestr(f"{name}.npy", raw)
    return whole.getvalue()


def array(value: object) -> bytes:
    whole = io.BytesIO()
    np.save(whole, value)
    return whole.getvalue()


def headed(head: str) -> bytes:
    """An array with this head and nothing behind it."""
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode()


def sized(dtype: str, shape: str) -> bytes:
    return headed(f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}}}\n")


IMAGE, TARGET = array(np.zeros((16, 20, 20), np.uint8)), array(np.int64(1))


def encrypted(raw: bytes) -> bytes:
    """An archive whose members say that they are."""
    return raw.replace(b"PK\x03\x04\x14\x00\x00", b"PK\x03\x04\x14\x00\x01").replace(
        b"PK\x01\x02\x14\x03\x14\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01"
    )


def first(old: bytes, new: bytes):
    """A change of the first place that has something."""
    return lambda raw: raw.replace(old, new, 1)


BOMB = b'<!DOCTYPE b [<!ENTITY a "a"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]><Data>&b;</Data>'


@pytest.mark.parametrize(
    ("end", "change", "said"),
    [
        ("npz", lambda raw: raw[: len(raw) // 2], "RAVEN_1_test.npz: "),
        ("npz", lambda raw: b"", "RAVEN_1_test.npz: "),
        ("npz", pickled, "allow_pickle=False"),
        ("npz", lambda raw: archived(target=b"\0" * 2**25), "unpacked more than 16777216 bytes"),
        ("npz", lambda raw: b"\0" * (2**24 + 1), "RAVEN_1_test.npz: more than 16777216 bytes"),
        ("npz", lambda raw: encrypted(archived()), "is encrypted"),
        ("npz", lambda raw: IMAGE, "is not a zip file"),
        ("npz", lambda raw: archived()[: len(archived()) // 2], "is not a zip file"),
        ("npz", lambda raw: archived(target=b"hello"), "EOF"),
        ("npz", lambda raw: archived(target=headed("{'shape': ((((")), "RAVEN_1_test.npz: "),
        ("npz", lambda raw: archived(target=headed("(" * 5000)), "RAVEN_1_test.npz: "),
        ("npz", lambda raw: archived(target=sized("<i8", f"({'9' * 99},)")), "RAVEN_1_test.npz: "),
        ("npz", lambda raw: archived(target=sized("<i8", "(10000000000000,)")), "RAVEN_1_test.npz: "),
        ("npz", lambda raw: archived(target=array(np.float64(1))), "target is no number from 0 to 7"),
        ("npz", lambda raw: archived(target=array(np.int64(8))), "target is no number from 0 to 7"),
        ("npz", lambda raw: archived(target=array([1])), "target is no number from 0 to 7"),
        ("npz", lambda raw: archived(target=array(True)), "target is no number from 0 to 7"),
        ("npz", lambda raw: archived().replace(b"target.npy", b"tarjet.npy"), "there is no array target"),
        ("npz", lambda raw: archived().replace(b"image.npy", b"imago.npy"), "there is no array image"),
        ("npz", lambda raw: archived(image=array(np.zeros((15, 9, 9), np.uint8))), "image is no uint8 array of 16"),
        ("npz", lambda raw: archived(image=array(np.zeros((16, 9, 9)))), "but float64 (16, 9, 9)"),
        ("npz", lambda raw: archived(image=array(np.zeros((16, 0, 9), np.uint8))), "but uint8 (16, 0, 9)"),
        ("npz", lambda raw: archived(image=sized("|u1", "(16, 10**5, 10**5)")), "RAVEN_1_test.npz: "),
        ("npz", lambda raw: archived(image=sized("|u1", "(16, 99999, 99999)")), "but uint8 (16, 99999, 99999)"),
        ("xml", lambda raw: raw[: len(raw) // 2], "no puzzle in XML"),
        ("xml", lambda raw: b'<!DOCTYPE d [<!ENTITY a "aaa">]>' + raw, "a document type, which is not read"),
        ("xml", lambda raw: raw.replace(b"<Rules>", b"<Rules>" + b"<x/>" * 5000), "more than 4000 nodes"),
        ("xml", lambda raw: raw.replace(b"<Rules>", b"<Rules>" + b" " * 2**20), "RAVEN_1_test.xml"),
        ("xml", lambda raw: raw.replace(b'Type="', b'Type="9'), "type 9"),
        ("xml", lambda raw: raw.replace(b'Size="', b'Size="-'), "is no level"),
        ("xml", lambda raw: raw.replace(b"<Panel>", b"<P>", 1).replace(b"</Panel>", b"</P>", 1), "Struct stands in P,"),
        ("xml", lambda raw: b"", "no puzzle in XML (no element found"),
        ("xml", lambda raw: b"<html><body>Not found</body></html>", "16 panels are expected, not 0"),
        ("xml", lambda raw: BOMB, "a document type, which is not read"),
        ("xml", lambda raw: b'<!DOCTYPE d SYSTEM "file:///etc/passwd"><Data/>', "a document type, which is not read"),
        ("xml", lambda raw: b"<a>" * 300_000, "more than 4000 nodes"),
        ("xml", lambda raw: b'<?xml version="1.0" encoding="utf-7"?>' + raw, "no puzzle in XML"),
        ("xml", first(b"</Panels>", b"<Panel/></Panels>"), "16 panels are expected, not 17"),
        ("xml", first(b"<Panels>", b'<Panels><Entity Type="1"/>'), "Entity stands in Panels, and Layout is expected"),
        ("xml", first(b'"Singleton"', b'"Left_Right"'), "structure 'Left_Right', and Singleton is expected"),
        ("xml", first(b"Type=", b"Kind="), "a node without Type"),
        ("xml", first(b'Position="', b'Position="{}" Other="'), "is no list of the component's slots, 1 and"),
        ("xml", first(b'Position="', b'Position="7" Other="'), "is no list of the component's slots, 1 and"),
        ("xml", first(b'Position="', b'Position="[[0, 0], [1, 1]]" Other="'), "the component's slots, 1 and"),
        ("xml", first(b'Position="', b'Position="[" Other="'), "Position='[' is no JSON"),
        ("xml", first(b'Position="[[0.5', b'Position="[[0.4'), "the component's slots, 1 and in all panels the same"),
        ("xml", first(b'Position="', b'Position="' + b"[" * 50_000 + b'" Other="'), "no puzzle in XML"),
        ("xml", first(b' bbox="[0.5', b' bbox="[0.4'), "an Entity whose bbox is none of the slots"),
        ("xml", first(b"</Layout>", b'<Entity bbox="[0.5, 0.5, 1.0, 1.0]"/></Layout>'), "a node without Type"),
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
    with pytest.raises(ValueError, match=r"task\.data=.*nowhere: no such folder"):
        RavenFiles(SIZES, data=str(tmp_path / "nowhere")).num_problems("center", "test")
    with pytest.raises(ValueError, match="is no name of a puzzle"):
        task.draw(type(state)(state.configuration, state.context, state.choices, state.answer, "../../x"))


def test_links_that_lead_round_are_named(tmp_path: Path) -> None:
    written(tmp_path, "center", 2)
    below = tmp_path / "center_single"
    (below / "RAVEN_1_test.npz").unlink()
    (below / "RAVEN_1_test.npz").symlink_to(below / "RAVEN_1_test.npz")
    with pytest.raises(ValueError, match=r"1 of 2 puzzles cannot be used.*RAVEN_1_test\.npz"):
        RavenFiles(SIZES, data=str(tmp_path)).num_problems("center", "test")


def test_pictures_that_are_damaged_are_named_when_they_are_drawn(tmp_path: Path) -> None:
    written(tmp_path, "center", 1)
    path = tmp_path / "center_single" / "RAVEN_0_test.npz"
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"target.npy") - 40] ^= 255
    path.write_bytes(raw)
    task = RavenFiles(SIZES, data=str(tmp_path))
    with pytest.raises(ValueError, match=r"task=raven_files: center_single: RAVEN_0_test\.npz: "):
        task.draw(task.sample("center", "test", 0).state)


def test_a_puzzle_of_another_configuration_is_named(tmp_path: Path) -> None:
    written(tmp_path, "left_right", 1)
    (tmp_path / "left_center_single_right_center_single").rename(tmp_path / "up_center_single_down_center_single")
    with pytest.raises(ValueError, match="structure 'Left_Right', and Up_Down is expected"):
        RavenFiles(SIZES, data=str(tmp_path)).num_problems("up_down", "test")
    written(tmp_path, "grid_2x2", 1)
    (tmp_path / "distribute_four").rename(tmp_path / "distribute_nine")
    with pytest.raises(ValueError, match="the component's slots, 9 and"):
        RavenFiles(SIZES, data=str(tmp_path)).num_problems("grid_3x3", "test")


def test_what_is_tested_and_trained_on_is_counted(tmp_path: Path) -> None:
    written(tmp_path, "center", 3)
    below = tmp_path / "center_single"
    for end in ("npz", "xml"):
        (below / f"RAVEN_7_train.{end}").write_bytes((below / f"RAVEN_1_test.{end}").read_bytes())
        (below / f"RAVEN_2_test.{end}").rename(below / f"RAVEN_2_train.{end}")
    task = RavenFiles(SIZES, data=str(tmp_path))
    assert task.met_in_training(["center"], "center", "test").startswith("1 of its 2 puzzles in task.data")
    assert task.met_in_training(["grid_2x2"], "center", "test") == ""
    assert task.met_in_training(["center"], "center", "validation") == ""


def test_panels_of_xml_are_read_without_their_arrays(tmp_path: Path) -> None:
    (state,) = written(tmp_path, "out_grid", 1)
    path = tmp_path / CONFIGURATIONS["out_grid"].folder / "RAVEN_0_test.xml"
    assert read_panels(path, "out_grid") == (*state.context, *state.choices)
