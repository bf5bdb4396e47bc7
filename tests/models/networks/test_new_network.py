"""A new network is a class and a file of conf/model: supervision trains it, and it answers by choosing."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.program import Done, runner

NETWORK = '''
"""Counts the letters of a prompt, and knows the options by one linear layer."""

import json
from dataclasses import dataclass

import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from vlmreason.models.contract import Choice
from vlmreason.segments import ANSWER, SEGMENT_IDS


@dataclass(frozen=True)
class Letters:
    name: str
    scale: float

    def untrained(self, example):
        return Learner(self.scale, example.options)

    def load(self, trained=None):
        made = Learner(self.scale, json.loads((trained / "options.json").read_text()))
        made.model.load_state_dict(load_file(trained / "letters.safetensors"))
        return made


class Counted:
    image = None

    def __init__(self, counts, number):
        self.counts, self.number, self.segments = counts, number, [SEGMENT_IDS[ANSWER]]

    def __len__(self):
        return 1


class Processor:
    def __init__(self, scale, options):
        self.scale, self.options = scale, list(options)

    def counts(self, text):
        return torch.tensor([self.scale * text.count(chr(code)) for code in range(32, 127)])

    def encode(self, dialogue):
        return Counted(self.counts(dialogue.prompt), self.options.index(dialogue.response.text))

    def collate(self, examples, multiple=1):
        return {
            "counts": torch.stack([one.counts for one in examples]),
            "numbers": torch.tensor([one.number for one in examples]),
            "segments": torch.tensor([one.segments for one in examples]),
        }


class Learner:
    prefixes = {"vision_tower": (), "projector": ("",), "language_model": ()}
    source = num_positions = None
    packable = False

    def __init__(self, scale, options):
        torch.manual_seed(0)
        self.model = torch.nn.Linear(95, len(options))
        self.processor = Processor(scale, options)

    def adapt(self, settings, seed, trained=None):
        pass

    def trained_parameters(self, train):
        return list(self.model.named_parameters())

    def token_losses(self, batch):
        logits = self.model(batch["counts"].to(self.model.weight.dtype))
        return F.cross_entropy(logits, batch["numbers"], reduction="none"), batch["segments"][:, 0]

    @torch.no_grad()
    def choose(self, prompts, options):
        find = self.processor.options.index
        rows = [F.log_softmax(self.model(self.processor.counts(p.text)), 0).tolist() for p in prompts]
        return [[Choice(row[find(text)], 1) for text in some] for row, some in zip(rows, options)]

    def generate(self, prompts, max_new_tokens, forbidden_starts=()):
        raise ValueError("model=letters: it writes nothing; evaluation.how=choose")

    def count_tokens(self, text):
        return 1

    def save(self, directory):
        directory.mkdir(parents=True, exist_ok=True)
        save_file(self.model.state_dict(), directory / "letters.safetensors")
        (directory / "options.json").write_text(json.dumps(self.processor.options))
'''
YAML = """# Counts letters.
_target_: letters.Letters
name: letters
scale: 1.0  # of the counts
"""
TRAIN = [
    "train", "env=number_line", "env.view=text", "env.cot=false", "env.start.nano=256", "env.nano.max_number=1",
    "scale.batch_size=16", "optimizer=adamw", "optimizer.lr=0.05", "trainer.precision=32-true",
    "trainer.progress=false", "trainer.accelerator=cpu", "trainer.num_workers=0",
    "trainer.evaluate_every=8", "trainer.evaluate_num=8",
    "evaluation.num=12",
]  # fmt: skip


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Done]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "letters.py").write_text(NETWORK)
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "letters.yaml").write_text(YAML)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "letters", raising=False)
    return runner(monkeypatch, capsys)


@pytest.mark.slow
def test_a_network_of_a_user_is_trained_and_chooses(program: Callable[..., Done], tmp_path: Path) -> None:
    words = [f"--config-dir={tmp_path / 'conf'}", *TRAIN[1:], "model=letters"]
    done = program("train", *words, "evaluation.how=choose")
    assert done.code == 0, done.err
    folder = tmp_path / done.last_line
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["num"], summary["unparsed"]) == (12, 0)
    losses = [line["loss"] for line in map(json.loads, (folder / "metrics.jsonl").open()) if "loss" in line]
    assert losses[-1] < 0.5 * losses[0]
    again = program("train", *words, "evaluation.how=choose")
    assert (again.code, again.last_line) == (0, done.last_line)

    checked = program("check", *words, "evaluation.how=choose")
    assert checked.code == 0, checked.err
    assert json.loads(checked.last_line)["response_tokens"] == 1.0
    refused = program("train", *words)
    assert refused.code == 2 and "model=letters: it writes nothing; evaluation.how=choose" in refused.err


@pytest.mark.slow
def test_the_policy_without_language_is_trained_by_supervision(program: Callable[..., Done], tmp_path: Path) -> None:
    done = program(*TRAIN, "model=cnn", "evaluation.how=choose")
    assert done.code == 0, done.err
    summary = json.loads((tmp_path / done.last_line / "summary.json").read_text())
    assert summary["accuracy"] == 1.0
    texts = program(*[word for word in TRAIN if word != "env.cot=false"], "model=cnn", "evaluation.how=choose")
    assert texts.code == 2 and "this network knows the options" in texts.err
