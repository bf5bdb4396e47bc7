"""Runs that are asked both ways, by writing and by choosing, through the program."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.families import write_tiny
from support.program import Done, runner

from vlmreason.assembly import build
from vlmreason.studies import library
from vlmreason.studies.measures import follow_up, is_made, read_measure, sample

TRAIN = [
    "train", "task=visual_analogy", "supervision=none", "scale.num_problems=3", "scale.max_response_tokens=4",
    "trainer.progress=false", "trainer.accelerator=cpu", "trainer.num_threads=1", "evaluation.levels=[simple]",
]  # fmt: skip
CHOOSE = "evaluation.how=choose"
LETTERS = [f"Answer: option {letter}" for letter in "ABCD"]


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Done]:
    monkeypatch.chdir(tmp_path)
    return runner(monkeypatch, capsys)


def lines(folder: Path) -> list[dict[str, Any]]:
    paths = sorted((folder / "predictions").iterdir())
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def evaluated(program: Callable[..., Done], *words: str) -> Path:
    done = program(*words)
    assert done.code == 0, done.err
    return Path(done.last_line)


@pytest.mark.parametrize("kind", ["nano", "family", "composed"])
def test_a_model_is_asked_both_ways(program: Callable[..., Done], tmp_path: Path, kind: str) -> None:
    model = {
        "nano": ["model=nano"],
        "family": ["model=hf", "model.dtype=float32"],
        "composed": ["model=nano_composed"],
    }[kind]
    if kind == "family":
        model.append(f"model.checkpoint={write_tiny('qwen2_5_vl', tmp_path / 'tiny')}")
    run = evaluated(program, *TRAIN, *model, CHOOSE)
    chosen = lines(run)
    assert len(chosen) == 6
    for line in chosen:
        texts, scores = zip(*((one["text"], one["logprob"]) for one in line["options"]), strict=True)
        assert list(texts) == LETTERS
        assert line["response"] == texts[scores.index(max(scores))]
        assert max(scores) < 0 and len(set(scores)) > 1
    summary = json.loads((run / "summary.json").read_text())
    assert summary["unparsed"] == summary["cut_off"] == 0
    before = {path: path.read_bytes() for path in run.glob("*.json")}

    words = ["evaluate", f"run={run}", "scale.num_problems=3", "evaluation.levels=[simple]", "accelerator=cpu"]
    written = evaluated(program, *words, "scale=nano", "scale.max_response_tokens=4")
    assert written != run and all("options" not in line for line in lines(written))
    assert evaluated(program, *words, "scale=nano", CHOOSE) == run
    fewer = program(*words, "scale=nano", CHOOSE, "evaluation.num=2", "evaluation.views=[image]")
    assert fewer.last_line.startswith(f"{run}/evaluations/visual_analogy-final-choose-n2-")
    assert lines(Path(fewer.last_line)) == [line for line in chosen if line["view"] == "image"][:2]
    listed = program("evaluate", f"run={run}", "list=true")
    assert listed.out.splitlines()[:-1] == fewer.out.splitlines()[-6:-1] and "-final-generate-n" not in listed.out
    assert [line.split()[0] for line in listed.out.splitlines()[2:-1]] == [
        "visual_analogy-final-choose-n3", Path(fewer.last_line).name, written.name,
    ]  # fmt: skip
    assert before == {path: path.read_bytes() for path in run.glob("*.json")}

    record = library.local_record(run, build.evaluated_task)
    assert {(one.own, one.how) for one in record.evaluations} == {
        (True, "choose"), (False, "choose"), (False, "generate"),
    }  # fmt: skip
    for how, wanted in (("auto", summary["cells"][0]), ("choose", summary["cells"][0]), ("generate", None)):
        measure = read_measure({"what": "part:option", "how": how})
        cell = wanted or json.loads((written / "summary.json").read_text())["cells"][0]
        assert is_made(record, measure)
        assert sample(record, measure, 0).values == (cell["option"],)
    assert follow_up(read_measure({"how": "choose"}), {}) == ("evaluate", "evaluation.how=choose")


def test_a_run_that_was_never_evaluated_is_evaluated_apart(program: Callable[..., Done], tmp_path: Path) -> None:
    """As pretraining leaves one: its configuration asks for no evaluation."""
    run = evaluated(program, *TRAIN, "model=nano")
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump({k: v for k, v in config.items() if k != "evaluation"}))
    for name in ("evaluation.json", "summary.json"):
        (run / name).unlink()
    words = ["evaluate", f"run={run}", "evaluation.levels=[simple]", "accelerator=cpu"]
    assert evaluated(program, *words).parent == run / "evaluations"


def test_episodes_are_chosen_turn_by_turn_while_training_and_afterwards(
    program: Callable[..., Done], tmp_path: Path
) -> None:
    small = ["env.start.nano=16", "scale.batch_size=8", "trainer.evaluate_every=1"]
    words = [word for word in TRAIN if not word.startswith(("task", "supervision", "evaluation"))]
    run = evaluated(program, *words, "env=number_line", "trainer.evaluate_num=2", *small, CHOOSE)
    for line in lines(run):
        responses = json.loads(line["response"])
        assert len(line["options"]) == len(responses) > 0
        for text, options in zip(responses, line["options"], strict=True):
            assert [one["text"] for one in options] == ['{"action": "+"}', '{"action": "-"}']
            assert text == max(options, key=lambda one: one["logprob"])["text"]
    assert json.loads((run / "summary.json").read_text())["parsed_share"] == 1.0
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["parsed_share/standard/image"] for line in metrics if "parsed_share/standard/image" in line] == [1, 1]


def test_what_cannot_be_chosen_is_said_before_anything_is_trained(program: Callable[..., Done], tmp_path: Path) -> None:
    base = [word for word in TRAIN if not word.startswith(("task", "supervision"))]
    visual = [*base, "task=visual_analogy", CHOOSE]
    endpoint = ["supervision=none", "model=api", "model.url=http://127.0.0.1:1/v1", "model.model=m"]
    for words, says in (
        ([*base, "task=table_readout", CHOOSE], "evaluation.how=choose: table_readout offers no options"),
        ([*base, "env=general_points", CHOOSE], "evaluation.how=choose: general_points offers no options"),
        ([*visual, "evaluation.conversion=force"], "evaluation.conversion=force: has no effect with evaluation.how"),
        ([*visual, "evaluation.prefill=So"], "evaluation.prefill=So: has no effect with evaluation.how=choose"),
        ([*visual, "evaluation.max_new_tokens=9"], "evaluation.max_new_tokens=9: has no effect with evaluation.how"),
        ([*visual, *endpoint], "evaluation.how=choose: a model behind an endpoint only writes text"),
        ([*visual, "evaluation.how=guess"], "evaluation.how='guess': allowed are"),
    ):
        done = program(*words)
        assert (done.code, says in done.err) == (2, True), done.err
        assert len(done.err.strip().splitlines()) == 1
        assert not (tmp_path / "outputs").exists()


def test_runs_that_write_are_the_runs_they_were(composed: Any) -> None:
    from vlmreason import runs

    cfg = composed("train", "task=visual_analogy")
    assert "how" not in cfg["evaluation"]
    assert runs.config_hash(composed("train", "task=visual_analogy", CHOOSE)) != runs.config_hash(cfg)
