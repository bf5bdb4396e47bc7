"""What training and evaluation need of a model: logits at the response, generation, parts, saving."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import DynamicCache

from vlmreason.models.contract import PARTS, AdapterSettings, Choice, Generation, Prompt, Sample, Source, TokenScores
from vlmreason.models.vlm import adapters
from vlmreason.models.vlm.generation import AnswersAt, Drawer, Steering, random_numbers, write
from vlmreason.models.vlm.processor import IGNORED, Encoded, Processor
from vlmreason.segments import ANSWER, SEGMENT_IDS

torch.set_flush_denormal(True)
# Sharp attention makes many numbers below 1e-38, for which a processor takes ten times as long: they count as zero.
# Said here, before the first operation of several threads: those that begin later go by it.

LLAVA = {
    "vision_tower": ("model.vision_tower.",),
    "projector": ("model.multi_modal_projector.",),
    "language_model": ("model.language_model.", "lm_head."),
}
"""Parameter-name prefixes of each part in LLaVA's layout."""


MAX_LOGITS = 2**27
"""Logits that a loss holds at once (half a gigabyte in float32)."""

_NEVER = -1e30  # a logit of no probability, finite: its share of an entropy is 0
_ROWS_STEP = 256  # the projection is computed for a multiple of this many rows: few shapes, kept kernels
_NO_INPUTS = ("labels", "segments", "attention_mask")
"""What of a batch the model does not get.

Padding lies behind a dialogue, where causal attention does not look; without a mask it has its fastest kernels.
"""


class Learner:
    """A Hugging Face image-text-to-text model with its processor; `prefixes`: of the parameter names of each part."""

    def __init__(
        self,
        model: Any,
        processor: Processor,
        prefixes: Mapping[str, tuple[str, ...]] = LLAVA,
        source: Source | None = None,
    ) -> None:
        """`source`: where weights come from, if from a hub."""
        self.model: Any = model
        model.token_losses = types.MethodType(_token_losses, model)  # methods: sharded models must know what is run
        model.token_scores = types.MethodType(_token_scores, model)
        model.continuations = types.MethodType(_continuations, model)
        model.following_scores = types.MethodType(_following_scores, model)
        model.last_context = types.MethodType(_last_context, model)
        self.processor, self.prefixes, self.source = processor, prefixes, source
        self.adapter = AdapterSettings()

    @property
    def packable(self) -> bool:
        """Tell whether several dialogues may share a row."""
        found: bool = self.processor.pictures.packable
        return found

    @property
    def shares_prompts(self) -> bool:
        """Tell whether a prompt may be computed once for several responses that are trained on."""
        recomputes = any(getattr(module, "gradient_checkpointing", False) for module in self.model.modules())
        return self.processor.pictures.sequential and not recomputes  # what recomputes keeps no keys and values

    @property
    def num_positions(self) -> int | None:
        """Return most tokens of a prompt with its response; None: the model says no bound."""
        found: int | None = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        return found

    def target_logits(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits (N, V), token ids (N) and segment numbers (N) of the N response tokens of a batch.

        The vocabulary projection is computed for the response's positions only.
        """
        hidden_ND, targets_N, segments_N = _at_targets(self.model, batch)
        return _project(self.model.lm_head, hidden_ND), targets_N, segments_N

    def token_losses(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return cross entropy (N) in float32 and segment number (N) of each response token of a batch.

        Never holds more than about MAX_LOGITS logits: of a longer batch they are computed in pieces, and again
        for the gradient.
        """
        losses_N, segments_N = self.model.token_losses(batch)
        return losses_N, segments_N

    def losses_and_divergences(self, batch: Mapping[str, Tensor], start: Learner) -> tuple[Tensor, Tensor, Tensor]:
        """Return what `token_losses` gives and, between the two, the divergence (N) of each token's distribution.

        It is KL(this model || start) over the whole vocabulary, in nats; nothing is learned by `start`.
        """
        with torch.no_grad():
            start_ND = _at_targets(start.model, batch)[0]
        hidden_ND, targets_N, segments_N = _at_targets(self.model, batch)
        pieces = _in_pieces(
            _loss_and_divergence, self.model.lm_head, (hidden_ND, targets_N, start_ND), start.model.lm_head
        )
        losses_N, divergences_N = map(torch.cat, zip(*pieces, strict=True))
        return losses_N, divergences_N, segments_N

    def token_scores(self, batch: Mapping[str, Tensor], temperature: float = 1.0) -> TokenScores:
        """Say how likely the response tokens of a batch are when it is sampled at a temperature (`sample`).

        Never holds more than about MAX_LOGITS logits, as `token_losses`.
        """
        score = self.model.following_scores if "following_ids" in batch else self.model.token_scores
        found: TokenScores = score(batch, temperature, self.processor.pictures.placeholder_id)
        return found

    def context(self, prompts: Sequence[Prompt]) -> Tensor:
        """Return last hidden state (B, D) of each prompt's last token."""
        batch = {k: v.to(self.model.device) for k, v in self.processor.collate_prompts(prompts).items()}
        context_BD: Tensor = self.model.last_context(batch)
        return context_BD

    @torch.inference_mode()
    def generate(
        self, prompts: Sequence[Prompt], max_new_tokens: int, forbidden_starts: Sequence[str] = ()
    ) -> list[Generation]:
        """Return greedy responses to a batch of prompts, with a KV cache.

        `forbidden_starts`: the first tokens of these texts may not begin a response. Raises ValueError where the
        longest prompt leaves no room for `max_new_tokens` in the model's context.
        """
        placed = [self._answer_places(prompts)] if any(prompt.pattern for prompt in prompts) else []
        forbidden = [self.processor.first_token(text) for text in forbidden_starts]
        rows = self._generate(prompts, max_new_tokens, placed, {"begin_suppress_tokens": forbidden or None})
        return [self._generation(prompt, row) for prompt, row in zip(prompts, rows.tolist(), strict=True)]

    def _answer_places(self, prompts: Sequence[Prompt]) -> AnswersAt:
        """Where the answers of responses begin that are written to patterns."""
        place = self.processor.answer_place
        places = [(-1, 0) if one.pattern is None else place(one.pattern, one.prefill) for one in prompts]
        return AnswersAt(torch.tensor(places, device=self.model.device), self.processor.eos_ids)

    @torch.inference_mode()
    def sample(
        self, prompts: Sequence[Prompt], seeds: Sequence[int], max_new_tokens: int, temperature: float
    ) -> list[Sample]:
        """Return responses drawn at random, each by its own seed, whatever else is in the batch. Raises ValueError as
        `generate`."""
        drawer = Drawer(random_numbers(seeds, max_new_tokens).to(self.model.device), temperature)
        ids_BL = self._generate(prompts, max_new_tokens, [drawer])
        drawn = zip(prompts, ids_BL.tolist(), drawer.logprobs(), strict=True)
        return [self.as_sample(prompt, ids, logprobs) for prompt, ids, logprobs in drawn]

    @torch.inference_mode()
    def choose(self, prompts: Sequence[Prompt], options: Sequence[Sequence[str]]) -> list[list[Choice]]:
        """Say how likely each option is as the whole response to its prompt, its end included (`token_scores` of it).

        One pass over the prompts and one over all options, where the keys and values of a prompt serve what follows
        it; else each option with its prompt is a row of one batch. Raises ValueError where a response has been begun,
        and where prompt and option are longer than the model's context.
        """
        if any(prompt.prefill for prompt in prompts):
            raise ValueError("evaluation.prefill: an option is a whole response, nothing can stand before it")
        processor, model = self.processor, self.model
        before = [processor.prompt_ids(prompt.text, prompt.image) for prompt in prompts]
        given = [(row, processor.response_ids(option)) for row, some in enumerate(options) for option in some]
        if not given:
            return [[] for _ in prompts]
        num, context = max(len(before[row]) + len(ids) for row, ids in given), self.num_positions
        if context is not None and num > context:
            raise ValueError(
                f"evaluation.how=choose: a prompt and its longest option have {num} tokens, the model takes {context}"
            )
        was_training = model.training
        model.eval()
        score = self._continue if processor.pictures.sequential else self._apart
        sums_R = score(prompts, before, given)
        model.train(was_training)
        found: list[list[Choice]] = [[] for _ in prompts]
        for (row, ids), logprob in zip(given, sums_R.tolist(), strict=True):
            found[row].append(Choice(logprob, len(ids)))
        return found

    def _continue(
        self, prompts: Sequence[Prompt], before: Sequence[list[int]], given: Sequence[tuple[int, list[int]]]
    ) -> Tensor:
        """Log-probabilities (R) of responses, each to the prompt of its number; `before`: tokens of the prompts."""
        model, pad = self.model, self.processor.pad_id
        batch = {name: value.to(model.device) for name, value in self.processor.collate_prompts(prompts).items()}
        longest = max(len(ids) for _, ids in given)
        ids_RM = torch.tensor([ids + [pad] * (longest - len(ids)) for _, ids in given], device=model.device)
        mask_RM = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for _, ids in given], device=model.device)
        rows_R = torch.tensor([row for row, _ in given], device=model.device)
        sums_R: Tensor = model.continuations(batch, rows_R, ids_RM, mask_RM, self.processor.pictures.placeholder_id)
        return sums_R

    def _apart(
        self, prompts: Sequence[Prompt], before: Sequence[list[int]], given: Sequence[tuple[int, list[int]]]
    ) -> Tensor:
        """As `_continue`, each response in a row with its prompt."""
        encoded = [
            Encoded(before[i] + ids, [0] * len(before[i]) + [SEGMENT_IDS[ANSWER]] * len(ids), prompts[i].image)
            for i, ids in given
        ]
        batch = {name: value.to(self.model.device) for name, value in self.processor.collate(encoded).items()}
        scores = self.token_scores(batch)
        return _sums(scores.logprobs_N, scores.rows_N, len(given))

    @torch.inference_mode()
    def embed(self, prompts: Sequence[Prompt]) -> Tensor:
        """Return vectors (B, D) of prompts, in float32: the last hidden state of each one's last token."""
        was_training = self.model.training
        self.model.eval()
        found_BD = self.context(prompts).float()
        self.model.train(was_training)
        return found_BD

    def as_sample(self, prompt: Prompt, ids: list[int], logprobs: list[float]) -> Sample:
        """Return tokens that were drawn after a prompt, up to the end where there is one, as a response."""
        one = self._generation(prompt, ids)
        return Sample(one.text, one.num_tokens, one.finished, ids[: one.num_tokens], logprobs[: one.num_tokens])

    def _generate(
        self, prompts: Sequence[Prompt], max_new_tokens: int, steering: Sequence[Steering],
        first: Mapping[str, Any] | None = None,
    ) -> Tensor:  # fmt: skip
        """Generated tokens (B, L), padded behind their ends; `first`: settings of the first token's generation."""
        processor, model = self.processor, self.model
        batch = {k: v.to(model.device) for k, v in processor.collate_prompts(prompts).items()}
        start = batch["input_ids"].shape[1]
        context = self.num_positions
        if context is not None and start + max_new_tokens > context:
            raise ValueError(
                f"max_new_tokens={max_new_tokens}: a prompt of {start} tokens leaves {context - start} of the "
                f"model's {context}"
            )
        was_training = model.training
        model.eval()
        ids_BL = write(
            model, batch, max_new_tokens, processor.eos_ids, processor.pad_id, steering,
            shrinks=processor.pictures.sequential, first=first,
            suppress_tokens=[processor.pictures.placeholder_id],
        )  # fmt: skip
        model.train(was_training)
        return ids_BL

    def _generation(self, prompt: Prompt, ids: list[int]) -> Generation:
        end = next((at for at, token in enumerate(ids) if token in self.processor.eos_ids), None)
        finished = end is not None
        ids = ids[:end]
        return Generation(self.processor.decode(ids, prompt.prefill), len(ids) + finished, finished)

    def count_tokens(self, text: str) -> int:
        return self.processor.count_tokens(text)

    def part_parameters(self, part: str) -> Iterator[tuple[str, nn.Parameter]]:
        """Return named parameters of a part; every parameter belongs to exactly one."""
        if part not in PARTS:
            raise ValueError(f"train={part!r}: the parts of a model are {', '.join(PARTS)}")
        for name, parameter in self.model.named_parameters():
            if name.startswith(self.prefixes[part]):
                yield name, parameter

    def trained_parameters(self, train: Literal["all"] | Sequence[str]) -> list[tuple[str, nn.Parameter]]:
        """Return named parameters that train in a phase with this `train`: those of its parts that the adapter lets
        train.

        Raises ValueError where nothing would train.
        """
        parts = PARTS if train == "all" else train
        found = [named for part in parts for named in self.part_parameters(part) if self.adapter.trains(part, named[0])]
        if not found:
            raise ValueError(f"adapter.frozen={list(self.adapter.frozen)}: nothing trains in a phase of {list(parts)}")
        return found

    def adapt(self, settings: AdapterSettings, seed: int, trained: Path | None = None) -> None:
        """Freeze parts and add low-rank adapters, their weights from `trained` where it is given. Raises ValueError."""
        self.adapter = settings
        whole = self.source if isinstance(self.source, Mapping) else None
        adapters.add_adapter(self.model, self.prefixes, settings, seed, whole)
        if settings.name != "none" and trained is not None:
            adapters.load_adapter(self.model, self.prefixes, settings, trained)

    def merge(self) -> None:
        """Add the low-rank adapters to the weights: the model is then saved whole."""
        adapters.merge_adapter(self.model)
        self.adapter = AdapterSettings()

    def save(self, directory: Path) -> None:
        """Write model and processor in the Hugging Face layout; of a model with adapters what trains, in PEFT's."""
        if self.adapter.name != "none":
            adapters.save_adapter(self.model, self.prefixes, self.adapter, directory)
        else:
            self.model.save_pretrained(directory, safe_serialization=True)
        self.processor.save(directory)


def _token_losses(model: Any, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    hidden_ND, targets_N, segments_N = _at_targets(model, batch)
    return torch.cat(_in_pieces(_cross_entropy, model.lm_head, (hidden_ND, targets_N))), segments_N


def _in_pieces(compute: Callable[..., Any], head: Any, of_tokens: Sequence[Tensor], *more: Any) -> list[Any]:
    """`compute(head, *of_tokens, *more)` of pieces of these (N, ...) that hold about MAX_LOGITS logits.

    Where there are several, they are computed again for the gradient.
    """
    num_rows = max(_ROWS_STEP, MAX_LOGITS // head.weight.shape[0] // _ROWS_STEP * _ROWS_STEP)
    parts = zip(*(torch.split(values, num_rows) for values in of_tokens), strict=True)
    if len(of_tokens[0]) <= num_rows:
        return [compute(head, *part, *more) for part in parts]
    return [checkpoint(compute, head, *part, *more, use_reentrant=False) for part in parts]


def _token_scores(model: Any, batch: Mapping[str, Tensor], temperature: float, never: int) -> TokenScores:
    hidden_BLD = _hidden(model, batch)
    targets_BL = batch["labels"][:, 1:]
    wanted_BL = targets_BL != IGNORED
    rows_N, at_N = wanted_BL.nonzero(as_tuple=True)
    at_targets = hidden_BLD[rows_N, at_N], targets_BL[rows_N, at_N]
    scores = _in_pieces(_log_probabilities, model.lm_head, at_targets, temperature, never)
    first_B = wanted_BL.int().argmax(dim=1)
    return TokenScores(
        logprobs_N=torch.cat([logprobs for logprobs, _ in scores]),
        entropies_N=torch.cat([entropies for _, entropies in scores]),
        rows_N=rows_N,
        segments_N=batch["segments"][:, 1:][rows_N, at_N],
        context_BD=hidden_BLD[torch.arange(len(first_B), device=first_B.device), first_B],
    )


def _following_scores(model: Any, batch: Mapping[str, Tensor], temperature: float, never: int) -> TokenScores:
    """As `_token_scores`, of a batch whose prompts are there once (`Processor.collate_following`)."""
    asked = {name: value for name, value in batch.items() if not name.startswith("following_")}
    rows_R, ids_RM, segments_RM = (batch[f"following_{name}"] for name in ("rows", "ids", "segments"))
    mask_PL, wanted_RM, cache = asked["attention_mask"], segments_RM > 0, DynamicCache()
    at_PL = (mask_PL.cumsum(dim=1) - 1).clamp(min=0)
    context_RD = model.model(**asked, position_ids=at_PL, past_key_values=cache, use_cache=True)[0][rows_R, -1]
    cache.batch_select_indices(rows_R)
    at_RM = mask_PL.sum(dim=1)[rows_R, None] + torch.arange(ids_RM.shape[1], device=ids_RM.device)
    hidden_RMD = model.model(
        input_ids=ids_RM, attention_mask=torch.cat([mask_PL[rows_R], wanted_RM.long()], dim=1), position_ids=at_RM,
        past_key_values=cache, use_cache=True,
    )[0]  # fmt: skip
    before_RMD = torch.cat([context_RD[:, None], hidden_RMD[:, :-1]], dim=1)
    at_targets = before_RMD[wanted_RM], ids_RM[wanted_RM]
    scores = _in_pieces(_log_probabilities, model.lm_head, at_targets, temperature, never)
    return TokenScores(
        logprobs_N=torch.cat([logprobs for logprobs, _ in scores]),
        entropies_N=torch.cat([entropies for _, entropies in scores]),
        rows_N=wanted_RM.nonzero()[:, 0],
        segments_N=segments_RM[wanted_RM],
        context_BD=context_RD,
    )


def _continuations(
    model: Any, batch: Mapping[str, Tensor], rows_R: Tensor, ids_RM: Tensor, mask_RM: Tensor, never: int
) -> Tensor:
    """Log-probabilities (R) of right-padded responses; `rows_R`: of the prompts, left-padded, that they follow."""
    mask_BL = batch["attention_mask"]
    cache = DynamicCache()
    at_BL = (mask_BL.cumsum(dim=1) - 1).clamp(min=0)
    asked_BLD = model.model(**batch, position_ids=at_BL, past_key_values=cache, use_cache=True)[0]
    cache.batch_select_indices(rows_R)
    at_RM = mask_BL.sum(dim=1)[rows_R, None] + torch.arange(ids_RM.shape[1], device=ids_RM.device)
    hidden_RMD = model.model(
        input_ids=ids_RM, attention_mask=torch.cat([mask_BL[rows_R], mask_RM], dim=1), position_ids=at_RM,
        past_key_values=cache, use_cache=True,
    )[0]  # fmt: skip
    before_RMD = torch.cat([asked_BLD[rows_R, -1:], hidden_RMD[:, :-1]], dim=1)
    wanted_RM = mask_RM.bool()
    at_targets = before_RMD[wanted_RM], ids_RM[wanted_RM]
    scores = _in_pieces(_log_probabilities, model.lm_head, at_targets, 1.0, never)
    logprobs_N = torch.cat([logprobs for logprobs, _ in scores])
    return _sums(logprobs_N, wanted_RM.nonzero()[:, 0], len(rows_R))


def _sums(values_N: Tensor, rows_N: Tensor, num: int) -> Tensor:
    """Sums of values by row, (num) in float64."""
    rows_RN = torch.arange(num, device=rows_N.device)[:, None] == rows_N
    return rows_RN.double() @ values_N.double()


def _last_context(model: Any, batch: Mapping[str, Tensor]) -> Tensor:
    hidden_BLD: Tensor = model.model(**batch, use_cache=False)[0]
    return hidden_BLD[:, -1]


def _log_probabilities(
    head: nn.Module, hidden_ND: Tensor, targets_N: Tensor, temperature: float, never: int
) -> tuple[Tensor, Tensor]:
    """Of the targets and around them, (N) each; the token `never` cannot be drawn."""
    logits_NV = _project(head, hidden_ND).float() / temperature
    if never < logits_NV.shape[1]:  # some models have no logit for it
        logits_NV[:, never] = _NEVER
    logs_NV = F.log_softmax(logits_NV, dim=-1)
    entropies_N = -(logs_NV.detach().exp() * logs_NV.detach()).sum(dim=-1)
    return logs_NV.gather(1, targets_N[:, None])[:, 0], entropies_N


def _cross_entropy(head: nn.Module, hidden_ND: Tensor, targets_N: Tensor) -> Tensor:
    return F.cross_entropy(_project(head, hidden_ND).float(), targets_N, reduction="none")


def _loss_and_divergence(
    head: nn.Module, hidden_ND: Tensor, targets_N: Tensor, start_ND: Tensor, start_head: nn.Module
) -> tuple[Tensor, Tensor]:
    """Cross entropy of the targets and KL(model || start), (N) each."""
    logs_NV = F.log_softmax(_project(head, hidden_ND).float(), dim=-1)
    with torch.no_grad():
        start_NV = F.log_softmax(_project(start_head, start_ND).float(), dim=-1)
    losses_N = -logs_NV.gather(1, targets_N[:, None])[:, 0]
    return losses_N, (logs_NV.exp() * (logs_NV - start_NV)).sum(dim=-1)


def _hidden(model: Any, batch: Mapping[str, Tensor]) -> Tensor:
    """Last hidden states (B, L, D)."""
    hidden_BLD: Tensor = model.model(**{k: v for k, v in batch.items() if k not in _NO_INPUTS}, use_cache=False)[0]
    return hidden_BLD


def _at_targets(model: Any, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Last hidden states (N, D), token ids (N) and segment numbers (N) of the response tokens."""
    hidden_BLD = _hidden(model, batch)
    targets_BL = batch["labels"][:, 1:]
    wanted_BL = targets_BL != IGNORED
    return hidden_BLD[:, :-1][wanted_BL], targets_BL[wanted_BL], batch["segments"][:, 1:][wanted_BL]


def _project(head: nn.Module, hidden_ND: Tensor) -> Tensor:
    num = len(hidden_ND)
    logits_NV: Tensor = head(F.pad(hidden_ND, (0, 0, 0, -num % _ROWS_STEP)))[:num]
    return logits_NV
