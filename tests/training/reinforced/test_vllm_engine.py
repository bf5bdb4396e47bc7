"""Rollouts by vLLM, against a stand-in with as much of its interface as is used, and against vLLM where it is."""

import dataclasses
import importlib.util
import json
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support import families
from support.acting import reinforced_run, settings_of
from support.families import TINY, picture, write_tiny
from support.tiny import TRAINER, tiny_learner
from torch.nn import functional as F

from vlmreason.models.contract import AdapterSettings, Prompt, Sample
from vlmreason.models.vlm.hugging_face import HuggingFace
from vlmreason.models.vlm.learner import Learner
from vlmreason.models.vlm.processor import Encoded
from vlmreason.segments import ANSWER, Response, Segment
from vlmreason.structure import structure
from vlmreason.training.reinforced import policy, vllm_engine
from vlmreason.training.reinforced.settings import VllmSettings
from vlmreason.training.reinforced.vllm_engine import VllmEngine, check

PROMPTS = [Prompt("What is it?", None), *(Prompt(f"What is shown in <image> {i}?", picture(i)) for i in range(3))]
SEEDS = range(len(PROMPTS))
each_family = pytest.mark.parametrize("name", ["llava", "llava_next", "qwen2_5_vl", "idefics3"])


def learner_of(name: str, directory: Path) -> Learner:
    """Of a model's files; not all tokens alike."""
    data = {"name": name, "checkpoint": str(directory), "dtype": "float32"}
    learner = structure(HuggingFace, data | dict(TINY[name].settings), "model").load()
    learner.model.eval()
    with torch.no_grad():
        for parameter in learner.model.model.parameters():
            parameter.mul_(1.5)
    return learner


@dataclasses.dataclass
class SamplingParams:
    """The fields of vLLM's that are used."""

    temperature: float
    max_tokens: int
    seed: int
    stop_token_ids: list[int]
    logit_bias: dict[int, float]
    logprobs: int
    detokenize: bool


class LLM:
    """vLLM's as documented: it has weights of its own and expands a picture's placeholder itself."""

    made: ClassVar[list["LLM"]] = []
    name = ""
    deaf = False

    def __init__(
        self, model: str, *, revision: str | None, tokenizer_revision: str | None, dtype: str, generation_config: str,
        logprobs_mode: str, limit_mm_per_prompt: dict[str, int], mm_processor_kwargs: dict[str, Any],
        gpu_memory_utilization: float, max_model_len: int, enforce_eager: bool, enable_sleep_mode: bool,
    ) -> None:  # fmt: skip
        torch.manual_seed(0)  # as vLLM does
        assert dtype == "float32" and generation_config == "vllm" and logprobs_mode == "processed_logprobs"
        assert limit_mm_per_prompt["image"] == 1
        self.place, self.learner = Path(model), learner_of(self.name, Path(model))
        assert mm_processor_kwargs["size"] == dict(self.learner.processor.pictures.processor.size)  # type: ignore[attr-defined]
        self.model_config = SimpleNamespace(max_model_len=4096 if max_model_len == -1 else max_model_len)
        self.llm_engine = SimpleNamespace(reset_encoder_cache=lambda: self.calls.append("reset_encoder_cache"))
        self.may_sleep, self.calls, self.prompts = enable_sleep_mode, [], []  # type: ignore[var-annotated]
        self.awake = {"weights", "kv_cache"}
        LLM.made.append(self)

    def sleep(self, level: int = 1) -> None:
        assert self.may_sleep and level == 2
        self.calls.append("sleep")
        self.awake = set()
        for parameter in self.learner.model.parameters():
            parameter.data.fill_(torch.nan)

    def wake_up(self, tags: list[str] | None = None) -> None:
        self.awake |= set(tags or ("weights", "kv_cache"))

    def reset_prefix_cache(self) -> bool:
        self.calls.append("reset_prefix_cache")
        return True

    def collective_rpc(
        self, method: str, timeout: float | None = None, args: Any = (), kwargs: Any = None
    ) -> list[Any]:
        assert method == "reload_weights" and "weights" in self.awake
        self.calls.append(method)
        weights = {name: weight.clone().contiguous() for name, weight in kwargs["weights_iterator"]}
        if not self.deaf:  # under the names of the model's own files
            save_file(weights, self.place / "model.safetensors", {"format": "pt"})
            self.learner = learner_of(self.name, self.place)
            with torch.no_grad():
                for parameter in self.learner.model.model.parameters():
                    parameter.div_(1.5)
        return [None]

    @torch.no_grad()
    def generate(self, prompts: list[dict[str, Any]], params: list[SamplingParams], *, use_tqdm: bool) -> list[Any]:
        assert self.awake == {"weights", "kv_cache"} and not use_tqdm
        self.prompts += prompts
        return [self._answer(*pair) for pair in zip(prompts, params, strict=True)]

    def _answer(self, prompt: dict[str, Any], own: SamplingParams) -> Any:
        processor, model = self.learner.processor, self.learner.model
        [never] = own.logit_bias
        ids, image = list(prompt["prompt_token_ids"]), None
        assert ids.count(never) == len(prompt) - 1, "one placeholder for a picture"
        if "multi_modal_data" in prompt:
            image = np.asarray(prompt["multi_modal_data"]["image"])
            place = ids.index(never)
            ids[place : place + 1] = processor.pictures.expand(*image.shape[:2])
        generator = torch.Generator().manual_seed(own.seed)
        drawn: list[int] = []
        logprobs = []
        while len(drawn) < own.max_tokens and not set(drawn) & set(own.stop_token_ids):
            example = Encoded([*ids, *drawn], [0] * (len(ids) + len(drawn)), image)
            batch = processor.collate([example])
            batch = {key: value for key, value in batch.items() if key not in ("labels", "segments")}
            logits = model(**batch).logits[0, -1].float()
            logits[never] += own.logit_bias[never]
            logs = F.log_softmax(logits / own.temperature, dim=-1)
            drawn.append(int(torch.multinomial(logs.exp(), 1, generator=generator)))
            logprobs.append({drawn[-1]: SimpleNamespace(logprob=float(logs[drawn[-1]]))})
        reason = "stop" if drawn[-1] in own.stop_token_ids else "length"
        output = SimpleNamespace(token_ids=tuple(drawn), logprobs=logprobs, finish_reason=reason)
        return SimpleNamespace(prompt_token_ids=ids, outputs=[output])


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Any:
    module: Any = ModuleType("vllm")
    module.__spec__ = ModuleSpec("vllm", None)
    module.LLM, module.SamplingParams = LLM, SamplingParams
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "ERROR")
    monkeypatch.setattr(LLM, "made", [])
    return module


def served(name: str, directory: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> tuple[Learner, VllmEngine]:
    monkeypatch.setattr(LLM, "name", name)
    learner = learner_of(name, write_tiny(name, directory))
    return learner, VllmEngine(learner, VllmSettings(**settings))


def gap(learner: Learner, samples: list[Sample], temperature: float) -> float:
    """The largest difference of a log-probability from the trainer's."""
    encoded = [
        learner.processor.encode_generated(prompt, sample.ids, lambda text: Response((Segment(ANSWER, text),)))
        for prompt, sample in zip(PROMPTS, samples, strict=True)
    ]
    batch = {key: value.to(learner.model.device) for key, value in learner.processor.collate(encoded).items()}
    with torch.no_grad():
        scores = learner.token_scores(batch, temperature)
    drawn = torch.tensor([value for sample in samples for value in sample.logprobs])
    return float((scores.logprobs_N.cpu() - drawn).abs().max())


def change(learner: Learner) -> None:
    with torch.no_grad():
        for name, parameter in learner.model.named_parameters():
            if learner.adapter.name == "none" or ".lora_" in name:
                parameter.add_(torch.randn_like(parameter) * 0.2)


@each_family
@pytest.mark.parametrize("adapter", [AdapterSettings(), AdapterSettings("lora", (), ("language_model",), 2, 4.0)])
def test_draws_with_the_learner_s_weights(stand_in, tmp_path, monkeypatch, name, adapter):
    """Those it has when a rollout begins, after a change of them too; of text, of pictures, at the temperature."""
    learner, engine = served(name, tmp_path, monkeypatch)
    learner.adapt(adapter, seed=0)
    torch.manual_seed(0)
    for temperature in (1.0, 0.3):
        change(learner)
        before = {name: parameter.detach().clone() for name, parameter in learner.model.named_parameters()}
        with engine.serving():
            samples = engine.sample(PROMPTS, SEEDS, 8, temperature)
            assert gap(learner, samples, temperature) < 1e-3
            change(learner)
            later = engine.sample(PROMPTS, SEEDS, 8, temperature)
            assert gap(learner, later, temperature) > 1e-2, "a rollout has one policy"
        assert before.keys() == dict(learner.model.named_parameters()).keys(), "adapters stay where they are"
        for sample in samples:
            assert len(sample.ids) == len(sample.logprobs) == sample.num_tokens
            assert sample.finished == (sample.ids[-1] in learner.processor.eos_ids)
            assert sample.finished or sample.num_tokens == 8
            assert sample.text == learner.processor.decode(sample.ids)
    [llm] = LLM.made
    assert llm.calls.count("reload_weights") == llm.calls.count("sleep") == 2
    assert llm.calls.count("reset_prefix_cache") == llm.calls.count("reset_encoder_cache") == 2


def test_a_response_may_end(stand_in, tmp_path, monkeypatch):
    """At any of the model's end tokens, which is the last that is kept."""
    learner, engine = served("idefics3", tmp_path, monkeypatch)
    monkeypatch.setattr(learner.processor, "eos_ids", [*learner.processor.eos_ids, *range(100, 140)])
    torch.manual_seed(0)
    samples = engine.sample(PROMPTS * 3, range(3 * len(PROMPTS)), 8, 1.0)
    assert {sample.finished for sample in samples} == {True, False}
    for sample in samples:
        ends = [i for i, token in enumerate(sample.ids) if token in learner.processor.eos_ids]
        assert ends == ([sample.num_tokens - 1] if sample.finished else [])


def test_the_same_seeds_draw_the_same(stand_in, tmp_path, monkeypatch):
    """Whatever was drawn before, and in another batch."""
    _, engine = served("idefics3", tmp_path, monkeypatch)
    found = engine.sample(PROMPTS, SEEDS, 6, 1.0)
    assert found == engine.sample(PROMPTS, SEEDS, 6, 1.0)
    assert found[2:] == engine.sample(PROMPTS[2:], SEEDS[2:], 6, 1.0)
    assert found != engine.sample(PROMPTS, [2**40 + seed for seed in (7, 8, 9, 10)], 6, 1.0)


def test_without_sleep_it_keeps_its_memory(stand_in, tmp_path, monkeypatch):
    learner, engine = served("idefics3", tmp_path, monkeypatch, sleep=False, max_model_len=700)
    for _ in range(2):
        change(learner)
        with engine.serving():
            assert gap(learner, engine.sample(PROMPTS, SEEDS, 4, 1.0), 1.0) < 1e-3
    [llm] = LLM.made
    assert llm.calls == ["reload_weights", "reset_prefix_cache", "reset_encoder_cache"] * 2
    with pytest.raises(ValueError, match=r"max_new_tokens=690: a prompt has \d+ tokens, vLLM has room for 10"):
        engine.sample(PROMPTS, SEEDS, 690, 1.0)


def test_pictures_are_whole(stand_in, tmp_path, monkeypatch):
    """LLaVA's processor would crop them."""
    learner, engine = served("llava", tmp_path, monkeypatch)
    engine.sample(PROMPTS, SEEDS, 2, 1.0)
    for prompt, request in zip(PROMPTS, LLM.made[0].prompts, strict=True):
        assert ("multi_modal_data" in request) == (prompt.image is not None)
        if prompt.image is not None:
            shown = np.asarray(request["multi_modal_data"]["image"])
            assert shown.shape[:2] == (max(prompt.image.shape[:2]),) * 2
            assert (shown == learner.processor.pictures.prepare(prompt.image)).all()


def test_other_tokens_are_refused(stand_in, tmp_path, monkeypatch):
    learner, engine = served("idefics3", tmp_path, monkeypatch)
    before = learner.processor.pictures.expand
    monkeypatch.setattr(learner.processor.pictures, "expand", lambda *size: before(*size)[1:])
    with pytest.raises(ValueError, match=r"vllm: it makes \d+ tokens of a prompt that has \d+ in training"):
        engine.sample(PROMPTS, SEEDS, 2, 1.0)


def test_what_it_says_when_it_does_not_start(stand_in, tmp_path, monkeypatch):
    def fails(*args: Any, **options: Any) -> None:
        raise ValueError("Free memory is less than desired.\nAnd more.")

    _, engine = served("idefics3", tmp_path, monkeypatch)
    stand_in.LLM = fails
    with pytest.raises(ValueError, match=r"^algorithm.engine=vllm: it does not start \(Free memory is .*desired.\)$"):
        engine.sample(PROMPTS, SEEDS, 2, 1.0)


@pytest.mark.parametrize("name", ["ppo", "grpo"])
def test_runs(stand_in, tmp_path, monkeypatch, name):
    """After a supervised phase; its rollouts have the weights of each update."""
    learner, engine = served("idefics3", tmp_path / "hub", monkeypatch)
    changes = {"kl_weight": 0.0} if name == "grpo" else {}
    reinforced_run(
        tmp_path / "run", name, learner=learner, server=engine, num_examples=4, updates=2, max_new_tokens=4, **changes
    )
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    own = [line for line in lines if line["phase"] == name]
    assert [line["step"] for line in own] == [1, 2]
    assert all(line["rollout_gap"] < 1e-3 for line in own)
    [llm] = LLM.made
    assert llm.calls.count("reload_weights") == 2


def test_an_engine_of_another_model_ends_the_run(stand_in, tmp_path, monkeypatch):
    monkeypatch.setattr(LLM, "deaf", True)
    monkeypatch.setattr(policy, "MAX_GAP", 0.01)  # of tiny models all answers are much alike
    learner, engine = served("idefics3", tmp_path / "hub", monkeypatch, sleep=False)
    change(learner)
    with pytest.raises(ValueError, match="it does not compute the same model"):
        reinforced_run(
            tmp_path / "run", "grpo", learner=learner, server=engine, num_examples=0, max_new_tokens=4, kl_weight=0.0
        )


ONE, TWO = TRAINER, dataclasses.replace(TRAINER, devices=2)


@pytest.mark.parametrize(
    ("name", "trainer", "temperature", "installed", "message"),
    [
        ("nano", ONE, 1.0, True, r"it does not run this model \(model_type=llava\)"),
        ("mllama", ONE, 1.0, True, r"it does not run this model \(model_type=mllama\)"),
        ("idefics3", ONE, 0.001, True, "algorithm.temperature=0.001: vLLM samples at 0.01 and more"),
        ("idefics3", TWO, 1.0, True, "one process only, and there would be 2"),
        ("idefics3", ONE, 1.0, False, r'vLLM is not installed; pip install "vlmreason\[vllm\]"'),
        ("idefics3", ONE, 1.0, True, "it needs a GPU"),
    ],
)
def test_what_is_refused(stand_in, tmp_path, monkeypatch, name, trainer, temperature, installed, message):
    if not installed:
        monkeypatch.delitem(sys.modules, "vllm")
        monkeypatch.setattr(vllm_engine.importlib.util, "find_spec", lambda name: None)
    learner = tiny_learner() if name == "nano" else learner_of(name, write_tiny(name, tmp_path))
    with pytest.raises(ValueError, match=message):
        check(learner, settings_of("ppo", temperature=temperature), trainer)


def test_what_is_accepted(stand_in, tmp_path, monkeypatch):
    monkeypatch.setattr(vllm_engine.strategies, "on_gpu", lambda accelerator: True)
    check(learner_of("idefics3", write_tiny("idefics3", tmp_path)), settings_of("ppo"), TRAINER)


@pytest.mark.parametrize("key", ["gpu_memory_utilization", "max_model_len"])
def test_settings_are_checked(key):
    with pytest.raises(ValueError, match=rf"algorithm\.vllm\.{key}=0(\.0)?: "):
        settings_of("ppo", vllm={key: 0})


def test_vllm_itself(tmp_path, monkeypatch):
    """The same numbers as the learner's, before and after its weights change."""
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("vLLM is not installed")
    from vllm.platforms import current_platform

    if not (torch.cuda.is_available() or current_platform.is_cpu()):
        pytest.skip("there is no GPU")
    sizes = families._decoder
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}  # of 32 channels, which its kernels have
    monkeypatch.setattr(families, "_decoder", lambda tokenizer, **more: sizes(tokenizer, **more) | heads)
    write_tiny("idefics3", tmp_path)
    own = {"processor_class": "Idefics3Processor", "image_seq_len": 4}  # which the hub's models have
    (tmp_path / "processor_config.json").write_text(json.dumps(own))
    learner = learner_of("idefics3", tmp_path)
    learner.model.to("cuda" if torch.cuda.is_available() else "cpu")
    settings = VllmSettings(0.2, max_model_len=512, enforce_eager=True, sleep=torch.cuda.is_available())
    engine = VllmEngine(learner, settings)
    for temperature in (1.0, 0.3):
        change(learner)
        torch.manual_seed(0)
        with engine.serving():
            samples = engine.sample(PROMPTS, SEEDS, 8, temperature)
            assert gap(learner, samples, temperature) < 0.05
            change(learner)
            assert gap(learner, samples, temperature) > 0.1
