"""A run's identity, its directory and its record."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from vlmreason import files, provenance, runs


def test_name_says_what_the_run_is(composed) -> None:
    cfg = composed("train", "seed=3", "supervision=mix")
    name = runs.run_directory(cfg)
    assert re.fullmatch(r"outputs/table_readout-mix-nano-s3-[0-9a-f]{12}", str(name))


def test_same_command_same_directory_in_another_process(composed) -> None:
    code = """if True:
        from hydra import compose, initialize_config_dir
        from vlmreason import places, runs
        from vlmreason.assembly import compose as composing
        words = ["seed=5", "optimizer.lr=0.002"]
        with initialize_config_dir(str(places.conf_dir()), version_base="1.3"):
            print(runs.run_name(composing.resolve(compose("train", words), words)))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PATH": ""})
    assert done.stdout.strip() == runs.run_name(composed("train", "optimizer.lr=2e-3", "seed=5"))


def test_paths_and_launch_settings_are_no_part_of_it(composed) -> None:
    plain = runs.config_hash(composed("train"))
    same = ["out=elsewhere", "logger=wandb", "trainer.devices=2", "trainer.num_workers=4", "task.trace=null"]
    for override in same:
        assert runs.config_hash(composed("train", override)) == plain, override
    different = ["seed=1", "optimizer.lr=0.5", "task.nano.rows=[4,4]", "scale.num_align=64", "task.trace=verbose"]
    hashes = {runs.config_hash(composed("train", override)) for override in different}
    assert len(hashes | {plain}) == len(different) + 1


def test_where_the_code_lies_is_no_part_of_it(composed, tmp_path: Path) -> None:
    cfg = composed("train", f"out={tmp_path}")
    moved = cfg | {"task": cfg["task"] | {"_target_": "elsewhere.Task"}, "model": cfg["model"] | {"_target_": "gone.M"}}
    assert runs.config_hash(moved) == runs.config_hash(cfg)
    assert runs.difference_of_common(moved, cfg, {}) == []
    folder = runs.open_run(moved)
    assert runs.open_run(cfg) == folder
    assert runs.difference_of_common(cfg | {"task": cfg["task"] | {"name": "other"}}, cfg, {}) is None


def test_what_changes_speed_alone_is_marked_beside_its_type(composed) -> None:
    """Every mark names a setting that configurations have, so none is left behind when a setting is renamed."""
    from vlmreason import places
    from vlmreason.assembly import build

    groups = {place.partition(".")[0] for place in runs.not_identity()} - {"out", "launch"}
    assert groups == {"logger", "trainer", "scale", "evaluation", "algorithm", "model"}
    cfg = composed("train")
    marked = runs.not_identity()
    for group in ("trainer", "scale", "evaluation"):
        assert {place for place in marked if place.startswith(f"{group}.")} <= {
            f"{group}.{key}" for key in cfg[group]
        }, group
    held = "".join((places.conf_dir() / "model" / f"{name}.yaml").read_text() for name in ("api", "smarter_vlm"))
    assert all(f"\n{place[6:]}:" in held for place in marked if place.startswith("model."))
    assert build.build_scale(cfg).micro_tokens == 1024


def test_whole_numbers_are_the_same_as_floats() -> None:
    assert runs.config_hash({"a": 1.0, "b": (1, 2)}) == runs.config_hash({"b": [1, 2], "a": 1})
    assert runs.config_hash({"a": True}) != runs.config_hash({"a": 1.5})


def test_a_run_is_opened_again_and_another_one_refused(tmp_path: Path, composed) -> None:
    cfg = composed("train", f"out={tmp_path}")
    folder = runs.open_run(cfg)
    assert runs.read_config(folder) == cfg
    assert runs.open_run(cfg) == folder
    record = json.loads((folder / "provenance.json").read_text())
    assert len(record["restarts"]) == 1
    assert record["seeds"] == {"seed": 0}
    assert record["config_hash"] == runs.config_hash(cfg)
    (folder / "config.yaml").write_text((folder / "config.yaml").read_text().replace("seed: 0", "seed: 9"))
    with pytest.raises(ValueError, match="holds another configuration: seed is 9 there, 0 here"):
        runs.open_run(cfg)
    (folder / "config.yaml").write_bytes(b"\xff\xfe: [")
    with pytest.raises(ValueError, match="damaged"):
        runs.open_run(cfg)


def test_provenance_of_a_checkout() -> None:
    record = provenance.collect({"seed": 4}, "abc")
    assert json.loads(json.dumps(record)) == record
    assert record["versions"]["torch"]
    assert record["hardware"]["cores"] >= 1
    assert record["hardware"]["cpu"]
    if (Path(__file__).parents[1] / ".git").exists():
        assert re.fullmatch("[0-9a-f]{40}", record["source"]["commit"])


def test_atomic_writing_leaves_the_old_file_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deep" / "a.json"
    files.write_json_atomic(path, {"a": 1})
    assert json.loads(path.read_text()) == {"a": 1}

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write_text_atomic(path, "new")
    assert [file.name for file in path.parent.iterdir()] == ["a.json"]
    assert json.loads(path.read_text()) == {"a": 1}


def test_a_model_of_another_commit_does_not_continue_a_run(tmp_path: Path) -> None:
    cfg = {"seed": 0, "out": str(tmp_path)}
    source = {"id": "owner/model", "revision": "main", "commit": "a" * 40}
    folder = runs.open_run(cfg, source)
    assert json.loads((folder / "provenance.json").read_text())["model"] == source
    assert runs.open_run(cfg, source) == folder
    with pytest.raises(ValueError, match=r"model.revision=main: owner/model was at commit a{40} when the run began"):
        runs.open_run(cfg, source | {"commit": "b" * 40})


def test_two_processes_do_not_work_on_one_run(tmp_path: Path) -> None:
    cfg = {"seed": 0, "out": str(tmp_path)}
    program = "import sys; from vlmreason import runs; runs.open_run({'seed': 0, 'out': sys.argv[1]})"
    command = [sys.executable, "-c", program + "; print('open', flush=True); sys.stdin.read()", str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "open\n"
        with pytest.raises(ValueError, match="another process is working on this run"):
            runs.open_run(cfg)
        other.communicate("")
    assert runs.open_run(cfg) == runs.open_run(cfg)
