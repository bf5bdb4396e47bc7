"""One batch per phase through processor and model, before hours are spent."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from vlmreason.data.loader import StepData
from vlmreason.data.mixture import Mixture
from vlmreason.dialogue.build import build_dialogue
from vlmreason.models.contract import Trainable
from vlmreason.models.vlm.learner import Learner
from vlmreason.models.vlm.processor import IGNORED, Encoded
from vlmreason.models.vlm.text import Written
from vlmreason.structure import first_line
from vlmreason.tasks.base import Task


def check_phase(
    learner: Trainable, mixture: Mixture, tasks: Mapping[str, Task[Any]], num: int, max_length: int
) -> dict[str, float | int | str]:
    """Check the first `num` examples of a phase; returns what was found.

    Keys: phase, examples, with_image, longest (tokens), max_length, response_tokens (mean), loss (of the
    untouched model), chance (loss of a uniform guess of a token; a network over classes has no tokens). Raises
    ValueError for the first fault.
    """
    if isinstance(learner, Learner):
        _check_template(learner)
    num = min(num, len(mixture))
    data = StepData(mixture, tasks, learner.processor, num, num * max_length, max_length)
    encoded = [data.encode(i) for i in range(num)]
    for i, example in enumerate(encoded):
        ref = mixture[i]
        task = tasks[ref.task]
        problem = task.sample(ref.level, ref.split, ref.index)
        dialogue = build_dialogue(task, problem, ref.view, ref.thought_kept, ref.condition)
        if isinstance(learner, Learner):
            _check_example(learner, example, dialogue.response.text, f"{dialogue.id} ({ref.view})")
    device = next(learner.model.parameters()).device
    batch = {k: v.to(device) for k, v in learner.processor.collate(encoded).items()}
    try:
        with torch.no_grad():
            losses_N, _ = learner.token_losses(batch)
    except (ValueError, IndexError, RuntimeError) as error:  # features that do not fit their placeholders, mostly
        raise ValueError(f"phase {mixture.phase}: the model refuses the batch ({first_line(error)})") from error
    if not torch.isfinite(losses_N).all():
        raise ValueError(f"phase {mixture.phase}: the loss of the first batch is not finite")
    found: dict[str, float | int | str] = {
        "phase": mixture.phase,
        "examples": num,
        "with_image": sum(e.image is not None for e in encoded),
        "longest": max(map(len, encoded)),
        "max_length": max_length,
        "response_tokens": round(losses_N.numel() / num, 1),
        "loss": round(float(losses_N.mean()), 4),
    }
    return found | {"chance": _chance(learner)} if isinstance(learner, Learner) else found


@dataclass(frozen=True)
class Decoded:
    """One example as the model sees it: which, its prompt with special tokens, and what the loss is on."""

    where: str
    prompt: str
    response: str


def decoded(learner: Trainable, mixture: Mixture, tasks: Mapping[str, Task[Any]], max_length: int) -> Decoded:
    """Return the first example of a phase, decoded from its tokens; of a network, which has none, as it is written."""
    ref = mixture[0]
    task = tasks[ref.task]
    problem = task.sample(ref.level, ref.split, ref.index)
    dialogue = build_dialogue(task, problem, ref.view, ref.thought_kept, ref.condition)
    where = f"{mixture.phase}, example 0: {dialogue.id} ({ref.view})"
    if not isinstance(learner, Learner):
        return Decoded(where, dialogue.prompt, dialogue.response.text)
    processor = learner.processor
    batch = processor.collate([StepData(mixture, tasks, processor, 1, max_length, max_length).encode(0)])
    tokens, labels = batch["input_ids"][0], batch["labels"][0]
    prompt, placeholder = tokens[: int((labels != IGNORED).nonzero()[0])].tolist(), processor.pictures.placeholder_id
    text = processor.tokenizer.decode([token for token in prompt if token != placeholder])
    shown = f"[{num} tokens of the picture] {text}" if (num := prompt.count(placeholder)) else text
    return Decoded(where, shown, processor.decode(labels[labels != IGNORED].tolist()))


def _chance(learner: Learner) -> float:
    return round(math.log(learner.model.get_output_embeddings().weight.shape[0]), 4)


def _check_template(learner: Learner) -> None:
    """Raise ValueError unless what looks like a special token in the template is one, and known to the model."""
    processor, template = learner.processor, learner.processor.template
    coder, num_known = processor.coder, learner.model.get_input_embeddings().weight.shape[0]
    for text in (*template.text, *template.image, template.end):
        for piece in re.findall(r"<\|\S+?\|>|</?s>|<image>", coder.specials.sub(" ", text)):
            raise ValueError(f"model.template: {piece!r} in {text!r} is no token of this model's tokenizer")
        for token in coder.sequence(Written(text)):
            if token >= num_known:
                raise ValueError(f"model.template: {text!r} has the token {token}, the model knows {num_known}")
    if not template.end or coder.decode(processor.end_ids):
        raise ValueError(f"model.template.end={template.end!r}: special tokens are expected, text would be trained on")
    if processor.pictures.placeholder_id in processor.prompt_ids("", None):
        raise ValueError(f"model.template.text={template.text!r}: a turn without a picture has a picture's token")


def _check_example(learner: Learner, example: Encoded, response: str, where: str) -> None:
    processor = learner.processor
    batch = processor.collate([example])
    labels = batch["labels"][0]
    decoded = processor.decode(labels[labels != IGNORED].tolist())
    if decoded not in (response, unicodedata.normalize("NFC", response)):  # some tokenizers compose characters
        raise ValueError(f"{where}: the loss mask decodes to {decoded[:80]!r}, the response is {response[:80]!r}")
    placeholder = processor.pictures.placeholder_id
    num_placeholders = example.input_ids.count(placeholder)
    expected = 0 if example.image is None else processor.pictures.expand(*example.image.shape[:2]).count(placeholder)
    if num_placeholders != expected:
        raise ValueError(f"{where}: {num_placeholders} image placeholders, the picture has {expected} features")
