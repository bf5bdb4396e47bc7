"""A base from start to end at the least size: phases of captions and of skills, in two parts as in one; its skills."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.tiny import outcome

from vlmreason.training.engine.keeper import RunKeeper

WORDS = (
    "layout=placed", "supervision=nano_reading", "smoke=true", "trainer.accelerator=cpu", "trainer.num_threads=1",
    "trainer.num_workers=0", "trainer.progress=false", "trainer.evaluate_every=0", "trainer.snapshots=0",
)  # fmt: skip
PHASES = ("captions", "values", "rows")


@pytest.fixture(scope="module")
def small() -> tuple[str, ...]:
    """The first phases alone."""
    from omegaconf import OmegaConf

    from vlmreason import places

    found: Any = OmegaConf.load(places.conf_dir() / "supervision" / "nano_reading.yaml")
    return (*WORDS, *(f"~supervision.phases.{name}" for name in found.phases if name not in PHASES))


@pytest.mark.parametrize("words", ["model=nano_first", "model.checkpoint=base"])
def test_weights_that_would_not_be_read_are_refused(words: str, tmp_path: Path, program: Any) -> None:
    done = program("pretrain", *WORDS, words, f"out={tmp_path}")
    assert done.code != 0 and f"{words}: has no effect" in done.err and not any(tmp_path.iterdir())


@pytest.mark.slow
def test_a_base_is_made_in_two_parts_as_in_one(
    small: tuple[str, ...], tmp_path: Path, program: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = program("pretrain", *small, f"out={tmp_path / 'one'}")
    assert done.code == 0, done.err
    assert "phase captions ends without its marks" in done.err and "phase rows ends without its marks" in done.err
    [run] = (tmp_path / "one").glob("*-s0-*")
    assert {path.name for path in (run / "checkpoints").iterdir()} >= {*PHASES, "final"}
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert any("mark/tables" in line for line in lines) and any("mark/table_rows_text" in line for line in lines)

    write_before = RunKeeper._write

    def write(self: RunKeeper, metrics: dict[str, Any], timing: dict[str, Any]) -> None:
        write_before(self, metrics, timing)
        if self.num_lines == 5:
            self.stop_request.requested = True

    with monkeypatch.context() as patch:
        patch.setattr(RunKeeper, "_write", write)
        assert program("pretrain", *small, f"out={tmp_path / 'two'}").code == 130
    assert program("pretrain", *small, f"out={tmp_path / 'two'}").code == 0
    [again] = (tmp_path / "two").glob("*-s0-*")
    assert outcome(again) == outcome(run)

    card = tmp_path / "README.md"
    card.write_text("# A base\n")
    base = f"model.checkpoint={run / 'checkpoints' / 'final'}"
    done = program("skills", base, "tasks=[table_reading_skills]", "num=1", "json=true", f"card={card}")
    assert done.code == 0, done.err
    rows = {row["level"]: row for row in map(json.loads, done.out.splitlines())}
    assert set(rows["value"]) == {"task", "level", "num", "text", "image"} and "image" not in rows["bare"]
    assert card.read_text().count("| table_reading_skills |") == len(rows)


def test_words_that_the_vocabulary_lacks_are_named(tmp_path: Path, program: Any) -> None:
    done = program("skills", "num=1", "model=nano_first")
    assert done.code == 2 and "task=table_reading_skills: the vocabulary has no " in done.err
    done = program("skills", "num=1", f"card={tmp_path / 'none.md'}")
    assert done.code == 2 and "none.md: no such file; the README.md of a base is expected" in done.err
