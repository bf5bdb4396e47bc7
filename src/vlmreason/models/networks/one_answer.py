"""What networks share whose answer is one token: the form of an example, what they refuse, how weights are kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vlmreason.files import check_ordinary
from vlmreason.models.contract import Prompt
from vlmreason.segments import ANSWER, SEGMENT_IDS
from vlmreason.structure import first_line


class OneAnswer:
    """An example of which the answer alone is learned."""

    image: None = None

    @property
    def segments(self) -> list[int]:
        return [SEGMENT_IDS[ANSWER]]

    def __len__(self) -> int:
        return 1


class NoLanguageModel:
    """What else is asked of a model's configuration: there is no language model."""

    num_hidden_layers, num_attention_heads, head_dim = 0, 1, 1

    def __init__(self, width: int) -> None:
        self.hidden_size = width

    def get_text_config(self) -> NoLanguageModel:
        return self


def refuse_beginnings(prompts: Sequence[Prompt], forbidden_starts: Sequence[str]) -> None:
    """Raise ValueError where a text to go on from, or not to begin with, is asked of a network that writes none."""
    if forbidden_starts or any(prompt.prefill or prompt.pattern for prompt in prompts):
        raise ValueError(
            "evaluation.conversion, evaluation.prefill and evaluation.length: a network writes no text; "
            "evaluation.conversion=free evaluation.prefill='' evaluation.length=free"
        )


def save_weights(model: nn.Module, path: Path) -> None:
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    save_file(tensors, path)


@contextmanager
def kept_weights(path: Path, settings: str) -> Iterator[dict[str, Tensor]]:
    """Read weights that lie beside a file of settings, for the network that is filled from them inside.

    Raises ValueError where the weights are missing or damaged, or do not fit that network.
    """
    try:
        check_ordinary(path)
        yield load_file(path)
    except (SafetensorError, OSError, RuntimeError, KeyError) as error:
        raise ValueError(f"{path}: not the weights of {settings} ({first_line(error)})") from error
