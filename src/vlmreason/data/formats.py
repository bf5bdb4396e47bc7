"""What a problem is in each format that `export` writes: its record, and the picture beside it.

folder      Hugging Face image folder: `metadata.jsonl`, one object per problem, and a PNG per problem beside it
lmms_eval   the same, for the task folder of data/lmms_eval.py
parquet     the same columns in one file with the pictures in it (data/parquet.py); a record holds them as base64
llava       conversation JSON: a list of {id, image, conversations}, and the PNGs
vlmevalkit  TSV with index, id, image (base64 PNG), question, answer, category (the level), split
own         as sets of the task's family are published, of tasks that say how (`Task.own_record`)

Of an environment a number is an episode of its expert, and a record is a turn of it, with what the turn led to. The
evaluation kits get none: what they ask does not depend on what was answered before.
"""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from vlmreason.dialogue.build import build_dialogue
from vlmreason.dialogue.parse import kinds_of
from vlmreason.envs.base import Env
from vlmreason.files import write_bytes_atomic
from vlmreason.pictures import Picture, png_bytes
from vlmreason.segments import CONVERT, View
from vlmreason.streams import SPLITS
from vlmreason.structure import check_choice, check_positive
from vlmreason.tasks.base import Problem, Task, state_to_json

Format = Literal["folder", "parquet", "lmms_eval", "llava", "vlmevalkit", "own"]
OF_KITS = ("lmms_eval", "vlmevalkit")
_COLUMNS = ("index", "id", "image", "question", "answer", "category", "split")


@dataclass(frozen=True)
class ExportSettings:
    """What is written: `num` problems, or episodes of an environment. `view` is for llava alone (null: image)."""

    level: str
    split: str
    num: int
    format: Format = "folder"
    view: View | None = None

    def __post_init__(self) -> None:
        check_choice("split", self.split, SPLITS)
        check_positive(self, "num")
        if self.view is not None and self.format != "llava":
            raise ValueError(f"view={self.view}: has no effect with format={self.format}")


@dataclass(frozen=True)
class _Item:
    """A problem, or a turn of an episode with what is said of turns beside."""

    id: str
    problem: Problem[Any]
    turn: Mapping[str, Any] = field(default_factory=dict)


def check_format(task: Task[Any], format: Format) -> None:
    """Raise ValueError where a format cannot hold what the task has."""
    if format == "own" and (isinstance(task, Env) or not task.own_file):
        raise ValueError(f"format=own: there are no sets on disk of the kind of {task.name} to be written")
    if isinstance(task, Env) and format in OF_KITS:
        others = ", ".join(one for one in get_args(Format) if one not in OF_KITS)
        raise ValueError(
            f"format={format}: {task.name} is an environment, where every response decides what is asked next, and "
            f"the kit asks single questions; allowed are {others}"
        )


def place(settings: ExportSettings) -> tuple[str, ...]:
    """Name the folders, one in the other, that an export has to itself below the one that it shares with others."""
    if settings.format == "parquet":
        return settings.level, settings.split
    return (settings.split,) if settings.format in ("folder", "lmms_eval") else ()


def file_name(task: Task[Any], settings: ExportSettings) -> str:
    """Name the file of all records."""
    names = {
        "vlmevalkit": f"{task.name}_{settings.level}_{settings.split}.tsv",
        "llava": "conversations.json",
        "own": task.own_file,
    }
    return names.get(settings.format, "problems.parquet" if settings.format == "parquet" else "metadata.jsonl")


def records(task: Task[Any], settings: ExportSettings, folder: Path, index: int) -> str:
    """Return the records of a number as they stand in the file; the pictures of some formats go to `folder`.

    What stands before the first and behind the last record is in it.
    """
    items = _items(task, settings, index)
    last = index + 1 == settings.num
    if settings.format in ("llava", "own"):
        own, view = settings.format == "own", settings.view or "image"
        rows = [
            json.dumps(task.own_record(item.problem, folder) if own else _llava_row(task, item, view, folder))
            for item in items
        ]
        return "[\n" * (index == 0) + ",\n".join(rows) + ("\n]\n" if last else ",\n")
    if settings.format == "vlmevalkit":
        lines = [_tsv_line(_vlmevalkit_row(task, item)) for item in items]
        return _tsv_line(_COLUMNS) * (index == 0) + "".join(lines)
    return "".join(json.dumps(_row(task, item, settings.format, folder)) + "\n" for item in items)


def _items(task: Task[Any], settings: ExportSettings, index: int) -> Iterator[_Item]:
    level, split = settings.level, settings.split
    if not isinstance(task, Env):
        problem = task.sample(level, split, index)
        yield _Item(problem.id, problem)
        return
    for number, (state, outcome) in enumerate(task.expert_episode(level, split, index)):
        problem = Problem(task.name, level, split, index, state)
        led = {"reward": float(outcome.reward), "done": outcome.done, "success": outcome.success}
        yield _Item(f"{problem.id}-turn-{number}", problem, {"turn": number, **led})


def _row(task: Task[Any], item: _Item, format: Format, folder: Path) -> dict[str, Any]:
    problem, state = item.problem, item.problem.state
    response, png = task.response(state, "image"), png_bytes(_picture(task, item, format))
    name = f"{item.id}.png"
    if format != "parquet":
        write_bytes_atomic(folder / name, png, durable=False)
    return {
        "id": item.id,
        "task": problem.task,
        "level": problem.level,
        "split": problem.split,
        "index": problem.index,
        **item.turn,
        "text": task.text(state),
        "prompt_text": task.prompt(state, "text"),
        "prompt_image": task.prompt(state, "image"),
        **({"image": base64.b64encode(png).decode()} if format == "parquet" else {"file_name": name}),
        **{kind: response.text_of(kind) for kind in kinds_of(task)},
        CONVERT: task.convert(state),
        "meta": json.dumps(state_to_json(state)),  # a text: columns of other tools hold one type, deep down too
    }


def _llava_row(task: Task[Any], item: _Item, view: View, folder: Path) -> dict[str, Any]:
    dialogue = build_dialogue(task, item.problem, view)
    shown = {}
    if dialogue.image is not None:
        shown = {"image": f"{item.id}.png"}
        write_bytes_atomic(folder / shown["image"], png_bytes(dialogue.image), durable=False)
    question = f"<image>\n{dialogue.prompt}" if shown else dialogue.prompt
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": dialogue.response.text}]
    return {"id": item.id, **shown, "conversations": turns}


def _vlmevalkit_row(task: Task[Any], item: _Item) -> tuple[str, ...]:
    problem, state = item.problem, item.problem.state
    image = base64.b64encode(png_bytes(_picture(task, item, "vlmevalkit"))).decode()
    question, answer = task.prompt(state, "image"), task.answer(state)
    return (str(problem.index), problem.id, image, question, answer, problem.level, problem.split)


def _picture(task: Task[Any], item: _Item, format: Format) -> Picture:
    """The picture that the format cannot do without. Raises ValueError for a problem that has none."""
    picture: Picture | None = task.draw(item.problem.state)
    if picture is None:
        raise ValueError(f"format={format}: {item.id} has no picture, which only format=llava can write")
    return picture


def _tsv_line(cells: tuple[str, ...]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, delimiter="\t", lineterminator="\n").writerow(cells)
    return buffer.getvalue()
