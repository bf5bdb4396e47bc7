"""What an export holds for plain transformers: its own processor asks and answers as ours does."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.families import TINY, learn_by_heart, write_tiny
from support.tiny import processor as nano_processor

from vlmreason.models.composed.loading import NanoComposed
from vlmreason.models.contract import Prompt
from vlmreason.models.vlm.chat_template import write_template
from vlmreason.models.vlm.hugging_face import HuggingFace
from vlmreason.models.vlm.learner import Learner
from vlmreason.models.vlm.plain import PACKAGES, packages, write_processor
from vlmreason.structure import first_line, structure


def skip_without(name: str) -> None:
    """Skip where what a processor needs beside transformers is missing, or is of another build of torch."""
    for package in PACKAGES.get(name, ()):
        try:
            importlib.import_module(package)
        except (ImportError, RuntimeError) as error:
            pytest.skip(f"the library's processor of {name} needs {package}: {first_line(error)}")


def square(number: int) -> Any:
    """A picture that no processor crops or pads."""
    made = np.full((56, 56, 3), (37 * number) % 256, np.uint8)
    made[20:40, : 10 * number] = 255
    return made


def ask(folder: Path, question: str, shown: Any) -> tuple[list[int], str]:
    """The tokens of the turn, and the answer of model and processor as the library opens them."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor: Any = AutoProcessor.from_pretrained(folder)
    model: Any = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    content = [{"type": "text", "text": question}]
    if shown is not None:
        content.insert(0, {"type": "image", "image": Image.fromarray(shown)})
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=True, return_dict=True,
        return_tensors="pt",
    )  # fmt: skip
    found = model.generate(**inputs, max_new_tokens=12, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    return inputs["input_ids"][0].tolist(), processor.decode(found, skip_special_tokens=True)


def learner_of(name: str, folder: Path) -> Learner:
    return settings_of(name, folder).load()


def settings_of(name: str, folder: Path) -> HuggingFace:
    data = {"name": name, "checkpoint": str(folder), "dtype": "float32"} | dict(TINY[name].settings)
    return structure(HuggingFace, data, "model")


@pytest.mark.parametrize("name", TINY)
def test_the_librarys_processor_asks_and_answers_the_same(name: str, tmp_path: Path) -> None:
    skip_without(name)
    learner = learn_by_heart(learner_of(name, write_tiny(name, tmp_path / "hub")), num_steps=300)
    learner.save(tmp_path / "saved")
    assert write_processor(learner.processor, tmp_path / "saved")
    for question, shown in (("What does it show?", square(2)), ("What is the word number 2?", None)):
        ids, answer = ask(tmp_path / "saved", question, shown)
        if shown is not None or name != "mllama":  # whose template has the day in turns of text
            assert ids == learner.processor.prompt_ids(question, shown)
            [expected] = learner.generate([Prompt(question, shown)], 12)
            assert answer.strip() == expected.text.strip() and answer.strip()


@pytest.mark.parametrize("name", TINY)
def test_a_processor_is_the_same_without_the_weights(name: str, tmp_path: Path) -> None:
    whole = learner_of(name, write_tiny(name, tmp_path)).processor
    for path in tmp_path.glob("*.safetensors"):
        path.unlink()
    alone = settings_of(name, tmp_path).processor()
    assert (alone.template, alone.eos_ids) == (whole.template, whole.eos_ids)
    assert alone.pictures.plain() == whole.pictures.plain()
    for shown in (None, square(2)):
        assert alone.prompt_ids("What?", shown) == whole.prompt_ids("What?", shown)
    assert packages(tmp_path) == PACKAGES.get(name.removesuffix("_siglip"), ())


@pytest.mark.parametrize("name", PACKAGES)
def test_what_needs_torchvision_is_written_all_the_same(name: str, tmp_path: Path) -> None:
    learner = learner_of(name, write_tiny(name, tmp_path / "hub"))
    learner.save(tmp_path / "saved")
    assert write_processor(learner.processor, tmp_path / "saved")
    assert {"preprocessor_config.json", "chat_template.jinja"} <= {path.name for path in (tmp_path / "saved").iterdir()}


@pytest.mark.parametrize("picture", [False, True])
def test_a_template_of_the_settings_is_written_as_jinja(picture: bool) -> None:
    """Where the tokenizer has none, or one that writes otherwise."""
    coder = nano_processor()
    tokenizer = coder.tokenizer
    source = write_template(tokenizer, "<image>", coder.template)
    content: Any = [{"type": "image"}] * picture + [{"type": "text", "text": "So?"}]
    turns = [
        {"role": "user", "content": content},
        {"role": "assistant", "content": "Yes"},
        {"role": "user", "content": "Q"},
    ]
    written = tokenizer.apply_chat_template(turns, chat_template=source, tokenize=False)
    assert written == f"<user>{'<image>' * picture}So?<assistant>Yes<eos><user>Q<assistant>"


def test_a_composed_model_is_left_as_it_is(tmp_path: Path) -> None:
    """Its architecture is not the library's, so there is no processor either."""
    learner = NanoComposed("nano_composed").load()
    assert not write_processor(learner.processor, tmp_path)
    assert not list(tmp_path.iterdir())
