"""A mistake ends with exit code 2 and one sentence that names the nearest valid choice."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from vlmreason.assembly import errors
from vlmreason.training.reinforced import policy


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("tarin", "did you mean 'train'?"),
        ("-m train", "the command comes first"),
        ("train taks=table_readout", "did you mean 'task'?"),
        ("train task=tabel_readout", "did you mean 'table_readout'?"),
        ("train -m task=table_readout,tabel_readout", "did you mean 'table_readout'?"),
        ("train optimizer.lrr=1", "did you mean 'optimizer.lr'?"),
        ("train muon_lr=1", "did you mean 'scale.muon_lr' or 'optimizer.muon_lr'?"),
        ("train task.nano.levels.simple.num_cell=[3,4]", "did you mean 'task.nano.levels.simple.num_cells'?"),
        ("train supervision.phases.main.part.hard.views=[image]", "did you mean 'supervision.phases.main.parts'?"),
        ("train supervision/phase@supervision.phases.main=imag", "did you mean 'image'?"),
        ("train --seed=1", "seed=..."),
        ("train --multrun", "did you mean '--multirun'?"),
        ("train --cfg jb", "did you mean 'job'?"),
        ("train seed=[1", "seed=[1"),
        ("train foo", "key=value"),
        ("train +foo=1", "foo: no such key"),
        ("train seed=x", "seed='x': int is expected"),
        ("train optimizer.lr=nan", "optimizer.lr=nan: a finite number is expected"),
        ("train scale.lr=inf", "scale.lr=inf: a finite number is expected"),
        ("check algorithm=grpo algorithm.levels=[]", "algorithm.levels=[]: one or more are expected"),
        ("train algorithm=grpo algorithm.attempts=9", "algorithm.attempts=9 algorithm.max_new_tokens="),
        ("train task.paper.rows=[3,4]", "did you mean 'task.nano.rows'?"),
        ("train task.trace=vebose", "did you mean 'verbose'?"),
        ("generate", "out: must be given"),
        ("generate out=x level=simpel", "did you mean 'simple'?"),
        ("generate out=x split=tset", "did you mean 'test'?"),
        ("generate out=x format=lava", "did you mean 'llava'?"),
        ("generate out=x format=folder view=image", "view=image: has no effect"),
        ("generate out=x num=0", "num=0"),
        ("generate out=x workers=0", "workers=0"),
        ("generate out=x optimizer=adamw", "no such setting"),
        ("gallery tasks=[tabl_readout]", "did you mean 'table_readout'?"),
        ("score problems=/nope predictions=/nope", "/nope"),
        ("evaluate run=/nope", "/nope"),
        ("evaluate run=/nope task.trace=terse", "task=..."),
        ("completion fish", "bash, zsh"),
        ("train evaluation.levels=[simpel]", "evaluation.levels=simpel: table_readout has simple, hard"),
        ("train evaluation.levels=[simpel] evaluation.how=choose task=visual_analogy", "did you mean 'simple'?"),
        ("check evaluation.levels=[simpel]", "evaluation.levels=simpel: table_readout has simple, hard"),
        ("train algorithm=ppo env=number_line algorithm.levels=[x]", "algorithm.levels=x: number_line has"),
        ("train seed=0,1", "seed=0,1: a run for each value needs -m; one list of them is written seed=[0,1]"),
        ("train hydra/launcher=joblb", "hydra/launcher=joblb: no such launcher is installed; there are basic"),
        ("train -m hydra/launcher=submitit_slrm seed=0,1", 'it comes with pip install "vlmreason[slurm]"'),
        ("train --lr=0.1", "settings are written without dashes (did you mean 'scale.lr' or 'optimizer.lr'?)"),
        ("train model=Qwen/Qwen2-VL-2B", "model=Qwen/Qwen2-VL-2B: is written model=hf model.id=Qwen/Qwen2-VL-2B"),
        ("train model=./", "model=./: is written model=hf model.checkpoint=./"),
        ("figure experiment=fig5", "did you mean 'compositional/fig5' or 's2h/fig5'?"),
        ("train algorithm=ppo env=number_line algorithm.lr=1", "did you mean 'algorithm.optimizer.lr'?"),
        ("train env=number_line scale=paper scale.num_examples=5", "did you mean 'env.start.paper'?"),
        (
            "train algorithm=ppo env=number_line algorithm.optimizer.lrr=1",
            "did you mean 'algorithm.nano.optimizer.lr'?",
        ),
        ("train task=visual_analogy --cfg job seed=x model.x=1", "model.x: "),
        ("train trainer.accelerator=tpu", "trainer.accelerator='tpu': allowed are auto, cpu, gpu"),
        ("train trainer.accelerator=gpu", "trainer.accelerator=gpu: there is no GPU here"),
        (
            "train optimizer=adamw optimizer.part_lr.vision_tower=0.1 adapter.frozen=[vision_tower]",
            "optimizer.part_lr.vision_tower: no effect",
        ),
    ],
)
def test_mistyped(line: str, names: str, program, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    done = program(*line.split())
    assert " -m " in line or not any(tmp_path.iterdir())
    assert done.code == errors.MISTAKE
    assert names in done.err
    assert done.err.startswith("vlmreason: ")
    assert done.err.count("\n") == (1 if " -m " not in line else done.err.count("\n"))
    assert "Traceback" not in done.err
    assert done.out == ""


def test_options_may_stand_between_settings(program) -> None:
    first = program("train", "--cfg", "job", "seed=3", "scale=paper")
    between = program("train", "seed=3", "--cfg", "job", "scale=paper")
    assert (first.code, first.out) == (between.code, between.out) and "seed: 3" in first.out


@pytest.mark.parametrize("scale", ["nano", "paper"])
def test_the_advice_to_learn_slower_can_be_followed_as_it_is_printed(program, scale: str) -> None:
    source = (Path(policy.__file__)).read_text()
    advised = {"algorithm.optimizer.lr=1e-6", "algorithm.kl_limit=0.1", "trainer.precision=32-true"}
    assert all(word.partition("=")[0] in source for word in advised)
    done = program("train", "algorithm=ppo", "env=number_line", f"scale={scale}", *advised, "--cfg", "job")
    assert (done.code, done.err) == (0, "")
    assert yaml.safe_load(done.out)["algorithm"][scale]["optimizer"]["lr"] == 1e-6


def test_debug_shows_the_traceback(program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLMREASON_DEBUG", "1")
    done = program("generate", "out=x", "level=simpel")
    assert done.code == errors.MISTAKE
    assert "Traceback" in done.err
    assert done.err.splitlines()[-1].startswith("vlmreason: level=simpel")


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (KeyboardInterrupt(), 130, "vlmreason: interrupted\n"),
        (OSError(errno.ENOSPC, "No space left on device", "/data/x"), 1, "the disk is full (writing /data/x)"),
        (RuntimeError("writer failed: No space left on device"), 1, "the disk is full"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "a.txt"), 2, "a.txt: No such file or directory"),
        (ValueError("two\n  lines"), 2, "vlmreason: two lines\n"),
        (RuntimeError('Could not detect "srun", are you'), 2, "submitit_slurm: there is no SLURM on this machine"),
        (ZeroDivisionError("ours"), 1, "ZeroDivisionError: ours"),
    ],
)
def test_report(error: BaseException, code: int, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert errors.report(error) == code
    assert text in capsys.readouterr().err


def test_a_closed_pipe_is_no_error() -> None:
    words = f"{sys.executable} -m vlmreason --help | head -1"
    done = subprocess.run(["bash", "-c", words], capture_output=True, text=True)
    assert done.stdout.startswith("usage: vlmreason")
    assert done.stderr == ""
