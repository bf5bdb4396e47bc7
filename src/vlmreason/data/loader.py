"""Batches of a phase by step number: any step can be made anywhere, nothing is stored."""

from __future__ import annotations

import atexit
import dataclasses
import functools
import multiprocessing.util
import signal
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from vlmreason.data.mixture import ExampleRef, Mixture
from vlmreason.dialogue.build import Dialogue, build_dialogue
from vlmreason.models.vlm.processor import Encoded, Processor
from vlmreason.tasks.base import Task

LENGTH_STEP = 16
"""Lengths of micro-batches are multiples of it (tokens)."""

COST_STEP, PASS_COST = 8, 250
"""Where micro-batches are cut by cost: what their lengths are multiples of, and what a forward and backward pass costs
beside its tokens, in tokens."""

AHEAD = 4
"""Steps that are made before they are needed."""

Step = dict[str, Any]
"""One optimizer step: `micro_batches` (list of tensors by name) and counts: `num_targets` (response tokens),
`num_tokens`, `num_pairs` (of tokens of one example), `num_padded` (tokens with padding), `num_images`,
`num_examples`."""

BESIDE = "beside_"
"""Begins the names of a micro-batch's tensors of the same problems as text; "beside_rows": the rows that have one."""

Cut = Literal["shapes", "cost"]
"""Micro-batches of few shapes, or of the least padding for the number of passes."""

Packing = Literal["rows", "row"]
"""Several examples in a row: rows of a few examples (a kernel that computes what it masks pays for long ones), or one
row that holds the whole micro-batch, for attention kernels that skip what lies between examples."""


class Unmade(ValueError):
    """Why a step cannot be made. A worker's error arrives as its whole traceback, of which the end is kept."""

    def __init__(self, text: str) -> None:
        super().__init__(text.rpartition("Unmade: ")[2].strip())


class StepData(Dataset[Step]):
    """Step s holds the examples [s B, (s+1) B) of a mixture, the last step what is left.

    Within a step the examples are sorted by length and cut into micro-batches of at most `micro_tokens`
    padded tokens, which changes neither the loss nor its gradient; with `packing` several share a row. With
    several processes each takes every `world_size`-th example. Pictures come in `pixel_type`: that of the model halves
    what a step moves (gigabytes). With `match` pictures that are answered directly have the same problem as text beside
    them, and `num_matched` counts their response tokens. Rows of the parts `toward` are marked in each micro-batch.
    Examples of the parts `own`, whose responses are not there yet, are not encoded: a step has their numbers as `own`.
    Raises ValueError for an example longer than `max_length` tokens.
    """

    def __init__(
        self,
        mixture: Mixture,
        tasks: Mapping[str, Task[Any]],
        processor: Processor,
        batch_size: int,
        micro_tokens: int,
        max_length: int,
        first_step: int = 0,
        rank: int = 0,
        world_size: int = 1,
        packing: Packing | None = None,
        pixel_type: torch.dtype = torch.float32,
        cut: Cut = "cost",
        match: bool = False,
        toward: Collection[str] = (),
        own: Collection[str] = (),
    ) -> None:
        assert not (packing and (match or toward or own)), "rows of several dialogues are not told apart"
        self.mixture, self.tasks, self.processor = mixture, tasks, processor
        self.batch_size, self.micro_tokens, self.max_length = batch_size, micro_tokens, max_length
        self.first_step, self.rank, self.world_size = first_step, rank, world_size
        self.packing, self.pixel_type, self.cut = packing, pixel_type, cut
        self.match, self.toward, self.own = match, toward, own
        self.prepared: Callable[[int], Any] | None = None
        """Gives an example by its number, where the model has seen all of them before."""

    @property
    def num_steps(self) -> int:
        """Return steps of the whole phase."""
        return -(-len(self.mixture) // self.batch_size)

    def __len__(self) -> int:
        return self.num_steps - self.first_step

    def __getitem__(self, number: int) -> Step:
        try:
            return self._make(number)
        except (ValueError, OSError) as error:
            raise Unmade(str(error)) from error

    def _make(self, number: int) -> Step:
        start = (self.first_step + number) * self.batch_size
        stop = min(start + self.batch_size, len(self.mixture))
        numbers = range(start + self.rank, stop, self.world_size)
        own = [i for i in numbers if self.own and self.mixture.part_of(i) in self.own]
        found = self.counted([self.encode(i) for i in numbers if i not in own])
        return found | ({"own": own} if own else {})

    def counted(self, encoded: Sequence[Encoded]) -> Step:
        """Return examples as micro-batches, and their counts."""
        micro_batches = [self._typed(micro) for micro in self._collate(encoded)]
        return {
            "micro_batches": micro_batches,
            "num_targets": sum(map(_num_targets, encoded)),
            "num_tokens": sum(map(len, encoded)),
            "num_pairs": sum(len(e) ** 2 for e in encoded),
            "num_padded": sum(micro["segments"].numel() for micro in micro_batches),
            "num_images": sum(e.image is not None for e in encoded),
            "num_examples": len(encoded),
        } | ({"num_matched": sum(_num_targets(e) for e in encoded if e.beside)} if self.match else {})

    def _collate(self, encoded: Sequence[Encoded]) -> list[dict[str, Tensor]]:
        processor = self.processor
        if self.packing is None and self.cut == "cost":
            return [self._micro(part, COST_STEP) for part in pack_by_cost(encoded, self.micro_tokens)]
        if self.packing is None:
            return [self._micro(part, LENGTH_STEP) for part in pack(encoded, self.micro_tokens)]
        batches = pack_rows(encoded, self.micro_tokens, one_row=self.packing == "row")
        return [processor.collate_packed(rows, LENGTH_STEP) for rows in batches]

    def _micro(self, part: Sequence[Encoded], step: int) -> dict[str, Tensor]:
        """A micro-batch, with what is held against its examples: the problems beside them, or rows of it."""
        micro: dict[str, Tensor] = self.processor.collate(part, step)
        if self.toward:
            micro["toward"] = torch.tensor([example.toward for example in part])
        beside = [(row, example.beside) for row, example in enumerate(part) if self.match and example.beside]
        if not beside:
            return micro
        texts = self.processor.collate([text for _, text in beside], step)
        micro |= {BESIDE + name: value for name, value in texts.items()}
        return micro | {BESIDE + "rows": torch.tensor([row for row, _ in beside])}

    def _typed(self, micro: dict[str, Tensor]) -> dict[str, Tensor]:
        return {
            name: value.to(self.pixel_type) if value.is_floating_point() else value for name, value in micro.items()
        }

    def dialogue(self, number: int) -> Dialogue:
        """Make example `number` of the phase."""
        ref = self.mixture[number]
        task = self.tasks[ref.task]
        problem = task.sample(ref.level, ref.split, ref.index)
        return build_dialogue(task, problem, ref.view, ref.thought_kept, ref.condition)

    def problem(self, number: int) -> Hashable:
        """Return what tells example `number` apart from others, without making it."""
        ref = self.mixture[number]
        return ref.task, ref.level, ref.split, ref.index, ref.view, ref.thought_kept, ref.condition

    def encode(self, number: int) -> Encoded:
        """Return example `number` of the phase in tokens."""
        if self.prepared is not None:
            return self.prepared(number)  # type: ignore[no-any-return]
        ref, dialogue = self.mixture[number], self.dialogue(number)
        encoded = self.processor.encode(dialogue)
        if ref.begins_at:
            if not isinstance(encoded, Encoded):
                raise ValueError(f"{dialogue.id}: begins has no effect on a network, which has no positions")
            encoded = dataclasses.replace(encoded, begins_at=ref.begins_at)
        if self.match and ref.view == "image":
            encoded = dataclasses.replace(encoded, beside=self._as_text(ref, encoded))
        if self.toward and self.mixture.part_of(number) in self.toward:
            encoded = dataclasses.replace(encoded, toward=True)
        if ref.begins_at + len(encoded) > self.max_length:
            later = f" behind position {ref.begins_at}" if ref.begins_at else ""
            raise ValueError(
                f"{dialogue.id} ({ref.view}) has {len(encoded)} tokens{later}: more than "
                f"trainer.max_length={self.max_length}"
            )
        return encoded

    def _as_text(self, ref: ExampleRef, encoded: Encoded) -> Encoded:
        """The same problem as text, whose response must be the same."""
        task = self.tasks[ref.task]
        problem = task.sample(ref.level, ref.split, ref.index)
        beside: Encoded = self.processor.encode(build_dialogue(task, problem, "text", ref.thought_kept, ref.condition))
        if _targets(beside) != _targets(encoded):
            raise ValueError(
                f"supervision.phases.{self.mixture.phase}.match: {problem.id} is answered otherwise as text than as a "
                "picture; only equal responses can be matched"
            )
        if len(beside) > self.max_length:
            too_long = f"{problem.id} (text) has {len(beside)} tokens"
            raise ValueError(f"{too_long}: more than trainer.max_length={self.max_length}")
        return beside


def _targets(encoded: Encoded) -> list[int]:
    return [token for token, segment in zip(encoded.input_ids, encoded.segments, strict=True) if segment]


def _num_targets(encoded: Encoded) -> int:
    return sum(segment > 0 for segment in encoded.segments)


def pack(examples: Sequence[Encoded], micro_tokens: int) -> list[list[Encoded]]:
    """Return micro-batches of examples of similar length, each of at most `micro_tokens` tokens after padding.

    Their numbers of examples are powers of two: with lengths in steps of LENGTH_STEP few shapes occur, for which
    the kernels of a processor are made once and kept (a third of the time otherwise).
    """
    rest, parts = sorted(examples, key=len, reverse=True), []
    while rest:
        length = -(-len(rest[0]) // LENGTH_STEP) * LENGTH_STEP
        num = min(len(rest), max(1, micro_tokens // length))
        num = 1 << (num.bit_length() - 1)
        parts.append(rest[:num])
        rest = rest[num:]
    return parts


def pack_by_cost(examples: Sequence[Encoded], micro_tokens: int) -> list[list[Encoded]]:
    """Return micro-batches of examples of similar length, texts and pictures apart: the least padded tokens, with
    PASS_COST for each, of all that hold at most `micro_tokens`."""
    parts = []
    for pictured in (False, True):
        rest = sorted((example for example in examples if (example.image is not None) == pictured), key=len)
        best = [(0, 0)]  # cost of the first i examples, and where the last of their micro-batches begins
        for i in range(1, len(rest) + 1):
            length = -(-len(rest[i - 1]) // COST_STEP) * COST_STEP
            starts = range(max(0, i - max(1, micro_tokens // length)), i)
            best.append(min((best[k][0] + (i - k) * length + PASS_COST, k) for k in starts))
        i = len(rest)
        while i:
            start = best[i][1]
            parts.append(rest[start:i])
            i = start
    return parts


def pack_rows(examples: Sequence[Encoded], micro_tokens: int, one_row: bool) -> list[list[list[Encoded]]]:
    """Return micro-batches of rows of examples, filled first-fit from the longest example on.

    A row takes up to four times the longest example, or with `one_row` the whole micro-batch.
    """
    if not examples:
        return []
    longest = -(-max(map(len, examples)) // LENGTH_STEP) * LENGTH_STEP
    capacity = max(longest, micro_tokens if one_row else min(4 * longest, micro_tokens))
    rows: list[list[Encoded]] = []
    room: list[int] = []
    for example in sorted(examples, key=len, reverse=True):
        at = next((i for i, free in enumerate(room) if free >= len(example)), len(rows))
        if at == len(rows):
            rows.append([])
            room.append(capacity)
        rows[at].append(example)
        room[at] -= len(example)
    num = max(1, micro_tokens // capacity)
    return [rows[start : start + num] for start in range(0, len(rows), num)]


def step_loader(data: Dataset[Step], num_workers: int, pin: bool = False) -> DataLoader[Step]:
    """Return steps in order; the number of workers changes the speed and nothing else. `pin`: for copies to a GPU that
    no one waits for. About four steps are made ahead, however many make them: a step of large pictures takes gigabytes.
    """
    _end_workers_at_exit()  # after an error they may still be there, and Python would wait: they ignore SIGTERM
    return DataLoader(
        data,
        batch_size=None,
        shuffle=False,
        num_workers=num_workers,
        prefetch_factor=-(-AHEAD // num_workers) if num_workers else None,
        pin_memory=pin,
        collate_fn=_share,  # type: ignore[arg-type]  # with batch_size=None it gets one step
        worker_init_fn=_leave_signals_to_parent,
    )


def _share(step: Step) -> Step:
    """In a worker: move the tensors to shared memory here, where an error reaches the parent. In the thread that sends
    them it would be printed only, and the parent would wait for ever."""
    if get_worker_info() is not None:
        try:
            for tensor in (tensor for micro in step["micro_batches"] for tensor in micro.values()):
                tensor.share_memory_()
        except RuntimeError as error:
            text = "/dev/shm: too little room for the data made ahead; make it larger, or take trainer.num_workers=0"
            raise Unmade(f"{text} ({error})") from error
    return step


@functools.cache
def _end_workers_at_exit() -> None:
    import multiprocessing.util  # noqa: F401  # its own function, which waits for them, must run after this one

    atexit.register(_end_workers)


def _end_workers() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # PyTorch's own handler takes the end of a worker for an accident
    for child in multiprocessing.active_children():
        if child.daemon:
            child.kill()


def _leave_signals_to_parent(_: int) -> None:
    """Ctrl-C and a cluster's warning reach all processes of a group; the parent still needs its data then."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
