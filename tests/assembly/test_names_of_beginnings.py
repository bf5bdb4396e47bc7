"""Which runs share their first phases: equal names where nothing that decides these differs, others where it does."""

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.launching import settings

from vlmreason import provenance
from vlmreason.assembly import beginnings as names_of
from vlmreason.assembly import compose, planning
from vlmreason.models.contract import AdapterSettings
from vlmreason.training.engine import beginnings

Composed = Callable[..., dict[str, Any]]
GAME = ("env=number_line", "supervision=expert")


def test_a_strategy_with_the_same_first_phase(composed: Composed) -> None:
    found = names_of.names(composed("train"))
    assert list(found) == ["align", "main"]
    assert names_of.names(composed("train", "supervision=align")) == {"align": found["align"]}
    other = names_of.names(composed("train", "supervision/phase@supervision.phases.main=image_plus"))
    assert other["align"] == found["align"] and other["main"] != found["main"]
    warmed = names_of.names(composed("train", "supervision=tw_align_mix_plus"))
    assert warmed["text_warmup"] == names_of.names(composed("train", "supervision=tw_mix_plus"))["text_warmup"]
    assert warmed["align"] != found["align"], "what came before it differs"


def test_what_follows_is_no_part_of_it(composed: Composed) -> None:
    imitation = names_of.names(composed("train", *GAME))
    assert list(imitation) == ["expert"]
    for words in (["algorithm=ppo"], ["algorithm=grpo"], ["algorithm=ppo", "algorithm.gamma=0.5"]):
        assert names_of.names(composed("train", *GAME, *words)) == imitation


def test_a_start_that_is_accepted_at_its_end_is_shared(composed: Composed) -> None:
    """By all that go on with it in another way, and not by those who ask for something else or go on without."""
    asked = [f"+supervision.phases.expert.marks.read.{key}={value}" for key, value in
             {"measure": "exact", "share": 0.25, "level": "standard", "view": "image"}.items()]  # fmt: skip
    start = names_of.names(composed("train", *GAME, *asked))
    assert list(start) == ["expert"] and start != names_of.names(composed("train", *GAME))
    for words in (["algorithm=ppo"], ["algorithm=ppo", "algorithm.thought_weight=0.1"], ["algorithm=grpo"]):
        assert names_of.names(composed("train", *GAME, *asked, *words)) == start
    stricter = [*asked[:1], "+supervision.phases.expert.marks.read.share=0.5", *asked[2:]]
    for words in ([*asked, "trainer.marks=warn"], stricter):
        assert names_of.names(composed("train", *GAME, *words))["expert"] != start["expert"]
    assert names_of.names(composed("train", *GAME, *asked, "+supervision.phases.expert.mark_every=640")) == {}


def test_a_pull_of_views_is_part_of_it(composed: Composed) -> None:
    pulled = names_of.names(composed("train", "supervision=match_mix_plus"))
    weaker = names_of.names(composed("train", "supervision=match_mix_plus", "supervision.phases.match.match=0.5"))
    without = names_of.names(composed("train", "supervision=match_mix_plus", "supervision.phases.match.match=0"))
    assert len({one["match"] for one in (pulled, weaker, without)}) == 3


@pytest.fixture(scope="module")
def cfg(composed: Composed) -> dict[str, Any]:
    return composed("train")


def changed(cfg: dict[str, Any], place: str, value: Any) -> dict[str, Any]:
    """A configuration with another value at a dotted place."""
    found = copy.deepcopy(cfg)
    *groups, key = place.split(".")
    section = found
    for group in groups:
        section = section[group]
    section[key] = value
    return found


def test_a_network_is_made_for_its_levels(composed: Composed) -> None:
    found = composed("train", *GAME, "model=cnn")
    assert names_of.names(found)["expert"] != names_of.names(composed("train", *GAME))["expert"]
    acting = {**found, "algorithm": {"name": "ppo", "levels": None}}
    assert names_of.names(acting) == names_of.names(found)
    assert names_of.names(changed(acting, "algorithm.levels", ["hard"])) != names_of.names(found)


SAME = {
    "supervision.phases.main.num_examples": 600, "supervision.phases.main.optimizer": {"lr": 0.5},
    "supervision.phases.main.batch_size": 8, "supervision.phases.main.thought": "remove", "supervision.name": "mine",
    "evaluation.num": 3, "evaluation.conversion": "force", "evaluation.views": ["text"], "scale.num_problems": 7,
    "scale.max_response_tokens": 9, "logger.name": "wandb", "out": "elsewhere", "trainer.evaluate_num": 3,
    "trainer.num_workers": 0, "trainer.checkpoint_every": 7, "trainer.progress": False, "task.trace": "terse",
    "model._target_": "vlmreason.before.Nano",
}  # fmt: skip
LORA = {"name": "lora", "frozen": [], "parts": ["language_model"], "r": 2, "alpha": 4, "dropout": 0.0}
OTHER = {
    "seed": 1, "optimizer.lr": 0.5, "optimizer.weight_decay": 0.5, "trainer.precision": "bf16-mixed", "adapter": LORA,
    "model.name": "nano_first", "scale.batch_size": 8, "scale.micro_tokens": 999, "scale.max_length": 999,
    "scale.trace": "verbose", "task.trace": "verbose", "task.sizes.rows": [4, 4], "task.wording": {"step": "{cell}"},
    "supervision.phases.align.num_examples": 600, "supervision.phases.align.optimizer": {"lr": 0.5},
    "supervision.phases.align.batch_size": 8, "supervision.phases.align.thought": "remove",
    "supervision.phases.align.train": ["language_model"], "supervision.phases.align.pool": "main",
    "supervision.phases.align.parts.simple.views": ["text"], "supervision.phases.align.parts.simple.epochs": 2,
    "supervision.order": "interleave", "supervision.thought": "remove", "supervision.tasks": ["grid_navigation"],
    "trainer.log_every": 3, "trainer.packing": "rows", "trainer.snapshots": 2, "trainer.gradient_checkpointing": True,
    "trainer.strategy": "fsdp",
}  # fmt: skip


@pytest.mark.parametrize("place", SAME)
def test_same(cfg: dict[str, Any], place: str) -> None:
    assert names_of.names(changed(cfg, place, SAME[place]))["align"] == names_of.names(cfg)["align"]


@pytest.mark.parametrize("place", OTHER)
def test_other(cfg: dict[str, Any], place: str) -> None:
    assert names_of.names(changed(cfg, place, OTHER[place]))["align"] != names_of.names(cfg)["align"]


def test_adapters_differ(cfg: dict[str, Any]) -> None:
    lora = changed(cfg, "adapter", LORA)
    assert names_of.names(changed(lora, "adapter.r", 4)) != names_of.names(lora)


def test_evaluations_while_training_are_lines_of_the_metrics(cfg: dict[str, Any]) -> None:
    evaluated = changed(cfg, "trainer.evaluate_every", 5)
    found = names_of.names(evaluated)["align"]
    assert found != names_of.names(cfg)["align"]
    for place in ("trainer.evaluate_num", "evaluation.views", "scale.max_response_tokens"):
        assert names_of.names(changed(evaluated, place, SAME[place]))["align"] != found, place
    for place, value in (("evaluation.batch_size", 3), ("supervision.phases.main.num_examples", 600)):
        assert names_of.names(changed(evaluated, place, value))["align"] == found, place


def test_switched_off(cfg: dict[str, Any]) -> None:
    assert names_of.names(changed(cfg, "trainer.reuse", False)) == {}
    assert names_of.names(changed(cfg, "supervision.phases", {})) == {}


def test_files_that_settings_name(cfg: dict[str, Any], tmp_path: Path) -> None:
    def name() -> str:
        return names_of.names(changed(cfg, "model.checkpoint", str(tmp_path)))["align"]

    (tmp_path / "model.safetensors").write_text("one")
    first = name()
    assert name() == first
    os.utime(tmp_path / "model.safetensors", ns=(0, 0))
    assert name() != first


def test_where_it_is_trained(cfg: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Code, versions, device, threads and processes change the last bits; settings alone do not tell them."""
    cfg = changed(cfg, "trainer.accelerator", "cpu")
    here = names_of.name_here(cfg, None)
    assert here == names_of.name_here(cfg, None) and here != names_of.names(cfg)
    assert names_of.name_here(cfg, {"commit": "a"}) != here
    for place in ("trainer.num_threads", "trainer.devices"):
        other = changed(cfg, place, 7)
        assert names_of.names(other) == names_of.names(cfg)
        assert names_of.name_here(other, None) != here
    monkeypatch.setattr(provenance, "code_digest", lambda apart: "other")
    assert names_of.name_here(cfg, None) != here


def test_the_code_that_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "vlmreason"
    for name in ("__init__.py", "tasks/__init__.py", "tasks/a.py", "report/__init__.py", "report/b.py", "conf/c.py"):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text("")
    monkeypatch.setattr(provenance.vlmreason, "__file__", str(package / "__init__.py"))
    before = provenance.code_digest(beginnings.APART)
    for name in ("report/b.py", "conf/c.py", "tasks/a.pyc"):
        (package / name).write_text("changed")
        assert provenance.code_digest(beginnings.APART) == before
    (package / "tasks" / "a.py").write_text("changed")
    assert provenance.code_digest(beginnings.APART) != before
    assert AdapterSettings.__module__.split(".")[1] not in beginnings.APART


def planned(composed: Composed, *lines: str) -> list[planning.Planned]:
    return [planning.Planned(line.split(), composed("train", *line.split())) for line in lines]


def test_jobs_that_train_for_others_come_first(composed: Composed) -> None:
    jobs = planned(
        composed,
        "supervision=tw_mix_plus",
        "supervision=mix",
        "supervision=align",
        "supervision=tw_align_mix_plus supervision/phase@supervision.phases.main=image_plus",
        "supervision=align_mix_plus seed=1",
        "supervision=tw_align_mix_plus",
        "supervision=align_mix_plus",
        "supervision=align_mix_plus trainer.reuse=false",
    )
    ordered, saving = planning.share_beginnings(jobs)
    assert [jobs.index(job) for job in ordered] == [2, 3, 1, 4, 7, 0, 5, 6]
    num = sum(phase["num_examples"] for job in jobs for phase in job.config["supervision"]["phases"].values())
    assert saving == (
        f"5 of them share 3 first phases, trained once: 16,000 of {num:,} examples ({16000 / num:.0%}) are saved"
    )


def test_jobs_without_a_common_beginning(composed: Composed) -> None:
    jobs = planned(composed, "supervision=mix", "supervision=align_mix_plus", "supervision=align_mix_plus seed=1")
    assert planning.share_beginnings(jobs) == (jobs, "")
    same = planned(composed, "supervision=align_mix_plus", "supervision=align out=elsewhere")
    assert planning.share_beginnings(same) == (same, ""), "another folder has other beginnings"
    there = [planning.Planned(job.overrides, job.config, run_dir=Path("x")) for job in planned(composed, "", "seed=0")]
    assert planning.share_beginnings(there) == (there, ""), "nothing is trained"


def test_a_sweep_says_what_it_saves(program: Callable[..., Any], base: Path) -> None:
    words = [f"{key}={compose.override_value(value)}" for key, value in settings(base).items() if key != "supervision"]
    words = [word.replace("[[text]]", "[text]") for word in words]
    Path("plan.yaml").write_text("command: train\ngrids: [{supervision: [align, align_mix_plus]}]\n")
    done = program("sweep", "plan", "plan=plan.yaml", "dir=s", f"set={compose.override_value(words)}")
    assert (done.code, done.err) == (0, "")
    price, *lines = done.out.splitlines()
    assert price.startswith("2 runs, about ")
    assert lines[:2] == [
        "2 jobs planned",
        "2 of them share 1 first phase, trained once: 4,000 of 8,048 examples (50%) are saved",
    ]


def test_from_the_command_line(program: Callable[..., Any], base: Path) -> None:
    words = [f"{key}={compose.override_value(value)}" for key, value in settings(base).items() if key != "supervision"]
    words = [word.replace("[[text]]", "[text]") for word in words] + ["scale.num_align=16"]
    main = "supervision/phase@supervision.phases.main=image_plus"
    alone = program("train", *words, main, "trainer.reuse=false", "out=alone")
    assert alone.code == 0 and not Path("alone", "beginnings").exists()
    checked = program("check", *words, main, "num=2")
    assert checked.out.count('"taken_from": null') == 2
    first = program("train", *words)
    assert first.code == 0 and "taken" not in first.out
    checked = program("check", *words, main, "num=2")
    one, other = checked.out.splitlines()
    name = Path(first.last_line).name
    assert f'"taken_from": "{name}"' in one and '"taken_from": null' in other
    second = program("train", *words, main)
    assert second.code == 0
    assert second.out.splitlines()[0].startswith(f"phase align: taken from {name}, which trained ")
    for file in ("metrics.jsonl", "checkpoints/final/model.safetensors", "checkpoints/align/model.safetensors"):
        assert Path(second.last_line, file).read_bytes() == Path(alone.last_line, file).read_bytes()
    third = program("train", *words, main, "trainer.precision=bf16-true")
    assert third.code == 0 and "taken" not in third.out
