"""Phases with marks: they end as soon as the marks are reached, refuse to go on without, and resume exactly."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny import SIZES, TRAINER, nano_task, outcome, shared_learner

from vlmreason.models.nano.model import build_nano, load_nano, read_vocabulary, read_words
from vlmreason.models.vlm.learner import Learner
from vlmreason.structure import structure
from vlmreason.supervision import Mark, Supervision
from vlmreason.tasks.captions import Captioned, Captions, Slot
from vlmreason.training.engine.keeper import RunKeeper
from vlmreason.training.engine.optimizers import OptimizerSettings
from vlmreason.training.engine.runner import Stopped, train
from vlmreason.training.engine.settings import TrainerSettings
from vlmreason.training.supervised import marks
from vlmreason.training.supervised.captions import TOKEN_RMS, CaptionData, CaptionStage, change, image_tokens
from vlmreason.training.supervised.marks import SkillMarks, exact_share, first_dialogues, kind_of, kind_shares

TASKS = {name: nano_task(name) for name in ("table_reading_skills", "grid_reading_skills", "panel_reading_skills")}
TABLES = "table_reading_skills"
PHASES: dict[str, Any] = {
    "captions": {
        "num_examples": 18,
        "train": ["vision_tower", "projector"],
        "captions": {TABLES: 1, "grid_reading_skills": 1, "panel_reading_skills": 1},
        "optimizer": {"end": 0.01, "warmup": 0.4, "fall": "linear", "betas": [0.9, 0.99]},
        "marks": {
            "tables": {"task": TABLES, "measure": "places", "share": 0.01, "num": 2},
            "panels": {"task": "panel_reading_skills", "measure": "bits", "share": 1.0, "num": 2},
        },
        "mark_every": 6,
    },
    "lists": {
        "num_examples": 80,
        "batch_size": 4,
        "optimizer": {"lr": 0.05, "muon_lr": 0.05, "end": 0.5},
        "train": ["language_model"],
        "parts": {
            "bare": {"task": TABLES, "level": "bare", "views": ["text"], "begins": [0, 90], "weight": 3},
            "values": {"task": TABLES, "level": "value", "views": ["text", "image"], "weight": 1},
        },
        "marks": {
            "cells": {"task": TABLES, "level": "bare", "view": "text", "measure": "cell", "share": 0.02, "num": 3}
        },
        "mark_every": 8,
    },
    "all": {"num_examples": 8, "parts": {"short": {"task": TABLES, "level": "short_list", "views": ["image"]}}},
}
MUON = OptimizerSettings("muon", lr=0.002, muon_lr=0.02)


def learner() -> Learner:
    settings = replace(SIZES, placed=True, start="composed")
    return Learner(*build_nano(settings, [*read_vocabulary(), *read_words()], seed=0))


def run(run_dir: Path, phases: Mapping[str, Any] = PHASES, **changes: Any) -> Path:
    settings = structure(TrainerSettings, vars(TRAINER) | {"marks": "warn"} | changes)
    run_dir.mkdir(parents=True, exist_ok=True)
    supervision = structure(Supervision, {"name": "tiny", "phases": phases})
    return train(learner(), TASKS, supervision, None, 0, MUON, settings, run_dir)


def lines(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("unbroken")
    run(run_dir)
    return run_dir


def test_a_phase_ends_when_its_marks_are_reached(unbroken: Path) -> None:
    found = lines(unbroken)
    steps = {name: max(line["step"] for line in found if line["phase"] == name) for name in PHASES}
    assert steps["captions"] == 6, "its second mark is out of reach"
    reached = [line for line in found if line["phase"] == "lists" and "mark/cells" in line]
    assert steps["lists"] == reached[-1]["step"] < 20 and reached[-1]["mark/cells"] >= 0.02
    assert all(line["mark/cells"] < 0.02 for line in reached[:-1])
    looks = [line["step"] for line in found if line["phase"] == "captions" and "mark/tables" in line]
    assert looks == [2, 4, 6]


def test_captions_train_the_tower_and_later_phases_what_they_name(unbroken: Path) -> None:

    first = learner().model.state_dict()
    captions, lists = (load_nano(unbroken / "checkpoints" / name)[0].state_dict() for name in ("captions", "lists"))

    def changed(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> set[str]:
        return {key.split(".")[1] for key in a if "lm_head" not in key and not torch.equal(a[key], b[key])}

    assert changed(first, captions) == {"vision_tower", "multi_modal_projector"}
    assert changed(captions, lists) == {"language_model"}


@pytest.mark.parametrize("num_lines", [1, 2, 5, 8, 9, 10, 12])
def test_a_run_with_marks_resumes_exactly(
    unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_lines: int
) -> None:
    written = RunKeeper._write

    def write(self: RunKeeper, metrics: dict[str, Any], timing: dict[str, Any]) -> None:
        written(self, metrics, timing)
        if self.num_lines == num_lines:
            self.stop_request.requested = True

    with monkeypatch.context() as patch:
        patch.setattr(RunKeeper, "_write", write)
        with pytest.raises(Stopped):
            run(tmp_path)
    assert len(lines(tmp_path)) < len(lines(unbroken))
    run(tmp_path)
    assert outcome(tmp_path) == outcome(unbroken)


def test_a_crash_at_the_look_that_ends_a_phase_changes_nothing(
    unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Crash(BaseException):
        pass

    def crash(*_: object, **__: object) -> None:
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(RunKeeper, "end_phase", crash)
        with pytest.raises(Crash):
            run(tmp_path)
    run(tmp_path)
    assert outcome(tmp_path) == outcome(unbroken)


def test_a_missed_mark_ends_with_a_sentence_and_a_warning_goes_on(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    hard = {"cells": {"task": TABLES, "level": "bare", "view": "text", "measure": "exact", "share": 0.9, "num": 2}}
    phases = {"lists": {**PHASES["lists"], "num_examples": 8, "marks": hard, "mark_every": None}, "all": PHASES["all"]}
    with pytest.raises(ValueError, match=r"^phase lists ends without its marks: cells \(exact, text\) 0.0% of 90.0%; "):
        run(tmp_path, phases, marks="refuse")
    assert not (tmp_path / "checkpoints" / "lists").exists()
    run(tmp_path, phases, marks="warn")
    assert "vlmreason: phase lists ends without its marks" in capfd.readouterr().err
    assert (tmp_path / "checkpoints" / "final" / "model.safetensors").is_file()


def test_a_start_outside_of_its_range_is_named_on_either_side() -> None:
    start = Mark("exact", 0.25, TABLES, "bare", "text", most=0.6)
    found = SkillMarks({"trained rule": start, "other rule": start}, TASKS, None, None)
    assert found.missing({"trained rule": 0.25, "other rule": 0.6}) == []
    assert found.missing({"trained rule": 0.12, "other rule": 0.97}) == [
        "trained rule (exact, text) 12.0% of 25.0%",
        "other rule (exact, text) 97.0% and 60.0% at most",
    ]


def test_a_measure_that_replies_do_not_have_is_named(tmp_path: Path) -> None:
    wrong = {"x": {"task": TABLES, "level": "bare", "view": "text", "measure": "mark", "share": 0.9, "num": 2}}
    phases = {"lists": {**PHASES["lists"], "num_examples": 4, "marks": wrong, "mark_every": None}}
    with pytest.raises(ValueError, match=r"marks\.x\.measure=mark: replies of bare hold none; there are exact, cell"):
        run(tmp_path, phases)


def test_kinds_of_tokens() -> None:
    pieces = {" (3,2)": "cell", "(1,1)": "cell", " 7": "digit", " & 7": "digit", " & \\cellcolor{yellow}6": "mark"}
    assert {piece: kind_of(piece) for piece in pieces} == pieces
    assert kind_of(" Mar") == kind_of(" \\\\\n") == "word"


def test_shares_of_right_replies_are_1_and_of_spoiled_ones_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that repeats what it is told: its replies are those that the problems have, or all but the last."""
    dialogues = first_dialogues(TASKS[TABLES], "value", "text", 5)

    def answers(num_right: int) -> float:
        from vlmreason.models.contract import Generation

        replies = [d.response.text if i < num_right else d.response.text + " 1" for i, d in enumerate(dialogues)]
        monkeypatch.setattr(Learner, "generate", lambda *_, **__: [Generation(r, 1, True) for r in replies])
        return exact_share(shared_learner(), TASKS[TABLES], "value", "text", 5)

    assert (answers(5), answers(3)) == (1.0, 0.6)
    assert set(kind_shares(shared_learner(), dialogues)) == {"cell", "digit", "end"}
    assert marks.BATCH > 5


def test_captions_say_what_the_picture_shows() -> None:
    """The same class always looks the same, and different ones differ: of tables and grids, patch by patch."""
    for name in (TABLES, "grid_reading_skills"):
        task: Any = TASKS[name]
        form, seen = task.captions(24), {}
        for index in range(12):
            state = task.sample("transcribe", "train", index).state
            picture, (classes, bits) = task.draw(state), task.caption(state)
            assert len(classes) == len(form.places) == 36 and not any(bits)
            for place, [one] in zip(form.places, classes, strict=True):
                row, col = divmod(place, 6)
                patch = picture[
                    row * 24 + 2 : row * 24 + 22, col * 24 + 2 : col * 24 + 22
                ].tobytes()  # within its lines
                assert 0 <= one < form.slots[0].num_classes
                if one:  # nothing there looks differently at the corner and beyond the grid
                    assert seen.setdefault(one, patch) == patch
        assert len(set(seen.values())) == len(seen) > 20


def test_captions_of_panels() -> None:
    task: Any = TASKS["panel_reading_skills"]
    form = task.captions(24)
    assert form.places == (0, 2, 3, 12, 14, 15, 18, 20, 30, 32, 33, 35)
    assert [slot.num_classes for slot in form.slots] == [4] * 4 + [6] * 4 + [5] * 4 + [5] * 6 and form.num_bits == 30
    state = task.sample("transcribe", "train", 3).state
    classes, bits = task.caption(state)
    for panel, found, have in zip(state.panels, classes, bits, strict=True):
        assert sum(value > 0 for value in found) == 3 * len(panel.shapes) + len(panel.lines)
        assert sum(have[:3]) == len({shape[0] for shape in panel.shapes}) and sum(have[20:26]) == len(panel.lines)
    with pytest.raises(ValueError, match=r"no patch of 48 px lies within a panel"):
        task.captions(48)


def test_tokens_that_are_all_free_keep_their_size_alone() -> None:
    forms = {"panels": Captions((0,), (Slot("cell", 2),), free=(0, 1))}
    micro = {"panels/classes": torch.zeros(3, 1, 1)}
    now, before = torch.full((3, 2, 4), -1.0), torch.ones(3, 2, 4)
    assert change(forms, now, before, micro).item() == 0 < change(forms, 3 * now, before, micro).item()
    kept = {"panels": replace(forms["panels"], free=())}
    assert change(kept, now, before, micro).item() == 4


def test_kept_tokens_stay_and_free_ones_may_change(tmp_path: Path) -> None:
    names = {"num_examples": 160, "captions": {TABLES: 8}, "train": ["vision_tower", "projector"]}
    first = learner()
    pixels = CaptionData(TASKS, {TABLES: 8}, first, 1, seed=3)[0]["micro_batches"][0]["pixel_values"]
    free = list(TASKS[TABLES].captions(24).free)
    cells = [i for i in range(36) if i not in free]
    assert len(free) == 10 and 0 in cells

    def moved(keep: float) -> tuple[float, float]:
        """By how much tokens of cells and of names have changed, as a share of their size."""
        phases = {"captions": {**names, "keep": keep, "optimizer": {"lr": 0.005, "muon_lr": 0.02}}}
        last = Learner(*load_nano(run(tmp_path / str(keep), phases)))
        with torch.no_grad():
            before, after = (image_tokens(one, pixels) for one in (first, last))
        change = (after - before).pow(2).mean(dim=(0, 2)) / before.pow(2).mean()
        return float(change[cells].mean()), float(change[free].mean())

    held, loose = moved(100.0), moved(0.01)
    assert held[0] < 0.3 * loose[0] and held[0] < 0.3 * held[1]


def test_tokens_tell_their_own_place(tmp_path: Path) -> None:
    mark = {"task": "panel_reading_skills", "measure": "own place", "share": 0.4, "num": 8}
    phase = {
        "num_examples": 1600,
        "train": ["vision_tower", "projector"],
        "captions": {"panel_reading_skills": 8},
        "marks": {"where": mark},
        "mark_every": 80,
    }
    run(tmp_path, {"captions": phase})
    shares = [line["mark/where"] for line in lines(tmp_path) if "mark/where" in line]
    assert shares[0] < 0.25 and shares[-1] >= 0.4, "of 12 places"


def test_kept_tokens_are_those_of_the_beginning_after_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    phases = {"captions": {**PHASES["captions"], "keep": 5.0, "marks": {}, "mark_every": None}}
    run(tmp_path / "whole", phases)
    written = RunKeeper._write

    def write(self: RunKeeper, metrics: dict[str, Any], timing: dict[str, Any]) -> None:
        written(self, metrics, timing)
        if self.num_lines == 3:
            self.stop_request.requested = True

    with monkeypatch.context() as patch:
        patch.setattr(RunKeeper, "_write", write)
        with pytest.raises(Stopped):
            run(tmp_path / "parts", phases)
    run(tmp_path / "parts", phases)
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")


def test_what_has_no_captions_is_refused() -> None:
    phase = structure(Supervision, {"name": "x", "phases": {"c": PHASES["captions"]}}).phase("c")
    tasks = {**TASKS, TABLES: nano_task("table_readout")}
    with pytest.raises(ValueError, match=r"captions.table_reading_skills: the task says nothing of patches"):
        CaptionStage(learner(), tasks, "c", phase, MUON, 0)
    assert all(isinstance(task, Captioned) for task in TASKS.values())
    assert not isinstance(nano_task("table_readout"), Captioned) and TOKEN_RMS == 0.1


def test_pictures_of_captions_are_the_same_from_any_step() -> None:
    whole = CaptionData(TASKS, PHASES["captions"]["captions"], learner(), 4, seed=0)
    rest = CaptionData(TASKS, PHASES["captions"]["captions"], learner(), 4, seed=0)
    rest.first_step = 2
    a, b = whole[3]["micro_batches"][0], rest[1]["micro_batches"][0]
    assert len(rest) == 2 and all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["pixel_values"], whole[2]["micro_batches"][0]["pixel_values"])


@pytest.mark.parametrize(
    ("phase", "changes", "sentence"),
    [
        ("captions", {"train": "all"}, r"train: vision_tower, projector or both are expected"),
        ("captions", {"batch_size": 3}, r"batch_size=3: has no effect"),
        ("captions", {"keep": -1.0}, r"keep=-1.0: 0 or more is expected"),
        ("all", {"keep": 1.0}, r"keep=1.0: has no effect without captions"),
        ("captions", {"captions": {TABLES: 0}}, r"1 or more pictures"),
        ("captions", {"parts": PHASES["all"]["parts"]}, r"parts and captions exclude each other"),
        ("lists", {"marks": {}}, r"mark_every=8: 1 or more is expected, in a phase with marks"),
        ("lists", {"marks": {"a": {"measure": "exact", "share": 0.5}}}, r"marks.a: level and view are expected"),
        ("lists", {"marks": {"a": {**PHASES["lists"]["marks"]["cells"], "share": 2}}}, r"share=2.0: more than 0"),
        ("lists", {"marks": {"a": {**PHASES["lists"]["marks"]["cells"], "measure": "cel"}}}, r"did you mean 'cell'"),
        ("lists", {"marks": {"a": {**PHASES["lists"]["marks"]["cells"], "most": 0.01}}}, r"most=0.01: from share=0.02"),
        ("captions", {"marks": {"a": {"measure": "bits", "share": 1, "task": "other"}}}, r"a task of captions is"),
        ("captions", {"marks": {"a": {"measure": "bits", "share": 0.1, "most": 0.5}}}, r"most=0.5: has no effect in a"),
    ],
)
def test_bad_phases_end_with_a_sentence(phase: str, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        structure(Supervision, {"name": "x", "phases": {phase: PHASES[phase] | changes}})


def test_a_mark_s_level_is_one_of_its_task() -> None:
    supervision = structure(Supervision, {"name": "x", "phases": {"lists": PHASES["lists"]}})
    levels = {name: task.levels for name, task in TASKS.items()}
    supervision.check_levels(None, levels)
    wrong = replace(supervision.phases["lists"], marks={"a": Mark("exact", 0.5, TABLES, "barely", "text")})
    with pytest.raises(ValueError, match=r"marks.a.level='barely'.*did you mean 'bare'"):
        replace(supervision, phases={"lists": wrong}).check_levels(None, levels)
