"""Rollouts by vLLM, in the process and on the GPU of the learner.

vLLM opens the model's own files and then takes the learner's weights before each rollout, adapters merged; between
rollouts it sleeps and leaves its memory to the trainer. It gets the processor's tokens with one placeholder for a
picture, which it expands itself: what it made of a prompt is compared with what is trained on.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from PIL import Image

from vlmreason.models.contract import Prompt, Sample
from vlmreason.models.vlm.adapters import merged_weights
from vlmreason.models.vlm.families import ModelPictures
from vlmreason.models.vlm.learner import Learner
from vlmreason.structure import first_line
from vlmreason.training.engine import strategies
from vlmreason.training.engine.settings import TrainerSettings
from vlmreason.training.reinforced.settings import ReinforcementSettings, VllmSettings

FAMILIES = ("llava", "llava_next", "qwen2_vl", "qwen2_5_vl", "idefics3", "smolvlm")
"""`model_type` of the models that vLLM knows; Llama 3.2 Vision left it with version 0.11."""

MIN_TEMPERATURE = 0.01
"""vLLM raises a lower one to this."""

_NEVER = -100.0  # the lowest bias of a logit that vLLM takes


def check(learner: Any, settings: ReinforcementSettings, trainer: TrainerSettings) -> None:
    """Raise ValueError where vLLM cannot generate the rollouts of a run, before it begins."""
    kind = learner.model.config.model_type
    if kind not in FAMILIES or not isinstance(learner.processor.pictures, ModelPictures):
        raise ValueError(
            f"algorithm.engine=vllm: it does not run this model (model_type={kind}); it runs those of the hub of type "
            f"{', '.join(FAMILIES)}; algorithm.engine=learner"
        )
    if settings.temperature < MIN_TEMPERATURE:
        raise ValueError(f"algorithm.temperature={settings.temperature}: vLLM samples at {MIN_TEMPERATURE} and more")
    devices, nodes = strategies.processes(trainer.devices, trainer.num_nodes, trainer.accelerator)
    if devices * nodes > 1:
        raise ValueError(
            f"algorithm.engine=vllm: one process only, and there would be {devices * nodes}; trainer.devices=1 "
            "trainer.num_nodes=1, or algorithm.engine=learner"
        )
    if importlib.util.find_spec("vllm") is None:
        raise ValueError('algorithm.engine=vllm: vLLM is not installed; pip install "vlmreason[vllm]"')
    if not strategies.on_gpu(trainer.accelerator):
        raise ValueError("algorithm.engine=vllm: it needs a GPU; algorithm.engine=learner")


class VllmEngine:
    """A vLLM engine with a learner's weights; it starts with the first rollout."""

    def __init__(self, learner: Learner, settings: VllmSettings) -> None:
        self.learner, self.settings = learner, settings
        self._llm: Any = None
        self._is_current = False

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Let the engine draw with the weights that the learner has now, for the block. It sleeps afterwards."""
        self._is_current = False
        try:
            yield
        finally:
            if self._llm is not None and self.settings.sleep:
                self._llm.sleep(level=2)

    def sample(
        self, prompts: Sequence[Prompt], seeds: Sequence[int], max_new_tokens: int, temperature: float
    ) -> list[Sample]:
        """Return responses (prompts without prefill), each drawn by its own seed (32 bits of it), as `Learner.sample`.

        Raises ValueError where a prompt leaves no room for `max_new_tokens`, and where vLLM makes other tokens of it.
        """
        if not self._is_current:
            self._take_weights()
        from vllm import SamplingParams

        processor = self.learner.processor
        wanted = [processor.prompt_ids(prompt.text, prompt.image) for prompt in prompts]
        room = self._llm.model_config.max_model_len - max_new_tokens
        if (longest := max(map(len, wanted))) > room:
            raise ValueError(
                f"algorithm.max_new_tokens={max_new_tokens}: a prompt has {longest} tokens, vLLM has room "
                f"for {room}; algorithm.vllm.max_model_len={self.settings.max_model_len}"
            )
        params = [
            SamplingParams(
                temperature=temperature,
                max_tokens=max_new_tokens,
                seed=seed % 2**32,
                stop_token_ids=processor.eos_ids,
                logit_bias={processor.pictures.placeholder_id: _NEVER},
                logprobs=0,  # of the drawn token alone
                detokenize=False,
            )
            for seed in seeds
        ]
        outputs = self._llm.generate([self._request(prompt) for prompt in prompts], params, use_tqdm=False)
        found = []
        for prompt, ids, output in zip(prompts, wanted, outputs, strict=True):
            if list(output.prompt_token_ids) != ids:
                raise ValueError(
                    f"algorithm.engine=vllm: it makes {len(output.prompt_token_ids)} tokens of a prompt that has "
                    f"{len(ids)} in training, or others; algorithm.engine=learner"
                )
            [drawn] = output.outputs
            pairs = zip(drawn.token_ids, drawn.logprobs, strict=True)
            found.append(self.learner.as_sample(prompt, list(drawn.token_ids), [at[i].logprob for i, at in pairs]))
        return found

    def _request(self, prompt: Prompt) -> dict[str, Any]:
        assert not prompt.prefill
        processor = self.learner.processor
        request: dict[str, Any] = {"prompt_token_ids": processor.unexpanded_ids(prompt.text, prompt.image)}
        if prompt.image is not None:
            request["multi_modal_data"] = {"image": Image.fromarray(processor.pictures.prepare(prompt.image))}
        return request

    def _take_weights(self) -> None:
        """Give vLLM the learner's weights, under the names and in the types in which it computes now."""
        slept = self._llm is not None and self.settings.sleep
        torch.cuda.empty_cache()  # what the trainer has freed is PyTorch's until then
        if self._llm is None:
            self._llm = self._start()
        if slept:
            self._llm.wake_up(tags=["weights"])
        self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": merged_weights(self.learner.model)})
        if slept:
            self._llm.wake_up(tags=["kv_cache"])
        self._llm.reset_prefix_cache()  # keys and values, and features of pictures, are of the weights before
        self._llm.llm_engine.reset_encoder_cache()
        self._is_current = True

    def _start(self) -> Any:
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # in this process, where the learner's weights are
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "INFO" if os.environ.get("VLMREASON_DEBUG") == "1" else "ERROR")
        from vllm import LLM

        model, own = self.learner.model, self.settings
        source: Any = self.learner.source or {}
        pictures: Any = self.learner.processor.pictures
        try:
            with torch.random.fork_rng(devices=[]):  # it seeds PyTorch's random numbers
                return LLM(
                    model=model.name_or_path,
                    revision=source.get("commit"),
                    tokenizer_revision=source.get("commit"),
                    dtype=str(model.dtype).removeprefix("torch."),
                    generation_config="vllm",  # not the hub's settings of sampling
                    logprobs_mode="processed_logprobs",  # at the temperature of sampling
                    limit_mm_per_prompt={"image": 1, "video": 0},
                    mm_processor_kwargs={"size": dict(pictures.processor.size)},
                    gpu_memory_utilization=own.gpu_memory_utilization,
                    max_model_len=-1 if own.max_model_len is None else own.max_model_len,  # -1: as many as fit
                    enforce_eager=own.enforce_eager,
                    enable_sleep_mode=own.sleep,
                )
        except ValueError as error:
            raise ValueError(f"algorithm.engine=vllm: it does not start ({first_line(error)})") from error
