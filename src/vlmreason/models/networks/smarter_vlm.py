"""The SmarterVLM reasoner as a model of the suite: frozen encoders, and a small network over kinds of puzzles.

It trains by supervision on the answer alone, whatever else a response holds; it answers with its likeliest class, and
chooses among options by their probabilities. It needs a task with kinds (`Task.kinds`). The frozen encoders see a
picture and a question once; what they see is kept (`store.py`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from vlmreason.answers import AnswerSpace
from vlmreason.dialogue.build import Dialogue
from vlmreason.files import write_json_atomic
from vlmreason.models.contract import AdapterSettings, Choice, Example, Generation, Prompt
from vlmreason.models.networks.encoders import Texts, Tower, eyes
from vlmreason.models.networks.one_answer import OneAnswer, kept_weights, refuse_beginnings, save_weights
from vlmreason.models.networks.smarter_net import SmarterNet, by_name, counted
from vlmreason.models.networks.smarter_settings import Sizes, SmarterSettings
from vlmreason.models.networks.store import BATCH
from vlmreason.models.vlm.saved import read_config
from vlmreason.segments import ANSWER
from vlmreason.streams import stream
from vlmreason.structure import structure

FILE, WEIGHTS = "network.json", "network.safetensors"
_NEVER = -1e9  # log-probability of an option that is no class


@dataclass(frozen=True)
class SmarterVlm(SmarterSettings):
    """conf/model/smarter_vlm.yaml."""

    def untrained(self, example: Example) -> SmarterLearner:
        """Make the network for the kinds of a task. Raises ValueError where it has none."""
        return new_network(self, example)

    def load(self, trained: Path | None = None) -> SmarterLearner:
        """Return a network that a run has kept. Raises ValueError."""
        if trained is None:
            raise ValueError(f"model={self.name}: a new one is made for the puzzles of a task, and there is none here")
        return load_network(self, trained)


@dataclass(frozen=True)
class Kept:
    """What a run keeps of the network beside its weights; the encoders are those of the run's configuration."""

    sizes: Sizes
    widths: tuple[int, int]
    kinds: dict[str, AnswerSpace]


@dataclass(frozen=True)
class Seen(OneAnswer):
    """An example by the rows of the stores: of the towers (none without a picture) and of the texts; its classes."""

    pictures: tuple[int, ...]
    text: int
    kind: str
    numbers: tuple[int, ...]


class SmarterLearner:
    """The network as a model that trains and answers."""

    prefixes: Mapping[str, tuple[str, ...]] = {"vision_tower": (), "projector": ("",), "language_model": ()}
    num_positions: int | None = None
    packable = False

    def __init__(self, towers: list[Tower], texts: Texts, model: SmarterNet) -> None:
        self.model = model
        self.processor = Encoders(towers, texts, model)
        found = [source for source in (*(tower.source for tower in towers), texts.source) if source]
        self.source = found or None

    def adapt(self, settings: AdapterSettings, seed: int, trained: Path | None = None) -> None:
        """Refuse what cannot be done here: nothing can be adapted. Raises ValueError."""
        if settings.name != "none" or settings.frozen:
            raise ValueError("adapter: has no effect on a network, which is trained whole; adapter=none")

    def trained_parameters(self, train: object = "all") -> list[tuple[str, nn.Parameter]]:
        return list(self.model.named_parameters())

    def prepare(
        self, num: int, problem: Callable[[int], Hashable], dialogue: Callable[[int], Any], progress: bool
    ) -> Callable[[int], Seen]:
        """Show the encoders all examples of a phase, each problem once; after that examples are rows of the stores."""
        return self.processor.prepare(num, problem, dialogue, progress)

    def token_losses(self, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """Return cross entropy (B) and segment number (B) of the answer of each dialogue of a batch."""
        model, numbers_BT = self.model, batch["numbers_BT"].to(self.model.device)
        kinds = [model.names[number] for number in batch["kinds_B"].tolist()]
        losses_B = model.answers(kinds, self._fused(batch, kinds), numbers_BT)
        return losses_B, batch["segments"][:, 0]

    @torch.no_grad()
    def generate(
        self, prompts: Sequence[Prompt], max_new_tokens: int = 1, forbidden_starts: Sequence[str] = ()
    ) -> list[Generation]:
        """Return the likeliest answer to each prompt. Raises ValueError where a beginning is given."""
        refuse_beginnings(prompts, forbidden_starts)
        model, answers = self.model, [""] * len(prompts)
        fused_BR = self._fused_prompts(prompts)
        for kind, rows in by_name([prompt.kind for prompt in prompts]).items():
            space = model.spaces[model.decoder_of(kind)]
            for row, numbers in zip(rows, model.decode(kind, fused_BR[rows]).argmax(dim=2).tolist(), strict=True):
                answers[row] = space.write(numbers)
        return [Generation(answer, 1, True) for answer in answers]

    @torch.no_grad()
    def choose(self, prompts: Sequence[Prompt], options: Sequence[Sequence[str]]) -> list[list[Choice]]:
        """Say how likely options are among all answers; one that is no class is never."""
        if not prompts:
            return []
        fused_BR = self._fused_prompts(prompts)
        return [
            [Choice(self._logprob(prompt.kind, fused_BR[row : row + 1], text), 1) for text in some]
            for row, (prompt, some) in enumerate(zip(prompts, options, strict=True))
        ]

    @torch.no_grad()
    def embed(self, prompts: Sequence[Prompt]) -> Tensor:
        """Return the fused vectors (B, R) of prompts."""
        return self._fused_prompts(prompts)

    def count_tokens(self, text: str) -> int:
        """Return 1: an answer is one token."""
        return int(bool(text))

    def save(self, directory: Path) -> None:
        """Write the network; the encoders are not copied."""
        directory.mkdir(parents=True, exist_ok=True)
        model, encoders = self.model, self.processor
        kept = Kept(model.sizes, (encoders.image_width, encoders.texts.width), model.kinds)
        write_json_atomic(directory / FILE, asdict(kept))
        save_weights(model, directory / WEIGHTS)

    def _logprob(self, kind: str, fused_1R: Tensor, text: str) -> float:
        model = self.model
        space = model.spaces[model.decoder_of(kind)]
        try:
            numbers_1T = torch.tensor([space.numbers(text)], device=model.device)
        except ValueError:
            return _NEVER
        logs_1TC = F.log_softmax(model.decode(kind, fused_1R, numbers_1T), dim=2)
        found = logs_1TC.gather(2, numbers_1T[:, :, None])[:, :, 0] * counted(numbers_1T, space)
        return float(found.sum())

    def _fused_prompts(self, prompts: Sequence[Prompt]) -> Tensor:
        self.model.eval()
        self.processor.see(prompts)
        seen = [self.processor.look(p.text, p.image, p.kind) for p in prompts]
        return self._fused(self.processor.states(seen), [prompt.kind for prompt in prompts])

    def _fused(self, batch: Mapping[str, Tensor], kinds: Sequence[str]) -> Tensor:
        device = self.model.device
        text_BLD, lengths_B = batch["text_BLD"].to(device).float(), batch["lengths_B"].to(device)
        padding_BL = torch.arange(text_BLD.shape[1], device=device) >= lengths_B[:, None]
        fused: Tensor = self.model(batch["image_BPD"].to(device).float(), text_BLD, padding_BL, kinds)
        return fused


class Encoders:
    """What a Processor is for dialogues: the frozen encoders, and what they have seen."""

    def __init__(self, towers: list[Tower], texts: Texts, model: SmarterNet) -> None:
        self.towers, self.texts, self.model = towers, texts, model
        self._numbers = {name: number for number, name in enumerate(model.names)}

    @property
    def image_width(self) -> int:
        return sum(tower.width for tower in self.towers)

    def encode(self, dialogue: Dialogue) -> Seen:
        """Return a dialogue whose answer is a class. Raises ValueError."""
        numbers = self._answer(dialogue)
        return self.look(dialogue.prompt, dialogue.image, dialogue.kind, numbers)

    def see(self, prompts: Sequence[Prompt]) -> None:
        """Let the encoders see prompts together: one by one takes them longer."""
        for tower in self.towers:
            tower.numbers([prompt.image for prompt in prompts if prompt.image is not None])
        self.texts.numbers([prompt.text for prompt in prompts])

    def look(self, text: str, image: Any, kind: str, numbers: tuple[int, ...] = ()) -> Seen:
        """Return what is seen of a prompt. Raises ValueError for a kind of puzzle that the network does not have."""
        self._check(kind)
        pictures = () if image is None else tuple(tower.numbers([image])[0] for tower in self.towers)
        return Seen(pictures, self.texts.numbers([text])[0], kind, numbers)

    def prepare(
        self, num: int, problem: Callable[[int], Hashable], dialogue: Callable[[int], Dialogue], progress: bool
    ) -> Callable[[int], Seen]:
        """Look at all examples of a phase, each problem once. Memory grows by a few numbers per example."""
        steps = max(space.steps for space in self.model.kinds.values())
        table = np.full((num, len(self.towers) + 2 + steps), -1, np.int32)
        first: dict[Hashable, int] = {}
        waiting: list[tuple[int, Dialogue]] = []
        for number in tqdm(range(num), "features", disable=not progress, unit=" examples"):
            at = first.setdefault(problem(number), number)
            if at == number:
                waiting.append((number, dialogue(number)))
            if len(waiting) == 2 * BATCH or number + 1 == num:
                self._fill(table, waiting)
                waiting = []
        originals = np.fromiter((first[problem(number)] for number in range(num)), np.int32, num)
        return functools.partial(self._kept, table[originals])

    def collate(self, examples: Sequence[Seen], multiple: int = 1) -> dict[str, Tensor]:
        steps = max(len(example.numbers) for example in examples)
        numbers = [[*example.numbers, *[0] * (steps - len(example.numbers))] for example in examples]
        return self.states(examples) | {
            "kinds_B": torch.tensor([self._numbers[example.kind] for example in examples]),
            "numbers_BT": torch.tensor(numbers),
            "segments": torch.tensor([example.segments for example in examples]),
        }

    def states(self, seen: Sequence[Seen]) -> dict[str, Tensor]:
        """Return states of pictures (zeros without one) and of the tokens of texts, up to the longest of them."""
        with_picture = [row for row, one in enumerate(seen) if one.pictures]
        image_BPD = np.zeros((len(seen), self.towers[0].places, self.image_width), np.float16)
        end = 0
        for i, tower in enumerate(self.towers if with_picture else ()):
            begin, end = end, end + tower.width
            image_BPD[with_picture, :, begin:end] = tower.states([seen[row].pictures[i] for row in with_picture])
        text_BLD, lengths = self.texts.states([one.text for one in seen])
        longest = max(1, *lengths)
        return {
            "image_BPD": torch.from_numpy(image_BPD),
            "text_BLD": torch.from_numpy(np.ascontiguousarray(text_BLD[:, :longest])),
            "lengths_B": torch.tensor(lengths),
        }

    def _fill(self, table: NDArray[np.int32], waiting: list[tuple[int, Dialogue]]) -> None:
        """Write rows of stores, kind and classes of dialogues into the table."""
        if not waiting:
            return
        at, dialogues = [number for number, _ in waiting], [dialogue for _, dialogue in waiting]
        num = len(self.towers)
        pictured = [i for i, dialogue in enumerate(dialogues) if dialogue.image is not None]
        for column, tower in enumerate(self.towers):
            rows = tower.numbers([dialogues[i].image for i in pictured])  # type: ignore[misc]
            table[[at[i] for i in pictured], column] = rows
        table[at, num] = self.texts.numbers([dialogue.prompt for dialogue in dialogues])
        for number, dialogue in waiting:
            numbers = self._answer(dialogue)
            table[number, num + 1] = self._numbers[dialogue.kind]
            table[number, num + 2 : num + 2 + len(numbers)] = numbers

    def _kept(self, table: NDArray[np.int32], number: int) -> Seen:
        row, num = table[number].tolist(), len(self.towers)
        pictures = tuple(row[:num]) if row[0] >= 0 else ()
        return Seen(pictures, row[num], self.model.names[row[num + 1]], tuple(n for n in row[num + 2 :] if n >= 0))

    def _answer(self, dialogue: Dialogue) -> tuple[int, ...]:
        """The classes of a dialogue's answer, whatever else its response holds."""
        self._check(dialogue.kind)
        text = next(segment.text for segment in reversed(dialogue.response.segments) if segment.kind == ANSWER)
        return tuple(self.model.spaces[self.model.decoder_of(dialogue.kind)].numbers(text))

    def _check(self, kind: str) -> None:
        if kind not in self._numbers:
            raise ValueError(
                f"kind of puzzle {kind!r}: this network knows {len(self._numbers)} kinds, those of its task "
                f"({', '.join(self.model.names[:3])} ...), and no other"
            )


def new_network(settings: SmarterSettings, example: Example) -> SmarterLearner:
    """Make an untrained network for the kinds of puzzles of a task. Raises ValueError where it has none."""
    if not example.kinds:
        raise ValueError(
            f"model={settings.name}: the task has no kinds of puzzles, each with its classes; smart_families and "
            "smart101 have"
        )
    towers, texts = _encoders(settings)
    widths = (sum(tower.width for tower in towers), texts.width)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(stream(example.seed, "network").getrandbits(63))
        model = SmarterNet(example.kinds, widths, settings.sizes)
    return SmarterLearner(towers, texts, model)


def load_network(settings: SmarterSettings, directory: Path) -> SmarterLearner:
    """Return a saved network on its frozen encoders. Raises ValueError where a file is missing, damaged, or of other
    encoders."""
    path, weights = directory / FILE, directory / WEIGHTS
    kept = structure(Kept, read_config(path), str(path))
    towers, texts = _encoders(settings)
    widths = (sum(tower.width for tower in towers), texts.width)
    if widths != kept.widths:
        raise ValueError(f"{path}: made for encoders of widths {kept.widths}, and those of model.vision have {widths}")
    with kept_weights(weights, FILE) as tensors:
        model = SmarterNet(kept.kinds, widths, kept.sizes)
        model.load_state_dict(tensors)
    return SmarterLearner(towers, texts, model)


def _encoders(settings: SmarterSettings) -> tuple[list[Tower], Texts]:
    folder = None if settings.features is None else Path(settings.features)
    grid = settings.grid if settings.sizes.qf == "tokens" else 1
    return eyes(settings.towers, grid, folder), Texts(settings.text, folder)
