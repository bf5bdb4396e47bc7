"""`vlmreason analyze`: tables, files, repetition, and one sentence for what is wrong."""

import dataclasses
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from support.program import Done, runner

from vlmreason import provenance
from vlmreason.__main__ import main
from vlmreason.analysis.subjects import Over
from vlmreason.assembly import analyses, catalog

SMALL = (
    "task=table_readout", "supervision=align_mix_plus", "scale.num_examples=16", "scale.num_align=8",
    "scale.batch_size=8", "evaluation.num=2", "evaluation.max_new_tokens=8", "trainer.accelerator=cpu",
    "trainer.precision=32-true", "trainer.num_threads=1", "trainer.num_workers=0", "trainer.progress=false",
)  # fmt: skip
TEXT = "evaluations/table_readout-00000000"


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    fixed = {"commit": "abc", "dirty": False, "diff": "", "diff_cut": False, "untracked": []}
    monkeypatch.setattr(provenance, "source", lambda: fixed)
    return runner(monkeypatch, capsys)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two phases with its own evaluation and another one."""
    out = tmp_path_factory.mktemp("analyzed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["vlmreason", "train", *SMALL, f"out={out}"])
        with pytest.raises(SystemExit) as end:
            main()
        assert not end.value.code
    [run] = out.glob("*-s0-*")
    other = run / TEXT
    (other / "predictions").mkdir(parents=True)
    shutil.copy(run / "evaluation.json", other)
    shutil.copy(run / "predictions" / "hard-text.jsonl", other / "predictions")
    return run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def content(path: Path) -> dict[str, Any]:
    data = json.loads(path.read_text())
    assert isinstance(data, dict)
    return data


def test_failures_of_the_runs_own_evaluation(run: Path, program: Callable[..., Done]) -> None:
    shutil.rmtree(run / "checkpoints")  # no model is needed
    done = program("analyze", f"run={run}", "what=failures")
    assert done.code == 0, done.err
    place = run / "analysis" / "failures.json"
    assert done.out.splitlines()[-1] == str(place)
    assert "hard image" in done.out and "incorrect" in done.out
    found = content(place)
    assert [(cell["level"], cell["view"], cell["num"]) for cell in found["results"]] == [
        (level, view, 2) for level in ("simple", "hard") for view in ("text", "image")
    ]
    assert found["inputs"]["evaluation"]["task"] == "table_readout"
    assert found["source"] == {"commit": "abc", "changes": None}


def test_failures_of_another_evaluation(run: Path, program: Callable[..., Done]) -> None:
    for word in (Path(TEXT).name, str(run / TEXT)):
        done = program("analyze", f"run={run}", "what=failures", f"folder={word}", "num_worst=1")
        assert done.code == 0, done.err
        place = run / "analysis" / f"failures-{Path(TEXT).name}.json"
        assert done.out.splitlines()[-1] == str(place)
        (cell,) = content(place)["results"]
        assert (cell["level"], cell["view"], len(cell["worst"])) == ("hard", "text", 1)


def test_gradients_of_every_phase(run: Path, program: Callable[..., Done]) -> None:
    done = program("analyze", f"run={run}", "what=gradients", "num=4", "batch_size=2", "accelerator=cpu")
    assert done.code == 0, done.err
    found = content(run / "analysis" / "gradients.json")
    assert [one["checkpoint"] for one in found["results"]] == ["align", "main"]
    assert set(found["inputs"]["checkpoints"]) == {"align", "main"}
    for one in found["results"]:
        assert one["alignment"]["alignment"] != 0 and one["alignment"]["adam"] != 0
        assert one["alignment"]["simple"]["num_samples"] == 2 and one["levels"] == ["simple", "hard"]
        losses = one["losses"]
        assert set(losses) == {"text_given_image", "solution_given_image_and_text", "solution_given_image"}
        assert losses["solution_given_image"]["mean"] == pytest.approx(
            one["alignment"]["hard"]["loss"]["mean"], rel=1e-4
        )
    words = ("num=2", "batch_size=1", "projection=64", "train=[language_model]", "phase=main", f"out={run}/sketch.json")
    done = program("analyze", f"run={run}", "what=gradients", *words)
    assert done.code == 0, done.err
    assert "standard deviation" in done.out and content(run / "sketch.json")["settings"]["adam"] is False


def test_gradients_of_kept_steps(run: Path, program: Callable[..., Done]) -> None:
    """A checkpoint within a phase is one more row, before the phase's end."""
    (kept,) = (run / "checkpoints" / "steps").iterdir()
    state = content(kept / "state.json")
    state["run"] |= {"phase": "main", "step": 1, "done": ["align"], "finished": False}
    (kept / "state.json").write_text(json.dumps(state))
    shutil.move(kept, kept.with_name("main-1"))
    done = program("analyze", f"run={run}", "what=gradients", "num=2", "batch_size=1", "adam=false", "accelerator=cpu")
    assert done.code == 0, done.err
    align, step, main_phase = content(run / "analysis" / "gradients.json")["results"]
    assert step["checkpoint"] == "main-1"
    assert step["alignment"]["alignment"] == pytest.approx(main_phase["alignment"]["alignment"], rel=1e-4)
    assert align["alignment"]["alignment"] != step["alignment"]["alignment"]


def test_attribution(run: Path, program: Callable[..., Done]) -> None:
    done = program("analyze", f"run={run}", "what=attribution", "num=2", "levels=[hard]", "accelerator=cpu")
    assert done.code == 0, done.err
    (found,) = content(run / "analysis" / "attribution.json")["results"]
    assert 0 < found["regions"]["path"]["share"]["mean"] < 1
    assert len(found["examples"]) == 2 and len(found["examples"][0]["top"]["segment 1"]) == 208
    assert "path and names" in done.out


def test_likelihood_of_a_task(run: Path, program: Callable[..., Done]) -> None:
    words = ("what=likelihood", "num=3", "levels=[hard]", "view=text", "phase=align", "accelerator=cpu")
    done = program("analyze", f"run={run}", *words)
    assert done.code == 0, done.err
    place = run / "analysis" / "likelihood.json"
    assert done.out.splitlines()[-1] == str(place)
    found = content(place)
    assert set(found["inputs"]["checkpoints"]) == {"align"}
    assert (found["settings"]["view"], found["settings"]["max_new_tokens"]) == ("text", 8)
    [hard] = found["results"]
    assert (hard["level"], hard["num"], hard["num_episodes"]) == ("hard", 3, 3)
    assert 0 < hard["thought"]["num_tokens"]["mean"] <= 8 and hard["thought"]["logprob"]["mean"] < 0
    assert "log p thought" in done.out and "hard" in done.out


def test_likelihood_of_an_environment(program: Callable[..., Done], tmp_path: Path) -> None:
    """Whole test episodes, shown as the environment is; nothing is computed again that is there."""
    small = [word for word in SMALL if not word.startswith(("task=", "supervision=", "scale.num"))]
    assert program("train", "env=number_line", "env.start.nano=8", *small, f"out={tmp_path}").code == 0
    [run] = tmp_path.glob("*-s0-*")
    words = ("analyze", f"run={run}", "what=likelihood", "num=6", "batch_size=2", "temperature=0.5", "accelerator=cpu")
    done = program(*words)
    assert done.code == 0, done.err
    place = run / "analysis" / "likelihood.json"
    found = content(place)
    assert set(found["inputs"]["checkpoints"]) == {"final"}
    assert {key: found["settings"][key] for key in ("view", "split", "temperature")} == {
        "view": "image", "split": "test", "temperature": 0.5,
    }  # fmt: skip
    [level] = found["results"]
    assert level["num"] == level["unread"]["num"] >= 6 >= level["num_episodes"] >= 1
    held = place.read_bytes()
    again = program(*words)
    assert "is there already" in again.err and again.out == done.out and place.read_bytes() == held
    other = program(*words, "seed=1")
    assert "is replaced: settings.seed is 0 there, 1 here" in other.err
    done = program(*words, "levels=[hard]")
    assert done.code == 2 and "level=hard: number_line has standard" in done.err


def test_repeating_says_what_it_does(run: Path, program: Callable[..., Done]) -> None:
    words = ("analyze", f"run={run}", "what=failures")
    place = run / "analysis" / "failures.json"
    first = program(*words)
    assert first.err == ""
    held = place.read_bytes()
    again = program(*words)
    assert "is there already" in again.err and again.out == first.out and place.read_bytes() == held
    other = program(*words, "num_worst=1")
    assert "is replaced: settings.num_worst is 5 there, 1 here" in other.err
    place.write_text("{}")
    assert "is replaced: it is damaged" in program(*words).err
    assert content(place)["results"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["what=gradient"], "did you mean 'gradients'?"),
        (["what=failures", "num=3"], "num=3: has no effect on what=failures"),
        (["what=attribution", "view=text"], "view=text: has no effect on what=attribution"),
        (["what=failures", "folder=table_readout-0000000"], "did you mean 'table_readout-00000000'?"),
        (["what=failures", "num_worst=-1"], "num_worst=-1"),
        (["what=gradients", "phase=mian"], "did you mean 'main'?"),
        (["what=gradients", "levels=[simple,hrad]"], "did you mean 'hard'?"),
        (["what=gradients", "projection=100", "adam=true"], "adam=true"),
        (["what=gradients", "split=tset"], "did you mean 'test'?"),
        (["what=likelihod"], "did you mean 'likelihood'?"),
        (["what=likelihood", "train=all"], "train=all: has no effect on what=likelihood"),
        (["what=gradients", "temperature=0.5"], "temperature=0.5: has no effect on what=gradients"),
        (["what=likelihood", "temperature=0"], "temperature=0.0: more than 0"),
        (["what=likelihood", "levels=[hrad]"], "did you mean 'hard'?"),
        (["what=likelihood", "view=image_via_text"], "view"),
    ],
)
def test_mistakes_are_one_sentence(words: list[str], message: str, trained: Path, program: Callable[..., Done]) -> None:
    done = program("analyze", f"run={trained}", *words)
    assert done.code == 2
    assert message in done.err and done.err.count("\n") == 1
    assert not (trained / "analysis").exists()


def test_what_is_missing_or_damaged_is_named(run: Path, program: Callable[..., Done]) -> None:
    def says(*words: str) -> str:
        done = program("analyze", *words)
        assert done.code == 2 and done.err.count("\n") == 1, done.err
        return done.err

    assert "no run directory" in says(f"run={run}/nowhere", "what=failures")
    damaged = run / "predictions" / "hard-image.jsonl"
    text = damaged.read_text()
    damaged.write_text(text.replace("{", "<", 1))
    assert f"{damaged}:1: the line is damaged" in says(f"run={run}", "what=failures")
    damaged.write_text(text)
    record = content(run / "evaluation.json")
    (run / "evaluation.json").write_text(json.dumps(record | {"task_version": 99}))
    assert "version 99" in says(f"run={run}", "what=failures")
    (run / "evaluation.json").write_text(json.dumps({"task": "table_readout"}))
    assert "evaluation.json: the file is damaged" in says(f"run={run}", "what=failures")
    (run / "evaluation.json").unlink()
    assert f"choose one of folder={Path(TEXT).name}" in says(f"run={run}", "what=failures")
    shutil.rmtree(run / TEXT / "predictions")
    assert "no predictions" in says(f"run={run}", "what=failures", f"folder={Path(TEXT).name}")
    weights = run / "checkpoints" / "final" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    assert "weights are damaged" in says(f"run={run}", "what=attribution")
    shutil.rmtree(run / "checkpoints")
    assert "no finished phase" in says(f"run={run}", "what=gradients")


@pytest.mark.parametrize("what", catalog.analyses())
def test_every_analysis_is_a_module_with_what_the_command_needs(what: str) -> None:
    module = analyses.find(what)
    assert module.OVER in get_args(Over)
    keys = {setting.key for setting in catalog.settings("analyze")}
    fields = dataclasses.fields(module.Settings)
    own = {"max_new_tokens"}  # the run's, not the user's
    assert {field.name for field in fields} <= keys | own
    assert callable(module.run) and callable(module.table)


def test_each_analysis_is_named_by_the_help(program: Callable[..., Done]) -> None:
    shown = program("analyze", "--help").out
    assert len(catalog.analyses()) >= 4
    for what, words in catalog.analyses().items():
        assert f"what={what}" in shown and words.split(":")[0].split()[0] in shown
