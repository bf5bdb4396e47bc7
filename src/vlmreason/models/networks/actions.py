"""A policy without language over what a frozen model sees: one of a few actions, chosen from features.

The baseline "CNN-based RL" of appendix C.2: features of the model's own vision tower and of the prompt's text, two
layers, one more onto the actions. It has what training and evaluation ask of a model (models/contract.py). Responses
have one token, the number of the action; their texts are the task's options, in an environment JSON objects.

A picture's features are those of its patches, in their places (pooled to `grid` x `grid` where there are more): their
mean would lose which number stands where. A text's are the frozen embeddings of its tokens, summed as they are and with
waves of their positions. Both are taken relative to one prompt of the environment: what never changes is zero.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vlmreason.dialogue.build import Dialogue
from vlmreason.files import write_json_atomic
from vlmreason.models.contract import AdapterSettings, Choice, Example, Generation, Prompt, Sample, TokenScores
from vlmreason.models.networks.features import ActorSettings, FrozenFeatures
from vlmreason.models.networks.one_answer import NoLanguageModel, OneAnswer, kept_weights, save_weights
from vlmreason.models.vlm.generation import draw, random_numbers
from vlmreason.models.vlm.learner import Learner
from vlmreason.models.vlm.saved import read_config
from vlmreason.segments import ANSWER, SEGMENT_IDS
from vlmreason.streams import stream
from vlmreason.structure import check_positive, first_line, structure

FILE, WEIGHTS = "policy.json", "policy.safetensors"
"""What a run keeps of the policy; the frozen model is that of the run's configuration."""


@dataclass(frozen=True)
class Cnn:
    """conf/model/cnn.yaml; `base`: the settings of the frozen model."""

    name: str
    width: int
    grid: int
    base: Any

    def __post_init__(self) -> None:
        check_positive(self, "width", "grid", where="model.")

    def untrained(self, example: Example) -> ActionLearner:
        """Return a new policy over the options of an example. Raises ValueError where the base has no features."""
        own = ActorSettings(example.options, self.width, self.grid, pictures=example.prompt.image is not None)
        return new_actor(self._base(), own, example.prompt, example.seed)

    def load(self, trained: Path | None = None) -> ActionLearner:
        """Return a policy that a run has kept. Raises ValueError."""
        if trained is None:
            raise ValueError(f"model={self.name}: a new one is made for the options of a task, and there is none here")
        return load_actor(self._base(), trained)

    def _base(self) -> Learner:
        base = self.base.load()
        if base.model is None:
            base.trained_parameters("all")  # raises: there is nothing to see with
        found: Learner = base
        return found


@dataclass(frozen=True)
class Move(OneAnswer):
    """One turn as the policy sees it."""

    features_F: Tensor
    action: int


class PolicyNetwork(nn.Module):
    """Two layers on the features and one onto the actions; float32 whatever surrounds it."""

    lm_head = None

    def __init__(self, num_features: int, num_actions: int, width: int, seed: int) -> None:
        super().__init__()
        self.config = NoLanguageModel(width)
        self.body = nn.Sequential(nn.Linear(num_features, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.head = nn.Linear(width, num_actions)
        self.reference_F: Tensor
        self.register_buffer("reference_F", torch.zeros(num_features))
        generator = torch.Generator().manual_seed(stream(seed, "policy").getrandbits(63))
        with torch.no_grad():
            for layer, gain in ((self.body[0], 1.0), (self.body[2], 1.0), (self.head, 0.01)):
                assert isinstance(layer, nn.Linear)
                layer.weight.normal_(std=gain * layer.in_features**-0.5, generator=generator)
                layer.bias.zero_()

    @property
    def device(self) -> torch.device:
        return self.head.weight.device

    def forward(self, features_BF: Tensor) -> tuple[Tensor, Tensor]:
        """Return last hidden states (B, width) and logits of the actions (B, A). Raises ValueError for features of
        another model."""
        if features_BF.shape[1] != len(self.reference_F):
            raise ValueError(
                f"model.base: it has {features_BF.shape[1]} features, and the policy was made for "
                f"{len(self.reference_F)}"
            )
        with torch.autocast(self.device.type, enabled=False):
            hidden_BD: Tensor = self.body(features_BF.to(self.device) - self.reference_F)
            logits_BA: Tensor = self.head(hidden_BD)
        return hidden_BD, logits_BA


class ActionLearner:
    """The policy as a model that trains and answers; `model` is the network, what it sees with is frozen."""

    prefixes: Mapping[str, tuple[str, ...]] = {"vision_tower": (), "projector": ("",), "language_model": ()}
    num_positions: int | None = None

    def __init__(self, features: FrozenFeatures, settings: ActorSettings, model: PolicyNetwork) -> None:
        self.features, self.settings, self.model = features, settings, model
        self.source = features.base.source
        self.processor = _Moves(features, settings.options)

    packable = False

    def adapt(self, settings: AdapterSettings, seed: int, trained: Path | None = None) -> None:
        """Refuse what cannot be done here: nothing can be adapted. Raises ValueError."""
        if settings.name != "none" or settings.frozen:
            raise ValueError("adapter: has no effect on a network, which is trained whole; adapter=none")

    def trained_parameters(self, train: object = "all") -> list[tuple[str, nn.Parameter]]:
        return list(self.model.named_parameters())

    @torch.no_grad()
    def generate(
        self, prompts: Sequence[Prompt], max_new_tokens: int = 1, forbidden_starts: Sequence[str] = ()
    ) -> list[Generation]:
        """Return the likeliest action of each prompt. Raises ValueError where a beginning is given or forbidden."""
        if forbidden_starts or any(prompt.prefill for prompt in prompts):
            raise ValueError(
                "evaluation.conversion and evaluation.prefill: a policy that chooses actions writes no text; "
                "evaluation.conversion=free evaluation.prefill=''"
            )
        if any(prompt.pattern for prompt in prompts):
            raise ValueError("evaluation.length=given: a policy that chooses actions writes no thought")
        _, logits_BA = self.model(self.features(prompts))
        return [Generation(self._write(number), 1, True) for number in logits_BA.argmax(dim=1).tolist()]

    @torch.no_grad()
    def choose(self, prompts: Sequence[Prompt], options: Sequence[Sequence[str]]) -> list[list[Choice]]:
        """Say how likely options are among all that the policy knows. Raises ValueError for one that it does not."""
        if not prompts:
            return []
        logs_BA = F.log_softmax(self.model(self.features(prompts))[1], dim=1).tolist()
        number = self.processor.number
        return [[Choice(row[number(text)], 1) for text in some] for row, some in zip(logs_BA, options, strict=True)]

    @torch.no_grad()
    def embed(self, prompts: Sequence[Prompt]) -> Tensor:
        """Return vectors (B, D) of prompts: the policy's last layer before its actions."""
        return self.context(prompts)

    def token_losses(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return cross entropy (B) and segment number (B) of the answer of each dialogue of a batch."""
        _, logits_BA = self.model(batch["features_BF"])
        losses_B = F.cross_entropy(logits_BA, batch["actions_B"], reduction="none")
        return losses_B, batch["segments"][:, 0]

    @torch.no_grad()
    def sample(
        self, prompts: Sequence[Prompt], seeds: Sequence[int], max_new_tokens: int, temperature: float
    ) -> list[Sample]:
        """Return actions drawn at random, each by its own seed."""
        _, logits_BA = self.model(self.features(prompts))
        drawn = draw(logits_BA, random_numbers(seeds, 1)[:, 0].to(logits_BA.device), temperature)
        pairs = zip(*(values.tolist() for values in drawn), strict=True)
        return [Sample(self._write(number), 1, True, [number], [logprob]) for number, logprob in pairs]

    def token_scores(self, batch: Mapping[str, Tensor], temperature: float = 1.0) -> TokenScores:
        """Say how likely the actions of a batch of `Move`s are."""
        hidden_BD, logits_BA = self.model(batch["features_BF"])
        logs_BA = F.log_softmax(logits_BA / temperature, dim=1)
        rows_B = torch.arange(len(logs_BA), device=logs_BA.device)
        return TokenScores(
            logprobs_N=logs_BA.gather(1, batch["actions_B"][:, None])[:, 0],
            entropies_N=-(logs_BA.detach().exp() * logs_BA.detach()).sum(dim=1),
            rows_N=rows_B,
            segments_N=torch.full_like(rows_B, SEGMENT_IDS[ANSWER]),
            context_BD=hidden_BD,
        )

    def context(self, prompts: Sequence[Prompt]) -> Tensor:
        """Return last hidden state (B, D) of each prompt."""
        hidden_BD: Tensor = self.model(self.features(prompts))[0]
        return hidden_BD

    def count_tokens(self, text: str) -> int:
        """Return an action is one token."""
        return int(bool(text))

    def save(self, directory: Path) -> None:
        """Write the policy; the frozen model is not copied."""
        directory.mkdir(parents=True, exist_ok=True)
        write_json_atomic(directory / FILE, vars(self.settings) | {"options": list(self.settings.options)})
        save_weights(self.model, directory / WEIGHTS)

    def _write(self, number: int) -> str:
        return self.settings.options[number]


def new_actor(base: Learner, settings: ActorSettings, reference: Prompt, seed: int) -> ActionLearner:
    """Return an untrained policy; `reference`: any prompt of the environment. Raises ValueError."""
    features = FrozenFeatures(base, settings)
    [found_F] = features([reference])
    model = PolicyNetwork(len(found_F), len(settings.options), settings.width, seed)
    model.reference_F.copy_(found_F)
    return ActionLearner(features, settings, model)


def load_actor(base: Learner, directory: Path) -> ActionLearner:
    """Return a saved policy on its frozen model. Raises ValueError where a file is missing or damaged."""
    path, weights = directory / FILE, directory / WEIGHTS
    try:
        data = read_config(path)
        if "key" in data:  # as it was written when only environments had options
            key, actions = data.pop("key"), data.pop("actions")
            data["options"] = [json.dumps({key: action}) for action in actions]
        settings = structure(ActorSettings, data, str(path))
    except (TypeError, KeyError) as error:
        raise ValueError(f"{path}: damaged ({first_line(error)})") from error
    with kept_weights(weights, FILE) as tensors:
        held = len(tensors["body.0.bias"]), len(tensors["head.bias"])
        if held != (settings.width, len(settings.options)):
            raise KeyError(f"width and number of options are {held} there")
        model = PolicyNetwork(len(tensors["reference_F"]), len(settings.options), settings.width, 0)
        model.load_state_dict(tensors)
    return ActionLearner(FrozenFeatures(base, settings), settings, model)


class _Moves:
    """What a Processor is for dialogues."""

    def __init__(self, features: FrozenFeatures, options: Sequence[str]) -> None:
        self.features = features
        self._numbers = {option: number for number, option in enumerate(options)}

    def number(self, option: str) -> int:
        """Return number of an option. Raises ValueError for one that the network does not have."""
        if option not in self._numbers:
            known = ", ".join(map(repr, self._numbers))
            raise ValueError(f"{option!r}: this network knows the options {known}, and no other answer")
        return self._numbers[option]

    def encode(self, dialogue: Dialogue) -> Move:
        """Return a dialogue whose response is one of the options. Raises ValueError."""
        return Move(self.features([Prompt(dialogue.prompt, dialogue.image)])[0], self.number(dialogue.response.text))

    def encode_generated(self, prompt: Prompt, ids: Sequence[int], split: Callable[[str], Any] | None) -> Move:
        [action] = ids
        return Move(self.features([prompt])[0], action)

    def collate(self, examples: Sequence[Move], multiple: int = 1) -> dict[str, Tensor]:
        return {
            "features_BF": torch.stack([example.features_F for example in examples]),
            "actions_B": torch.tensor([example.action for example in examples]),
            "segments": torch.tensor([example.segments for example in examples]),
        }
