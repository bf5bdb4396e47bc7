"""What plain transformers needs beside a saved model: the settings of its own processor, and a chat template."""

from __future__ import annotations

from pathlib import Path

from vlmreason.files import write_json_atomic, write_text_atomic
from vlmreason.models.vlm.chat_template import write_template
from vlmreason.models.vlm.processor import Processor


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
