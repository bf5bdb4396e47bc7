"""Exports: the three formats, order and bytes whatever the processes, continuing, refusing."""

import base64
import csv
import importlib.util
import io
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from support.sampled import READ_FROM_FILES

from vlmreason import places
from vlmreason.assembly import build, catalog
from vlmreason.data import export as export_module
from vlmreason.data.export import export
from vlmreason.data.formats import ExportSettings, place
from vlmreason.scale import Scale
from vlmreason.structure import structure

FIELDS = [
    "id",
    "task",
    "level",
    "split",
    "index",
    "text",
    "prompt_text",
    "prompt_image",
    "file_name",
    "convert",
    "thought",
    "answer",
    "meta",
]


@pytest.fixture(scope="module")
def task():
    scale = yaml.safe_load((places.conf_dir() / "scale" / "nano.yaml").read_text())
    return build.load_task("table_readout", structure(Scale, scale, "scale"))


def content(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != export_module.STATE_FILE]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_folder_holds_every_field_and_the_pictures(task, tmp_path: Path) -> None:
    path = export(task, ExportSettings("hard", "test", 11), tmp_path / "a", {}, num_workers=2)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert path == tmp_path / "a" / "test" / "metadata.jsonl"
    assert [row["index"] for row in rows] == list(range(11))
    for row in rows:
        problem = task.sample("hard", "test", row["index"])
        assert list(row) == FIELDS
        assert task.state_from_json(json.loads(row["meta"])) == problem.state
        assert row["thought"] + row["answer"] == "".join(task.thought(problem.state)) + task.answer(problem.state)
        picture = np.asarray(Image.open(path.parent / row["file_name"]))
        assert np.array_equal(picture, task.draw(problem.state))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "format"), [("table_readout", "folder"), ("grid_navigation", "folder"), ("visual_analogy", "lmms_eval")]
)
def test_datasets_reads_every_split_and_field(program, name: str, format: str, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    for split, num in (("train", 12), ("validation", 3), ("test", 4)):
        assert (
            program("generate", f"task={name}", f"split={split}", f"num={num}", "out=d", f"format={format}").code == 0
        )
    read = datasets.load_dataset("imagefolder", data_dir=str(tmp_path / "d"), cache_dir=str(tmp_path / "cache"))
    assert {split: rows.num_rows for split, rows in read.items()} == {"train": 12, "validation": 3, "test": 4}
    for split, rows in read.items():
        lines = (tmp_path / "d" / split / "metadata.jsonl").read_text().splitlines()
        for row, line in zip(rows, map(json.loads, lines), strict=True):
            picture = Image.open(tmp_path / "d" / split / line.pop("file_name"))
            assert np.array_equal(np.asarray(row.pop("image")), np.asarray(picture))
            assert row == line


def function(loader: yaml.Loader, node: yaml.ScalarNode) -> object:
    """As lmms-eval reads `!function utils.name`: from the file beside the YAML."""
    module, name = loader.construct_scalar(node).split(".")
    spec = importlib.util.spec_from_file_location(module, Path(loader.name).parent / f"{module}.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return getattr(loaded, name)


def test_lmms_eval_asks_and_scores(program, tmp_path: Path) -> None:
    words = ("generate", "task=table_readout", "format=lmms_eval", "num=6", "out=kit")
    done = program(*words, "level=hard", "task.trace=verbose")
    assert (done.code, done.last_line) == (0, "kit/vlmreason_table_readout_hard_test.yaml"), done.err
    loader = type("Loader", (yaml.FullLoader,), {})
    loader.add_constructor("!function", function)
    with (tmp_path / done.last_line).open("rb") as file:
        kit = yaml.load(file, loader)
    assert kit["dataset_kwargs"] == {"data_dir": str(tmp_path / "kit")} and kit["test_split"] == "test"
    rows = [json.loads(line) for line in (tmp_path / "kit" / "test" / "metadata.jsonl").read_text().splitlines()]
    responses = [row["thought"] + kit["doc_to_target"](row) for row in rows]
    responses[0] = "no idea"
    responses[1] = rows[2]["answer"]
    results = [kit["process_results"](row, [text]) for row, text in zip(rows, responses, strict=True)]
    metrics = {m["metric"]: m["aggregation"]([r[m["metric"]] for r in results]) for m in kit["metric_list"]}
    assert metrics == {"accuracy": 4 / 6, "unparsed": 1 / 6}
    assert [kit["doc_to_text"](row) for row in rows] == [row["prompt_image"] for row in rows]
    [picture] = kit["doc_to_visual"]({"image": Image.open(tmp_path / "kit" / "test" / rows[0]["file_name"])})
    assert picture.mode == "RGB"

    lines = [{"doc_id": 9, "filtered_resps": [t], **r} for t, r in zip(responses, results, strict=True)]
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = program("score", "task.trace=verbose", "problems=kit/test/metadata.jsonl", "predictions=samples.jsonl")
    assert json.loads(done.out)["correct"] == 4

    done = program(*words, "level=hard", "split=train")
    assert done.code == 2 and "out=kit: holds another task" in done.err
    assert not (tmp_path / "kit" / "train").exists()


@pytest.mark.parametrize("format", ["folder", "parquet", "llava", "vlmevalkit"])
def test_bytes_do_not_depend_on_the_number_of_processes(task, format, tmp_path: Path) -> None:
    settings = ExportSettings("simple", "train", 21, format)
    export(task, settings, tmp_path / "a", {}, num_workers=1)
    export(task, settings, tmp_path / "b", {}, num_workers=3)
    assert content(tmp_path / "a") == content(tmp_path / "b")


@pytest.mark.parametrize("view", ["text", "image", "image_via_text"])
def test_llava_conversations(task, view, tmp_path: Path) -> None:
    path = export(task, ExportSettings("simple", "train", 3, "llava", view), tmp_path, {}, num_workers=1)
    for index, row in enumerate(json.loads(path.read_text())):
        state = task.sample("simple", "train", index).state
        human, gpt = row["conversations"]
        assert (human["from"], gpt["from"]) == ("human", "gpt")
        assert human["value"].startswith("<image>\n") == ("image" in row) == (view != "text")
        assert (tmp_path / row["image"]).is_file() if view != "text" else not list(tmp_path.glob("*.png"))
        assert gpt["value"].startswith(task.convert(state)) == (view == "image_via_text")
        assert gpt["value"].endswith(task.answer(state))


def test_vlmevalkit_rows(task, tmp_path: Path) -> None:
    path = export(task, ExportSettings("simple", "test", 3, "vlmevalkit"), tmp_path, {}, num_workers=1)
    rows = list(csv.DictReader(io.StringIO(path.read_text()), delimiter="\t"))
    assert len(rows) == 3
    for row in rows:
        state = task.sample("simple", "test", int(row["index"])).state
        assert row["question"] == task.prompt(state, "image")
        assert row["answer"] == task.answer(state)
        picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(row["image"]))))
        assert np.array_equal(picture, task.draw(state))


@pytest.mark.parametrize("format", ["folder", "parquet", "llava", "vlmevalkit"])
def test_continued_after_an_interruption_without_doing_anything_twice(
    task, format, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ExportSettings("simple", "train", 50, format)
    export(task, settings, tmp_path / "whole", {}, num_workers=1)
    original, broken = export_module._write_all, tmp_path / "broken"

    def interrupted(file, data: bytes) -> None:
        if file.tell() > 0 and b"-train-24" in data:
            original(file, data[: len(data) // 2])  # a cut-off record is left behind
            raise KeyboardInterrupt
        original(file, data)

    monkeypatch.setattr(export_module, "_write_all", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export(task, settings, broken, {}, num_workers=1)
    state = broken.joinpath(*place(settings), export_module.STATE_FILE)
    assert json.loads(state.read_text())["done"] == 24
    monkeypatch.setattr(export_module, "_write_all", original)

    made = []
    chunks = export_module._chunks

    def watched(task, settings, folder, ranges, num_workers):
        for indices, records in chunks(task, settings, folder, ranges, num_workers):
            made.append(indices)
            yield indices, records

    monkeypatch.setattr(export_module, "_chunks", watched)
    export(task, settings, broken, {}, num_workers=2)
    assert made[0].start == 24
    assert content(broken) == content(tmp_path / "whole")
    made.clear()
    export(task, settings, broken, {}, num_workers=2)
    assert made == []


@pytest.mark.slow
def test_continued_after_a_kill(tmp_path: Path) -> None:
    """The whole process group is killed at some moment; the same command ends with the same files."""
    words = [sys.executable, "-m", "vlmreason", "generate", "num=1500", "workers=2"]
    killed = subprocess.Popen([*words, f"out={tmp_path / 'a'}"], start_new_session=True, stdout=subprocess.DEVNULL)
    while killed.poll() is None and not (tmp_path / "a" / "test" / ".generate.json").exists():
        time.sleep(0.02)
    try:
        killed.wait(timeout=0.4)
    except subprocess.TimeoutExpired:
        import os
        import signal

        os.killpg(killed.pid, signal.SIGKILL)
        killed.wait()
        for picture in (tmp_path / "a").rglob("[!.]*.png"):
            assert picture.read_bytes().endswith(b"IEND\xaeB`\x82"), "cut off under its own name"
    for name in "ab":
        subprocess.run([*words, f"out={tmp_path / name}"], check=True, capture_output=True)
    assert content(tmp_path / "a") == content(tmp_path / "b")


def test_another_configuration_is_refused_and_kept(task, tmp_path: Path) -> None:
    export(task, ExportSettings("simple", "test", 2), tmp_path, {"config": 1}, num_workers=1)
    before = content(tmp_path)
    for settings, identity in [
        (ExportSettings("hard", "test", 2), {"config": 1}),
        (ExportSettings("simple", "test", 3), {"config": 1}),
        (ExportSettings("simple", "test", 2), {"config": 2}),
    ]:
        with pytest.raises(ValueError, match="holds another configuration"):
            export(task, settings, tmp_path, identity, num_workers=1)
    assert content(tmp_path) == before


def test_a_foreign_folder_is_refused(task, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="was not made by generate"):
        export(task, ExportSettings("simple", "test", 2), tmp_path, {}, num_workers=1)
    assert content(tmp_path) == {"thesis.tex": b"years of work"}


def test_an_export_without_folders_of_splits_is_refused_and_kept(task, tmp_path: Path) -> None:
    export(task, ExportSettings("simple", "test", 2, "llava"), tmp_path, {}, num_workers=1)
    before = content(tmp_path)
    with pytest.raises(ValueError, match="holds an export outside of a folder of its split"):
        export(task, ExportSettings("simple", "test", 2), tmp_path, {}, num_workers=1)
    assert content(tmp_path) == before


def test_splits_share_an_image_folder_and_a_card_beside_them_stays(task, tmp_path: Path) -> None:
    export(task, ExportSettings("simple", "test", 2), tmp_path, {}, num_workers=1)
    (tmp_path / "README.md").write_text("What this is.")
    for _ in range(2):
        export(task, ExportSettings("hard", "train", 3), tmp_path, {}, num_workers=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "test", "train"]


@pytest.mark.parametrize("format", ["folder", "vlmevalkit"])
def test_a_problem_without_a_picture_is_one_sentence(program, format: str, tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "Who?"}, {"from": "gpt", "value": "I."}]
    (tmp_path / "data.json").write_text(json.dumps([{"id": str(i), "conversations": turns} for i in range(40)]))
    words = ("generate", "task=llava_data", "task.data=data.json", "task.held_out=0.3", "level=instruction")
    done = program(*words, f"format={format}", "out=a")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert f"format={format}: llava_data-instruction-test-0 has no picture" in done.err
    assert program(*words, "format=llava", "out=b").code == 0


def test_a_damaged_state_is_one_sentence(task, tmp_path: Path) -> None:
    export(task, ExportSettings("simple", "test", 2), tmp_path, {}, num_workers=1)
    (tmp_path / "test" / export_module.STATE_FILE).write_text('{"holds":')
    with pytest.raises(ValueError, match="damaged"):
        export(task, ExportSettings("simple", "test", 2), tmp_path, {}, num_workers=1)


def test_command_and_sweep(program, tmp_path: Path) -> None:
    done = program("generate", "num=3", "out=one")
    assert (done.code, done.last_line) == (0, "one/test/metadata.jsonl")
    assert not (tmp_path / "outputs").exists()
    done = program("generate", "-m", "level=simple,hard", "split=train,test", "num=2", "out=all/${level}_${split}")
    assert done.code == 0
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == [
        "hard_test",
        "hard_train",
        "simple_test",
        "simple_train",
    ]


def test_a_failing_job_of_a_sweep_leaves_the_others_alone(program, tmp_path: Path) -> None:
    done = program("generate", "-m", "level=simpel,hard", "num=2", "out=${level}")
    assert done.code == 2
    assert "vlmreason: job 0: level=simpel: table_readout has" in done.err
    assert "Traceback" not in done.err
    assert (tmp_path / "hard" / "test" / "metadata.jsonl").is_file()


def test_a_job_sees_its_own_command_line(program, monkeypatch: pytest.MonkeyPatch) -> None:
    """What starts further processes from `sys.argv` starts this job, not the sweep."""
    from vlmreason.commands import gallery

    seen = []
    monkeypatch.setattr(gallery, "run", lambda cfg: seen.append((list(sys.argv), cfg["num"])))
    assert program("gallery", "-m", "num=1,2", "split=test").code == 0
    assert seen == [(["vlmreason", "gallery", f"num={n}", "split=test"], n) for n in (1, 2)]


def test_hydras_own_options(program) -> None:
    done = program("generate", "out=x", "scale=paper", "--cfg", "job", "--resolve")
    assert done.code == 0
    assert "name: paper" in done.out
    assert program("gallery", "--cfg", "job", "--package", "scale").out.startswith("# @package scale\nname: nano\n")
    done = program("gallery", "--info", "defaults")
    assert done.code == 0
    assert "scale/nano" in done.out


def test_score_reads_what_generate_wrote(program, tmp_path: Path) -> None:
    program("generate", "num=6", "level=hard", "out=p")
    rows = [json.loads(line) for line in (tmp_path / "p" / "test" / "metadata.jsonl").read_text().splitlines()]
    answers = [{"id": row["id"], "response": row["thought"] + row["answer"]} for row in rows]
    answers[0]["response"] = "no idea"
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(answer) + "\n" for answer in answers))
    done = program("score", "problems=p/test/metadata.jsonl", "predictions=answers.jsonl")
    assert done.code == 0
    summary = json.loads(done.out)
    assert (summary["num"], summary["correct"], summary["unparsed"]) == (6, 5, 1)


def test_gallery_shows_every_view_and_needs_nothing_else(program, tmp_path: Path) -> None:
    done = program("gallery", "tasks=[table_readout]", "out=page.html")
    page = (tmp_path / "page.html").read_text()
    assert done.last_line == "page.html"
    assert page.count('<article class="problem">') == 2
    assert page.count("data:image/png;base64,") == 2
    assert "&amp; " in page  # LaTeX's column signs are escaped
    assert page.count('class="kind convert"') >= 2
    for outside in ("http:", "https:", "<script", "<link"):
        assert outside not in page


def test_gallery_knows_every_task_and_environment(program, tmp_path: Path) -> None:
    """Also those whose file is what another one changes."""

    names = [*catalog.groups()["task"], *catalog.groups()["env"]]
    shown = [name for name in names if name not in (*READ_FROM_FILES, "alfworld")]  # these need data of the user's
    assert {"table_readout", "general_points_l", "virl_l"} <= set(shown)
    assert program("gallery", f"tasks=[{','.join(shown)}]", "num=1", "out=page.html").code == 0
    page = (tmp_path / "page.html").read_text()
    assert page.count('<article class="problem">') >= len(shown)
    assert page.count("No picture: of text alone") == 6  # levels of the reading skills


def test_a_state_with_a_key_too_many_is_another_configuration(task, tmp_path: Path) -> None:
    export(task, ExportSettings("simple", "test", 2), tmp_path, {}, num_workers=1)
    path = tmp_path / "test" / ".generate.json"
    state = json.loads(path.read_text())
    path.write_text(json.dumps({**state, "holds": {**state["holds"], "more": None}}))
    with pytest.raises(ValueError, match="holds another configuration"):
        export(task, ExportSettings("simple", "test", 2), tmp_path, {}, num_workers=1)
