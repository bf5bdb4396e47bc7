"""What the generic adapter cannot find out: how each family of Hugging Face models takes pictures.

A family is known by `model_type` in its config.json. Its picture processor (the library's own, without
torchvision) makes the tensors; the classes here say which tokens stand for a picture and where they are.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vlmreason.models.vlm.learner import LLAVA
from vlmreason.models.vlm.processor import Pictures
from vlmreason.models.vlm.text import TextCoder, Written
from vlmreason.models.vlm.vision_attention import batch_vision_attention
from vlmreason.pictures import Picture


class ModelPictures(Pictures):
    """Pictures as the model's own processor of the library prepares them.

    config: the model's; processor: an image processor of the library (its `...Pil` class); coder: of its tokenizer.
    """

    def __init__(self, config: Any, processor: Any, coder: TextCoder) -> None:
        self.config, self.processor = config, processor
        self.placeholder_id = config.image_token_id

    def inputs(self, input_ids_BL: Tensor, images: Sequence[Sequence[Picture]]) -> dict[str, Tensor]:
        flat = [image for row in images for image in row]
        return self._tensors(flat) if flat else {}

    def plain(self) -> Mapping[str, Mapping[str, Any]]:
        return {}

    def save(self, directory: Path) -> None:
        self.processor.save_pretrained(directory)

    def _tensors(self, flat: Sequence[Picture]) -> dict[str, Tensor]:
        return dict(self.processor(images=list(flat), input_data_format="channels_last", return_tensors="pt"))


class QwenPictures(ModelPictures):
    """Pictures keep their shape: one token per square of merged patches, with positions in two dimensions."""

    sequential = False

    def expand(self, height: int, width: int) -> list[int]:
        rows, columns = self._grid(height, width)
        return [self.placeholder_id] * (rows * columns)

    def inputs(self, input_ids_BL: Tensor, images: Sequence[Sequence[Picture]]) -> dict[str, Tensor]:
        found = super().inputs(input_ids_BL, images)
        if found:  # without it the model takes positions in one dimension, silently
            found["mm_token_type_ids"] = (input_ids_BL == self.placeholder_id).int()
        return found

    def positions(self, input_ids: Sequence[int], images: Sequence[Picture]) -> Tensor:
        """Return (4, L): in the sequence (for attention), then time, row and column (for the rotation).

        A picture takes as many steps as its longer side; time stands still in it.
        """
        grids = iter([self._grid(*image.shape[:2]) for image in images])
        parts, next_position = [], 0
        for is_picture, run in itertools.groupby(input_ids, key=lambda token: token == self.placeholder_id):
            num = len(list(run))
            while num > 0:
                if not is_picture:
                    parts.append(torch.arange(num).expand(3, -1) + next_position)
                    num, next_position = 0, next_position + num
                    continue
                rows, columns = next(grids)
                row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
                parts.append(torch.stack([torch.zeros_like(row), row, column]).flatten(1) + next_position)
                num, next_position = num - rows * columns, next_position + max(rows, columns)
        return torch.cat([torch.arange(len(input_ids)).expand(1, -1), torch.cat(parts, dim=1)])

    def _grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of tokens."""
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

        own = self.processor
        side = own.patch_size * own.merge_size
        try:
            resized = smart_resize(height, width, side, own.size["shortest_edge"], own.size["longest_edge"])
        except ValueError as error:
            raise ValueError(f"a picture of {height} x {width} px: {error}") from error
        return resized[0] // side, resized[1] // side


class LlavaPictures(ModelPictures):
    """Pictures of one square size, a token per patch.

    Where the processor would crop a picture to a square (CLIP's), it is first padded to one with the mean colour, as
    LLaVA-1.5 was trained: nothing at its edges is lost.
    """

    def __init__(self, config: Any, processor: Any, coder: TextCoder) -> None:
        super().__init__(config, processor, coder)
        self.num_tokens = _num_features(config)

    def expand(self, height: int, width: int) -> list[int]:
        return [self.placeholder_id] * self.num_tokens

    def plain(self) -> Mapping[str, Mapping[str, Any]]:
        """Return it without the padding: only square pictures are the same there."""
        return _llava_processor(self.config)

    def prepare(self, picture: Picture) -> Picture:
        height, width = picture.shape[:2]
        if height == width or not getattr(self.processor, "do_center_crop", False):
            return picture
        side = max(height, width)
        top, left = (side - height) // 2, (side - width) // 2
        square = np.empty((side, side, 3), np.uint8)
        square[:] = [round(255 * mean) for mean in self.processor.image_mean]
        square[top : top + height, left : left + width] = picture
        return square

    def _tensors(self, flat: Sequence[Picture]) -> dict[str, Tensor]:
        return super()._tensors([self.prepare(picture) for picture in flat])


class LlavaNextPictures(ModelPictures):
    """The picture as a whole and cut into tiles; features of padding are dropped, each row of patches ends with one."""

    def __init__(self, config: Any, processor: Any, coder: TextCoder) -> None:
        from transformers import LlavaNextProcessor

        super().__init__(config, processor, coder)
        vision = config.vision_config
        self.counter: Any = LlavaNextProcessor(  # type: ignore[no-untyped-call]
            image_processor=processor,
            tokenizer=coder.tokenizer,
            patch_size=vision.patch_size,
            vision_feature_select_strategy=config.vision_feature_select_strategy,
            num_additional_image_tokens=_num_class_tokens(config),
        )

    def plain(self) -> Mapping[str, Mapping[str, Any]]:
        return _llava_processor(self.config)

    def expand(self, height: int, width: int) -> list[int]:
        found = self.counter._get_num_multimodal_tokens(image_sizes=[(height, width)])
        return [self.placeholder_id] * found["num_image_tokens"][0]


class MllamaPictures(ModelPictures):
    """One token stands for a picture; what follows it sees its tiles through cross attention.

    Not packable: the model's cross attention knows one row of tokens per dialogue.
    """

    packable = False
    sequential = False

    def expand(self, height: int, width: int) -> list[int]:
        return [self.placeholder_id]

    def inputs(self, input_ids_BL: Tensor, images: Sequence[Sequence[Picture]]) -> dict[str, Tensor]:
        rows = [i for i, row in enumerate(images) if row]
        if not rows:
            return {}
        made = dict(self.processor(images=[list(images[i]) for i in rows], input_data_format="channels_last"))
        num_tiles = made.pop("num_tiles")
        batch = {key: _spread(torch.as_tensor(np.asarray(made[key])), rows, len(images)) for key in sorted(made)}
        batch["aspect_ratio_mask"][:, :, 0] = 1  # of a row without a picture too: a softmax needs one tile
        seen_BLMT = torch.zeros(*input_ids_BL.shape, *batch["aspect_ratio_mask"].shape[1:], dtype=torch.long)
        for i, tiles in zip(rows, num_tiles, strict=True):
            places = (input_ids_BL[i] == self.placeholder_id).nonzero().flatten().tolist()
            for number, (place, num) in enumerate(zip(places, tiles, strict=True)):
                seen_BLMT[i, place:, number, :num] = 1
        return batch | {"cross_attention_mask": seen_BLMT}


class TiledPictures(ModelPictures):
    """Idefics3 and SmolVLM: tiles row by row, then the whole picture, between tokens that say which is which."""

    def __init__(self, config: Any, processor: Any, coder: TextCoder) -> None:
        super().__init__(config, processor, coder)
        vision, tile = config.vision_config, processor.max_image_size["longest_edge"]
        self.num_tokens = (vision.image_size // vision.patch_size // config.scale_factor) ** 2
        self.coder = coder
        if processor.size["longest_edge"] % tile:
            raise ValueError(
                f"model.longest_edge={processor.size['longest_edge']}: a multiple of {tile} is expected, a tile's side"
            )
        self._made: dict[tuple[int, int], list[int]] = {}

    def plain(self) -> Mapping[str, Mapping[str, Any]]:
        return {"processor_config.json": {"image_seq_len": self.num_tokens}}

    def expand(self, height: int, width: int) -> list[int]:
        _, rows, columns = self.processor.get_number_of_image_patches(height, width)
        if (rows, columns) not in self._made:
            self._made[rows, columns] = self._layout(rows, columns)
        return self._made[rows, columns]

    def _layout(self, rows: int, columns: int) -> list[int]:
        fake, image = "<fake_token_around_image>", str(self.coder.tokenizer.convert_ids_to_tokens(self.placeholder_id))
        tile = image * self.num_tokens
        text = ""
        for row in range(rows):
            text += "".join(f"{fake}<row_{row + 1}_col_{column + 1}>{tile}" for column in range(columns)) + "\n"
        return self.coder.sequence(Written(f"{text}{chr(10) * bool(rows)}{fake}<global-img>{tile}{fake}"))

    def _tensors(self, flat: Sequence[Picture]) -> dict[str, Tensor]:
        """pixel_values (1, N, C, H, W) of all tiles: the model takes them row by row, and rows of several dialogues
        need no padding."""
        made = [self.processor(images=[picture], input_data_format="channels_last") for picture in flat]
        tiles = np.concatenate([np.asarray(picture["pixel_values"])[0] for picture in made])
        return {"pixel_values": torch.from_numpy(tiles)[None]}


def _hide_pictures_of_others(model: Any) -> None:
    """Llama 3.2's cross attention gives nothing to tokens that see no picture: those before it, and text-only rows.

    The library masks the layer's feed-forward part only (huggingface/transformers#39379), so in a mixed batch rows of
    text would attend to the empty tiles that fill up the batch. Meta's implementation masks both, as is done here.
    """
    for layer in model.model.language_model.layers:
        if hasattr(layer, "cross_attn"):
            layer.register_forward_pre_hook(_keep_row_mask, with_kwargs=True)
            layer.cross_attn.register_forward_hook(_apply_row_mask)


def _keep_row_mask(layer: Any, _: Any, inputs: Mapping[str, Any]) -> None:
    layer.cross_attn.row_mask = inputs["full_text_row_masked_out_mask"]


def _apply_row_mask(attention: Any, _: Any, output: tuple[Tensor, Any]) -> tuple[Tensor, Any]:
    mask_BHL1 = attention.row_mask  # kept: gradient checkpointing computes the layer again, without the hook before it
    return output if mask_BHL1 is None else (output[0] * mask_BHL1[:, 0], output[1])


def _num_class_tokens(config: Any) -> int:
    kind = config.vision_config.model_type
    if kind not in ("clip_vision_model", "siglip_vision_model"):
        raise ValueError(f"a vision tower of model_type={kind!r}: known are clip_vision_model, siglip_vision_model")
    return int(kind == "clip_vision_model")


def _llava_processor(config: Any) -> dict[str, dict[str, Any]]:
    """What LLaVA's processors cannot find out by themselves."""
    settings = {
        "patch_size": config.vision_config.patch_size,
        "vision_feature_select_strategy": config.vision_feature_select_strategy,
        "num_additional_image_tokens": _num_class_tokens(config),
    }
    return {"processor_config.json": settings}


def _num_features(config: Any) -> int:
    vision = config.vision_config
    dropped = int(config.vision_feature_select_strategy == "default")  # the first: the class token, where there is one
    return int((vision.image_size // vision.patch_size) ** 2 + _num_class_tokens(config) - dropped)


def _spread(tensor: Tensor, rows: Sequence[int], num: int) -> Tensor:
    """`tensor` (R, ...) at `rows` of `num` rows, zero elsewhere."""
    whole = tensor.new_zeros(num, *tensor.shape[1:])
    whole[list(rows)] = tensor
    return whole


@dataclass(frozen=True)
class Family:
    """prefixes: of the parameter names of each part; limits: the settings of picture sizes that have an effect, each
    with its name in the image processor's `size`; repair: what is put right in a loaded model."""

    pictures: Callable[[Any, Any, TextCoder], Pictures]
    prefixes: Mapping[str, tuple[str, ...]]
    limits: Mapping[str, str] = field(default_factory=dict)
    repair: Callable[[Any], None] | None = None


_QWEN = Family(
    QwenPictures,
    {
        "vision_tower": ("model.visual.patch_embed.", "model.visual.blocks."),
        "projector": ("model.visual.merger.",),
        "language_model": ("model.language_model.", "lm_head."),
    },
    limits={"min_pixels": "shortest_edge", "max_pixels": "longest_edge"},
    repair=batch_vision_attention,
)

_TILED = Family(
    TiledPictures,
    {
        "vision_tower": ("model.vision_model.",),
        "projector": ("model.connector.",),
        "language_model": ("model.text_model.", "lm_head."),
    },
    limits={"longest_edge": "longest_edge"},
)

FAMILIES: Mapping[str, Family] = {
    "qwen2_vl": _QWEN,
    "qwen2_5_vl": _QWEN,
    "llava": Family(LlavaPictures, LLAVA),
    "llava_next": Family(
        LlavaNextPictures, {**LLAVA, "projector": ("model.multi_modal_projector.", "model.image_newline")}
    ),
    "mllama": Family(
        MllamaPictures, {**LLAVA, "vision_tower": ("model.vision_model.",)}, repair=_hide_pictures_of_others
    ),
    "smolvlm": _TILED,
    "idefics3": _TILED,
}
"""By `model_type`."""
