"""A phase of captions: the vision tower alone learns what every patch of pictures shows, by linear readers.

A tower that is taught through a decoder alone throws away what the decoder cannot use yet, as names while it does not
look up cells; read linearly, names and digits are learned in seconds. The readers, one per task, are thrown away at the
end. Before a decoder is trained a penalty on the size of the image tokens, (log(rms / 0.1))^2, leaves them as large as
embeddings of text, so that no weight has to be scaled afterwards. Behind one, `keep` holds the tokens near those that
it has learned to read: what the tower threw away comes back where the decoder does not look. Every token tells its
place too, else those that are not kept lose it, and a decoder finds no panel by its number. A phase trains in one
process.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from vlmreason.data.loader import Step, step_loader
from vlmreason.data.mixture import SEED_STRIDE
from vlmreason.models.vlm.learner import Learner
from vlmreason.supervision import CAPTION_MEASURES, Mark, Phase
from vlmreason.tasks.base import Task
from vlmreason.tasks.captions import Captioned, Captions
from vlmreason.training.engine import strategies
from vlmreason.training.engine.optimizers import OptimizerSettings, build_optimizers
from vlmreason.training.engine.phase import Marks, PhaseModule, PhaseSettings, Stage
from vlmreason.training.engine.settings import TrainerSettings

LEVEL = "transcribe"
"""The level whose pictures have captions."""
TOKEN_RMS = 0.1
_READER_STD = 0.1
_FREE_SIZE = 0.1  # weight of the size of free tokens beside the change of those that are kept
_COUNTS = ("num_targets", "num_tokens", "num_pairs", "num_padded")


class CaptionData(Dataset[Step]):
    """Step s holds pictures [s n, (s + 1) n) of every task with n pictures of a step, with their captions."""

    def __init__(
        self, tasks: Mapping[str, Task[Any]], numbers: Mapping[str, int], learner: Learner, num_steps: int, seed: int
    ) -> None:
        self.tasks, self.numbers, self.num_steps, self.seed = tasks, numbers, num_steps, seed
        self.pictures, self.first_step = learner.processor.pictures, 0

    def __len__(self) -> int:
        return self.num_steps - self.first_step

    def __getitem__(self, number: int) -> Step:
        step = self.first_step + number
        first = self.seed * SEED_STRIDE
        micro = self.batch("train", {name: (first + step * num, num) for name, num in self.numbers.items()})
        num_pictures = sum(self.numbers.values())
        counts = dict.fromkeys(_COUNTS, 0) | {"num_images": num_pictures, "num_examples": num_pictures}
        return {"micro_batches": [micro], **counts}

    def batch(self, split: str, ranges: Mapping[str, tuple[int, int]]) -> dict[str, Tensor]:
        """Return pixel_values of pictures task by task, and their captions, `ranges` giving first index and number."""
        images: list[Any] = []
        captions: dict[str, Tensor] = {}
        for name, (first, num) in ranges.items():
            task: Any = self.tasks[name]
            states = [task.sample(LEVEL, split, first + i).state for i in range(num)]
            images += [task.draw(state) for state in states]
            classes, bits = zip(*map(task.caption, states), strict=True)
            captions |= {f"{name}/classes": torch.tensor(classes), f"{name}/bits": torch.tensor(bits).float()}
        found = self.pictures.inputs(torch.empty(0), [[image] for image in images])
        return {"pixel_values": found["pixel_values"], **captions}


class Readers(nn.Module):
    """For each task a linear reader of its slots, its bits and the token's place, on tokens brought to a size of 1."""

    def __init__(self, forms: Mapping[str, Captions], width: int, seed: int) -> None:
        super().__init__()
        self.forms = forms
        sizes = {name: sum(_sizes(form)) for name, form in forms.items()}
        self.readers = nn.ModuleDict({name: nn.Linear(width, size) for name, size in sizes.items()})
        generator = torch.Generator().manual_seed(seed)
        for reader in self.readers.values():
            nn.init.normal_(reader.weight, std=_READER_STD, generator=generator)  # type: ignore[arg-type]
            nn.init.zeros_(reader.bias)  # type: ignore[arg-type]

    def forward(self, name: str, tokens_NPD: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """Return logits of each slot (N, places, classes), of the bits (N, places, bits) and of the place (N, places,
        places); tokens have size 1."""
        form = self.forms[name]
        found: Tensor = self.readers[name](tokens_NPD[:, list(form.places)])
        *slots, bits, place = torch.split(found, _sizes(form), dim=-1)
        return slots, bits, place


def _sizes(form: Captions) -> list[int]:
    return [*(slot.num_classes for slot in form.slots), form.num_bits, len(form.places)]


def caption_loss(
    form: Captions, slots: list[Tensor], bits: Tensor, place: Tensor, classes: Tensor, wanted: Tensor
) -> Tensor:
    """Return the loss of one task's pictures: mean cross entropies, weighed as the form says."""
    weights = torch.where(classes > 0, 1.0, form.nothing_weight)
    losses = [
        (F.cross_entropy(logits.flatten(0, 1), classes[..., i].flatten(), reduction="none") * weights[..., i].flatten())
        for i, logits in enumerate(slots)
    ]
    loss = torch.stack([one.mean() for one in losses]).sum() * form.slot_weight
    if form.num_bits:
        loss = loss + F.binary_cross_entropy_with_logits(bits, wanted) * form.bits_weight
    at = torch.arange(place.shape[1], device=place.device).expand(place.shape[:2])
    return loss + F.cross_entropy(place.flatten(0, 1), at.flatten())


class Captioning(PhaseModule):
    def __init__(
        self,
        learner: Learner,
        optimizer: OptimizerSettings,
        num_steps: int,
        phase: PhaseSettings,
        readers: Readers,
        keep: float,
    ) -> None:
        super().__init__(learner, optimizer, num_steps, phase)
        self.readers, self.keep = readers, keep
        self.extra = {"captions": readers}
        self.kept: nn.ModuleList | None = None
        if keep:
            self.kept = copy.deepcopy(nn.ModuleList(_eye(learner))).requires_grad_(False)
            self.extra["kept"] = self.kept  # saved too: a resumed run keeps to what was there at first

    def configure_optimizers(self) -> Any:
        parts = self.trained, self.learner.prefixes, self.readers.parameters()
        return build_optimizers(self.settings, *parts, float32=self.phase.float32)

    def training_step(self, batch: dict[str, Any], _: int) -> None:
        started = time.perf_counter()
        factor = self.begin_step()
        [micro] = batch["micro_batches"]
        self.counts = {name: value for name, value in batch.items() if name.startswith("num_")}
        with self.computing():
            tokens_NPD = image_tokens(self.learner, micro["pixel_values"])
            rms, before_NPD = root_mean_square(tokens_NPD), self.tokens_before(micro["pixel_values"])
            size = size_of(before_NPD)
            if before_NPD is None:
                loss = (rms / size).log().pow(2)
            else:
                loss = self.keep * change(self.readers.forms, tokens_NPD / size, before_NPD / size, micro)
            for name, found in read(self.readers, tokens_NPD / size, micro).items():
                form, classes, wanted = self.readers.forms[name], micro[f"{name}/classes"], micro[f"{name}/bits"]
                loss = loss + caption_loss(form, *found, classes, wanted)
            self.manual_backward(loss)
        self.sum_over_processes(torch.zeros(1, dtype=torch.float64, device=self.device))
        norm = self.clip()
        for optimizer in self.all_optimizers():
            optimizer.step()
        self.step += 1
        lr = self.settings.lr * factor
        self.last = {"loss": float(loss.detach()), "token_rms": float(rms.detach()), "grad_norm": norm, "lr": lr}
        self.seconds_in_step = time.perf_counter() - started

    @torch.no_grad()
    def tokens_before(self, pixel_values: Tensor) -> Tensor | None:
        """Return the tokens (N, P, D) that the tower gave when the phase began; None where none are kept."""
        return None if self.kept is None else image_tokens(self.learner, pixel_values, tuple(self.kept))


def image_tokens(learner: Learner, pixel_values: Tensor, eye: Sequence[nn.Module] | None = None) -> Tensor:
    """Return the tokens (N, P, D) that the decoder gets for pictures, by `eye` where another one is given.

    Raises ValueError for another layout than LLaVA's.
    """
    tower, projector = eye or _eye(learner)
    layer = learner.model.model.config.vision_feature_layer
    tokens_NPD: Tensor = projector(tower(pixel_values, output_hidden_states=True).hidden_states[layer])
    return tokens_NPD


def root_mean_square(tokens_NPD: Tensor) -> Tensor:
    return tokens_NPD.float().pow(2).mean().sqrt()


def size_of(before_NPD: Tensor | None) -> float:
    """Return the size of image tokens by which readers scale them: that of the kept ones, or the one aimed at."""
    return TOKEN_RMS if before_NPD is None else float(root_mean_square(before_NPD))


def _eye(learner: Learner) -> tuple[nn.Module, nn.Module]:
    """The vision tower and the projector. Raises ValueError for another layout than LLaVA's."""
    inner = learner.model.model
    layer = getattr(inner.config, "vision_feature_layer", None)
    if not isinstance(layer, int) or not hasattr(inner, "multi_modal_projector"):
        raise ValueError(f"captions: model_type={inner.config.model_type} has no tokens per patch; LLaVA's layout has")
    return inner.vision_tower, inner.multi_modal_projector


def change(forms: Mapping[str, Captions], now_NPD: Tensor, before_NPD: Tensor, micro: Mapping[str, Tensor]) -> Tensor:
    """Return how far tokens of size 1 have moved: mean square where they are kept, else of their size alone."""
    free_NP = torch.zeros(now_NPD.shape[:2], dtype=torch.bool, device=now_NPD.device)
    for name, part in split(forms, free_NP, micro).items():
        part[:, list(forms[name].free)] = True
    found = now_NPD.new_zeros(())
    if not free_NP.all():
        found = found + (now_NPD - before_NPD)[~free_NP].float().pow(2).mean()
    if free_NP.any():
        found = found + _FREE_SIZE * root_mean_square(now_NPD[free_NP]).log().pow(2)
    return found


def split(forms: Mapping[str, Captions], tensor: Tensor, micro: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the part of each task of a tensor of pictures, in the order of the forms."""
    parts = torch.split(tensor, [len(micro[f"{name}/classes"]) for name in forms])
    return dict(zip(forms, parts, strict=True))


def read(
    readers: Readers, tokens_NPD: Tensor, micro: Mapping[str, Tensor]
) -> dict[str, tuple[list[Tensor], Tensor, Tensor]]:
    """Return what the readers say of pictures task by task, in the order of the forms."""
    return {name: readers(name, part) for name, part in split(readers.forms, tokens_NPD, micro).items()}


class CaptionMarks(Marks):
    def __init__(self, marks: Mapping[str, Mark], data: CaptionData, every: int | None) -> None:
        self.marks, self.data, self.every = marks, data, every

    def measure(self, module: PhaseModule) -> dict[str, float]:
        assert isinstance(module, Captioning)
        num: dict[str, int] = {}
        for mark in self.marks.values():
            num[str(mark.task)] = max(mark.num, num.get(str(mark.task), 0))
        asked = {name: self._shares(module, name, count) for name, count in num.items()}
        found = {}
        for name, mark in self.marks.items():
            shares = asked[str(mark.task)]
            if mark.measure not in shares:
                raise ValueError(
                    f"supervision.phases.{module.phase.name}.marks.{name}.measure={mark.measure}: of {mark.task} there "
                    f"are {', '.join(shares)}"
                )
            found[name] = round(shares[mark.measure], 4)
        return found

    @torch.no_grad()
    def _shares(self, module: Captioning, name: str, num: int) -> dict[str, float]:
        """What is right of the first `num` validation pictures of a task."""
        micro = {key: value.to(module.device) for key, value in self.data.batch("validation", {name: (0, num)}).items()}
        module.model.eval()
        size = size_of(module.tokens_before(micro["pixel_values"]))
        tokens_NPD = image_tokens(module.learner, micro["pixel_values"]) / size
        slots, bits, place = module.readers(name, tokens_NPD)
        module.model.train()
        classes_NPS, wanted = micro[f"{name}/classes"], micro[f"{name}/bits"] > 0.5
        right_NPS = torch.stack([logits.argmax(dim=-1) for logits in slots], dim=-1) == classes_NPS
        places, pictures = CAPTION_MEASURES[:2]
        found = {places: right_NPS.all(-1), pictures: right_NPS.all(-1).all(-1)}
        form = module.readers.forms[name]
        for group in dict.fromkeys(slot.name for slot in form.slots):
            at = [i for i, slot in enumerate(form.slots) if slot.name == group]
            found[group] = right_NPS[..., at][classes_NPS[..., at] > 0]
        if form.num_bits:
            found[CAPTION_MEASURES[2]] = ((bits > 0) == wanted).all(-1)
        found[CAPTION_MEASURES[3]] = place.argmax(dim=-1) == torch.arange(place.shape[1], device=place.device)
        return {key: float(value.float().mean()) for key, value in found.items()}

    def missing(self, found: Mapping[str, float]) -> list[str]:
        return [
            f"{name} ({mark.measure} of {mark.task}) {found[name]:.1%} of {mark.share:.1%}"
            for name, mark in self.marks.items()
            if found[name] < mark.share
        ]


class CaptionStage(Stage):
    def __init__(
        self,
        learner: Learner,
        tasks: Mapping[str, Task[Any]],
        name: str,
        phase: Phase,
        optimizer: OptimizerSettings,
        seed: int,
    ) -> None:
        """Raises ValueError for a task or a model that captions do not fit."""
        self.name, self.train, self.optimizer, self.learner, self.seed = name, phase.train, optimizer, learner, seed
        self.keep = phase.keep
        num = sum(phase.captions.values())
        self.num_steps = -(-phase.num_examples // num)
        forms, side = {}, _patch(learner)
        for task in phase.captions:
            captioned = tasks[task]
            if not isinstance(captioned, Captioned):
                raise ValueError(f"supervision.phases.{name}.captions.{task}: the task says nothing of patches")
            forms[task] = captioned.captions(side)
        self.forms = forms
        self.data = CaptionData(tasks, phase.captions, learner, self.num_steps, seed)
        if phase.marks:
            self.marks = CaptionMarks(phase.marks, self.data, phase.mark_every and max(1, phase.mark_every // num))

    def place(self, rank: int, world_size: int) -> None:
        if world_size > 1:
            raise ValueError(f"supervision.phases.{self.name}: captions train in one process; trainer.devices=1")

    def steps(self, first_step: int, settings: TrainerSettings) -> Iterable[Step]:
        self.data.first_step = first_step
        workers = 1 if settings.num_workers == "auto" else int(settings.num_workers)
        return step_loader(self.data, workers, pin=strategies.on_gpu(settings.accelerator))

    def module(self, phase: PhaseSettings) -> PhaseModule:
        readers = Readers(self.forms, self.learner.model.config.get_text_config().hidden_size, self.seed)
        return Captioning(self.learner, self.optimizer, self.num_steps, phase, readers, self.keep)

    def explain_memory(self, settings: TrainerSettings, num_devices: int, device: torch.device) -> str:
        return f"supervision.phases.{self.name}.captions: memory has run out; fewer pictures of a step need less"


def _patch(learner: Learner) -> int:
    """The side of a patch (px). Raises ValueError for a model that has none."""
    vision = getattr(learner.model.config, "vision_config", None)
    if vision is None or not isinstance(getattr(vision, "patch_size", None), int):
        raise ValueError("captions: the model's vision tower has no patches of one size")
    return int(vision.patch_size)
