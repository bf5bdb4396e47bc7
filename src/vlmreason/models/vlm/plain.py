"""What plain transformers needs beside a saved model: the settings of its own processor, and a chat template."""

from __future__ import annotations

from pathlib import Path

from vlmreason.files import read_json, write_json_atomic, write_text_atomic
from vlmreason.models.vlm.chat_template import write_template
from vlmreason.models.vlm.processor import Processor

PACKAGES = {
    "qwen2_vl": ("torchvision",),
    "qwen2_5_vl": ("torchvision",),
    "smolvlm": ("torchvision", "num2words"),
}
"""What the library's processors of some model types need beside it: they take videos too."""


def packages(directory: Path) -> tuple[str, ...]:
    """Return the packages beside transformers without which the processor of a saved model does not open."""
    return PACKAGES.get(str(read_json(directory / "config.json").get("model_type")), ())


def write_processor(processor: Processor, directory: Path) -> bool:
    """Complete a saved model so that `AutoProcessor` opens it and writes turns as they were trained.

    Returns False, with nothing written, where the library has no processor for such a model.
    """
    found = processor.pictures.plain()
    if found is None:
        return False
    for name, content in found.items():
        write_json_atomic(directory / name, content)
    placeholder = str(processor.tokenizer.convert_ids_to_tokens(processor.pictures.placeholder_id))
    source = write_template(processor.tokenizer, placeholder, processor.template)
    write_text_atomic(directory / "chat_template.jinja", source)
    return True
