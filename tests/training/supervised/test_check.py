"""`check` finds what would spoil a run, in one sentence, before it begins."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.families import write_tiny
from support.tiny import nano_task, plan, tiny_learner

from vlmreason.data.mixture import Mixture
from vlmreason.models.vlm.hugging_face import HuggingFace
from vlmreason.models.vlm.learner import Learner
from vlmreason.models.vlm.processor import Processor
from vlmreason.training.supervised.check import check_phase


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny("smolvlm", tmp_path_factory.mktemp("smolvlm"))


@pytest.fixture
def learner(directory: Path) -> Learner:
    return HuggingFace("test", checkpoint=str(directory), dtype="float32").load()


def check(learner: Learner) -> dict[str, Any]:
    mixture = Mixture(plan(only={"num_examples": 6}), "only", "table_readout", seed=0)
    return check_phase(learner, mixture, {"table_readout": nano_task()}, 3, 4096)


def with_template(**changes: Any) -> Callable[[Learner], None]:
    def change(learner: Learner) -> None:
        old = learner.processor
        template = dataclasses.replace(old.template, **changes)
        learner.processor = Processor(old.tokenizer, template, old.pictures, old.eos_ids)

    return change


def one_token_less(learner: Learner) -> None:
    learner.processor.pictures.num_tokens -= 1


def smaller_vocabulary(learner: Learner) -> None:
    learner.model.resize_token_embeddings(450)


def no_cleaning(learner: Learner) -> None:
    learner.processor.decode = lambda ids, prefill="": "something else"  # type: ignore[method-assign]


FAULTS: list[tuple[Callable[[Learner], None], str]] = [
    (with_template(text=("<|im_begin|>User: ", "Assistant:")), r"model.template: '<\|im_begin\|>' in .* is no token"),
    (with_template(end="."), "model.template.end='.': special tokens are expected"),
    (with_template(text=("<image>User: ", "Assistant:")), "a turn without a picture has a picture's token"),
    (with_template(image=("<image>User:", "", "Assistant:")), r"\d+ image placeholders, the picture has \d+ features"),
    (one_token_less, "phase only: the model refuses the batch .*do not match"),
    (smaller_vocabulary, r"model.template: .* has the token \d+, the model knows 450"),
    (no_cleaning, "the loss mask decodes to 'something else', the response is"),
]


@pytest.mark.parametrize(("spoil", "sentence"), FAULTS)
def test_faults(learner: Learner, spoil: Callable[[Learner], None], sentence: str) -> None:
    spoil(learner)
    with pytest.raises(ValueError, match=sentence) as raised:
        check(learner)
    assert "\n" not in str(raised.value)


def test_what_is_right_passes(learner: Learner) -> None:
    for good in (learner, tiny_learner()):
        found = check(good)
        assert found["examples"] == 3
        assert found["with_image"] == 2
        assert 0 < found["loss"] < 2 * found["chance"]
