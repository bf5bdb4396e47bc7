"""Supervised fine-tuning here and with TRL's SFTTrainer: the same model, dialogues, precision and global batch.

    pip install -c constraints.txt -e ".[benchmark]"
    python benchmarks/training.py tiny       # the Qwen2.5-VL layout with 5 M parameters on the processor, 10 minutes
    python benchmarks/training.py 3b         # the layout of Qwen2.5-VL-3B with random weights, on a GPU
    python benchmarks/training.py 3b ours    # one side only

Dialogues are those of table_readout in text, image and image-via-text, so of very different lengths. Each side runs
in processes of its own, in turn. Useful tokens are those of the dialogues, without padding; the first steps are
left out. Peak memory is the GPU's where there is one, else the process's.
"""

import itertools
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from drawing import machine

SIDES = ("ours", "trl")
SKIPPED = 2  # steps at the beginning
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>")
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class Setting:
    """A model size and what is trained on: `scale` of the task, micro-batches of tokens (ours), examples (TRL)."""

    text: dict[str, Any]
    vision: dict[str, Any]
    scale: str
    num_steps: int
    batch_size: int
    micro_tokens: int
    micro_examples: int
    repeats: int


SETTINGS = {
    "tiny": Setting(
        text={"hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 6, "num_attention_heads": 6,
              "num_key_value_heads": 2, "vocab_size": 8192},
        vision={"hidden_size": 96, "intermediate_size": 256, "depth": 4, "num_heads": 4, "out_hidden_size": 192,
                "fullatt_block_indexes": [1, 3], "window_size": 56},
        scale="nano", num_steps=8, batch_size=32, micro_tokens=4096, micro_examples=8, repeats=3,
    ),
    "3b": Setting(
        text={"hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 16,
              "num_key_value_heads": 2, "vocab_size": 151936},
        vision={"hidden_size": 1280, "intermediate_size": 3420, "depth": 32, "num_heads": 16, "out_hidden_size": 2048,
                "fullatt_block_indexes": [7, 15, 23, 31], "window_size": 112},
        scale="paper", num_steps=10, batch_size=64, micro_tokens=4096, micro_examples=2, repeats=1,
    ),
}  # fmt: skip


def build(setting: Setting, folder: Path) -> None:
    """A model with random weights in the Hugging Face layout, with a tokenizer of its own."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import (
        PreTrainedTokenizerFast,
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2VLImageProcessorPil,
    )

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    texts = [text for i in range(200) for text in (_dialogue(setting, i).prompt, _dialogue(setting, i).response.text)]
    trainer = trainers.BpeTrainer(
        vocab_size=4096, special_tokens=list(SPECIALS), initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    raw.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=raw, eos_token="<|im_end|>", pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIALS[1:]), chat_template=TEMPLATE,
    )  # fmt: skip
    ids: dict[str, Any] = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIALS}
    head = setting.text["hidden_size"] // setting.text["num_attention_heads"]
    sections = [head // 2 - 2 * (3 * head // 16), 3 * head // 16, 3 * head // 16]
    config = Qwen2_5_VLConfig(
        text_config={
            **setting.text, "max_position_embeddings": 32768, "tie_word_embeddings": True,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": sections},
            "bos_token_id": None, "pad_token_id": ids["<|endoftext|>"], "eos_token_id": ids["<|im_end|>"],
        },
        vision_config=setting.vision,
        image_token_id=ids["<|image_pad|>"], vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"], tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = Qwen2_5_VLForConditionalGeneration(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    Qwen2VLImageProcessorPil(min_pixels=56 * 56, max_pixels=1280 * 28 * 28).save_pretrained(folder)


def _dialogue(setting: Setting, index: int) -> Any:
    from vlmreason.dialogue.build import build_dialogue
    from vlmreason.segments import VIEWS

    task = _task(setting)
    level = task.levels[index // 3 % len(task.levels)]
    return build_dialogue(task, task.sample(level, "train", index), VIEWS[index % 3])


def _task(setting: Setting) -> Any:
    import yaml

    from vlmreason.assembly.build import load_task
    from vlmreason.places import conf_dir
    from vlmreason.scale import Scale
    from vlmreason.structure import structure

    scale = structure(Scale, yaml.safe_load((conf_dir() / "scale" / f"{setting.scale}.yaml").read_text()), "scale")
    return load_task("table_readout", scale, "verbose")


def _result(seconds: list[float], num_tokens: int, num_images: int) -> dict[str, float]:
    """`seconds` of each step; the dialogues' tokens and pictures of all steps."""
    share = (len(seconds) - SKIPPED) / len(seconds)
    spent = sum(seconds[SKIPPED:])
    cuda = torch.cuda.is_available()
    peak = torch.cuda.max_memory_allocated() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "useful_tokens_per_s": num_tokens * share / spent,
        "images_per_s": num_images * share / spent,
        "peak_memory_gb": peak / 2**30,
    }


def ours(setting: Setting, folder: Path, scratch: Path) -> dict[str, Any]:
    """Through the phase runner, as `vlmreason train` does."""
    from vlmreason.models.vlm.hugging_face import HuggingFace
    from vlmreason.structure import structure
    from vlmreason.supervision import Supervision
    from vlmreason.training.engine.optimizers import OptimizerSettings
    from vlmreason.training.engine.runner import train
    from vlmreason.training.engine.settings import TrainerSettings

    task = _task(setting)
    num = setting.num_steps * setting.batch_size
    views = ["text", "image", "image_via_text"]
    parts = {level: {"level": level, "views": views} for level in task.levels}
    phases = {"main": {"num_examples": num, "parts": parts}}
    trainer = TrainerSettings(
        batch_size=setting.batch_size, micro_tokens=setting.micro_tokens, max_length=32768, precision="bf16-mixed",
        devices=1, num_workers=4 if torch.cuda.is_available() else 1, log_every=1, checkpoint_every=10**9,
        progress=False, packing="auto",
    )  # fmt: skip
    dtype: Any = "bfloat16" if torch.cuda.is_available() else "float32"  # its weights train in float32 with both
    train(
        HuggingFace(name="benchmark", checkpoint=str(folder), dtype=dtype, attention="sdpa").load(),
        {"table_readout": task},
        structure(Supervision, {"name": "benchmark", "phases": phases}),
        "table_readout",
        0,
        OptimizerSettings("adamw", lr=1e-5),
        trainer,
        scratch,
    )
    lines = [json.loads(line) for line in (scratch / "timing.jsonl").read_text().splitlines()]
    used = lines[SKIPPED:]
    seconds = [line["seconds"] for line in lines]
    found: dict[str, Any] = _result(
        seconds,
        sum(line["tokens_per_s"] * line["seconds"] for line in used) * len(lines) / len(used),
        sum(line["images_per_s"] * line["seconds"] for line in used) * len(lines) / len(used),
    )
    found["mfu"] = statistics.median([line["mfu"] for line in used]) if used[0].get("mfu") else None
    found["padding_share"] = statistics.mean([line["padding_share"] for line in used])
    return found


def trl(setting: Setting, folder: Path, scratch: Path) -> dict[str, Any]:
    """SFTTrainer with its own defaults but for what both sides share."""
    from datasets import Dataset
    from PIL import Image
    from transformers import (
        AutoTokenizer,
        ProcessorMixin,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessorPil,
        TrainerCallback,
    )
    from trl import SFTConfig, SFTTrainer

    class ImageProcessor(Qwen2_5_VLProcessor):  # the video part needs torchvision
        def __init__(self, image_processor: Any = None, tokenizer: Any = None, chat_template: Any = None) -> None:
            self.image_token, self.video_token = "<|image_pad|>", "<|video_pad|>"
            self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
            self.video_token_id = -1
            ProcessorMixin.__init__(  # type: ignore[no-untyped-call]
                self, image_processor, tokenizer, chat_template=chat_template
            )

    class Clock(TrainerCallback):
        marks: tuple[float, ...] = ()

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.marks = (time.perf_counter(),)

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.marks += (time.perf_counter(),)

    tokenizer = AutoTokenizer.from_pretrained(folder)
    images = Qwen2VLImageProcessorPil.from_pretrained(folder)
    processor = ImageProcessor(images, tokenizer, chat_template=tokenizer.chat_template)
    rows = []
    for index in range(setting.num_steps * setting.batch_size):
        dialogue = _dialogue(setting, index)
        rows.append({
            "prompt": [{"role": "user", "content": dialogue.prompt}],
            "completion": [{"role": "assistant", "content": dialogue.response.text}],
            "images": [] if dialogue.image is None else [Image.fromarray(dialogue.image)],
        })  # fmt: skip
    num_tokens = num_images = 0
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")
    clock = Clock()
    cuda = torch.cuda.is_available()
    trainer = SFTTrainer(
        model,
        args=SFTConfig(
            output_dir=str(scratch), per_device_train_batch_size=setting.micro_examples,
            gradient_accumulation_steps=setting.batch_size // setting.micro_examples, num_train_epochs=1, bf16=True,
            use_cpu=not cuda, learning_rate=1e-5, max_length=None, gradient_checkpointing=False, save_strategy="no",
            report_to="none", completion_only_loss=True, dataloader_num_workers=4 if cuda else 1, disable_tqdm=True,
            logging_steps=1, optim="adamw_torch_fused" if cuda else "adamw_torch",
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=processor,
        callbacks=[clock],
    )  # fmt: skip
    for batch in trainer.get_train_dataloader():
        num_tokens += int(batch["attention_mask"].sum())
        num_images += len(batch.get("image_grid_thw", ()))
    trainer.train()
    marks = clock.marks
    return _result([b - a for a, b in itertools.pairwise(marks)], num_tokens, num_images)


def main() -> None:
    size = sys.argv[1] if len(sys.argv) > 1 else "tiny"
    if size not in SETTINGS:
        sys.exit(f"{size}: the sizes are {', '.join(SETTINGS)}")
    setting = SETTINGS[size]
    if len(sys.argv) == 5:  # one side, in a process of its own
        found = {"ours": ours, "trl": trl}[sys.argv[2]](setting, Path(sys.argv[3]), Path(sys.argv[4]))
        Path(sys.argv[4], "result.json").write_text(json.dumps(found))
        return
    sides = sys.argv[2:3] or SIDES
    results: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    with tempfile.TemporaryDirectory() as folder:
        build(setting, Path(folder) / "model")
        for repeat in range(setting.repeats):
            for side in sides:
                scratch = Path(folder) / f"{side}{repeat}"
                scratch.mkdir()
                subprocess.run([sys.executable, __file__, size, side, f"{folder}/model", str(scratch)], check=True)
                results[side].append(json.loads((scratch / "result.json").read_text()))
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else machine()
    print(f"{device}; torch {torch.__version__}; {size}, {setting.repeats} runs of each side, medians")
    medians = {
        side: {k: statistics.median([run[k] for run in runs]) for k in runs[0] if runs[0][k] is not None}
        for side, runs in results.items()
    }
    for side, figures in medians.items():
        print(f"{side:<5} " + "  ".join(f"{name} {value:.4g}" for name, value in figures.items()))
    if len(medians) == 2:
        for name in ("useful_tokens_per_s", "peak_memory_gb"):
            print(f"ours / trl, {name}: {medians['ours'][name] / medians['trl'][name]:.2f}")


if __name__ == "__main__":
    main()
