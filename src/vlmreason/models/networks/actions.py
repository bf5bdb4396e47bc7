"""A policy without language over what a frozen model sees: one of a few actions, chosen from features.

The baseline "CNN-based RL" of appendix C.2: features of the model's own vision tower and of the prompt's text, two
layers, one more onto the actions. It has what training by reinforcement and evaluation ask of a Learner; its responses
have one token, the number of the action, and its text is the JSON object that environments read.

A picture's features are those of its patches, in their places (pooled to `grid` x `grid` where there are more): their
mean would lose which number stands where. A text's are the frozen embeddings of its tokens, summed as they are and with
waves of their positions. Both are taken relative to one prompt of the environment: what never changes is zero.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from vlmreason.files import write_json_atomic
from vlmreason.models.contract import Generation, Prompt, Sample, TokenScores
from vlmreason.models.networks.features import ActorSettings, FrozenFeatures
from vlmreason.models.vlm.learner import Learner, draw, random_numbers
from vlmreason.segments import ANSWER, SEGMENT_IDS
from vlmreason.streams import stream
from vlmreason.structure import first_line, structure

FILE, WEIGHTS = "policy.json", "policy.safetensors"
"""What a run keeps of the policy; the frozen model is that of the run's configuration."""


@dataclass(frozen=True)
class Move:
    """One turn as the policy sees it."""

    features_F: Tensor
    action: int

    def __len__(self) -> int:
        return 1


class PolicyNetwork(nn.Module):
    """Two layers on the features and one onto the actions; float32 whatever surrounds it."""

    lm_head = None

    def __init__(self, num_features: int, num_actions: int, width: int, seed: int) -> None:
        super().__init__()
        self.config = _Config(width)
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
        """Last hidden states (B, width) and logits of the actions (B, A)."""
        with torch.autocast(self.device.type, enabled=False):
            hidden_BD: Tensor = self.body(features_BF.to(self.device) - self.reference_F)
            logits_BA: Tensor = self.head(hidden_BD)
        return hidden_BD, logits_BA


class ActionLearner:
    """As much of a Learner as reinforcement and evaluation need; `model` is the policy, what it sees with is frozen."""

    prefixes: Mapping[str, tuple[str, ...]] = {"vision_tower": (), "projector": ("",), "language_model": ()}
    num_positions: int | None = None

    def __init__(self, features: FrozenFeatures, settings: ActorSettings, model: PolicyNetwork) -> None:
        self.features, self.settings, self.model = features, settings, model
        self.source = features.base.source
        self.processor = _Moves(features)

    def trained_parameters(self, train: object = "all") -> list[tuple[str, nn.Parameter]]:
        return list(self.model.named_parameters())

    @torch.no_grad()
    def generate(
        self, prompts: Sequence[Prompt], max_new_tokens: int = 1, forbidden_start: str | None = None
    ) -> list[Generation]:
        """The likeliest action of each prompt. Raises ValueError where a beginning is given or forbidden."""
        if forbidden_start or any(prompt.prefill for prompt in prompts):
            raise ValueError(
                "evaluation.conversion and evaluation.prefill: a policy that chooses actions writes no text; "
                "evaluation.conversion=free evaluation.prefill=''"
            )
        _, logits_BA = self.model(self.features(prompts))
        return [Generation(self._write(number), 1, True) for number in logits_BA.argmax(dim=1).tolist()]

    @torch.no_grad()
    def sample(
        self, prompts: Sequence[Prompt], seeds: Sequence[int], max_new_tokens: int, temperature: float
    ) -> list[Sample]:
        """Actions drawn at random, each by its own seed."""
        _, logits_BA = self.model(self.features(prompts))
        drawn = draw(logits_BA, random_numbers(seeds, 1)[:, 0].to(logits_BA.device), temperature)
        pairs = zip(*(values.tolist() for values in drawn), strict=True)
        return [Sample(self._write(number), 1, True, [number], [logprob]) for number, logprob in pairs]

    def token_scores(self, batch: Mapping[str, Tensor], temperature: float = 1.0) -> TokenScores:
        """How likely the actions of a batch of `Move`s are."""
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
        """Last hidden state (B, D) of each prompt."""
        hidden_BD: Tensor = self.model(self.features(prompts))[0]
        return hidden_BD

    def count_tokens(self, text: str) -> int:
        """An action is one token."""
        return int(bool(text))

    def save(self, directory: Path) -> None:
        """Write the policy; the frozen model is not copied."""
        directory.mkdir(parents=True, exist_ok=True)
        write_json_atomic(directory / FILE, vars(self.settings) | {"actions": list(self.settings.actions)})
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.model.state_dict().items()}
        save_file(tensors, directory / WEIGHTS)

    def _write(self, number: int) -> str:
        return json.dumps({self.settings.key: self.settings.actions[number]}, ensure_ascii=False)


def new_actor(base: Learner, settings: ActorSettings, reference: Prompt, seed: int) -> ActionLearner:
    """An untrained policy; `reference`: any prompt of the environment. Raises ValueError."""
    features = FrozenFeatures(base, settings)
    [found_F] = features([reference])
    model = PolicyNetwork(len(found_F), len(settings.actions), settings.width, seed)
    model.reference_F.copy_(found_F)
    return ActionLearner(features, settings, model)


def load_actor(base: Learner, directory: Path) -> ActionLearner:
    """A saved policy on its frozen model. Raises ValueError where a file is missing or damaged."""
    path, weights = directory / FILE, directory / WEIGHTS
    try:
        settings = structure(ActorSettings, json.loads(path.read_text(encoding="utf-8")), str(path))
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: damaged ({first_line(error)})") from error
    try:
        tensors = load_file(weights)
        model = PolicyNetwork(len(tensors["reference_F"]), len(settings.actions), settings.width, 0)
        model.load_state_dict(tensors)
    except (SafetensorError, OSError, RuntimeError, KeyError) as error:
        raise ValueError(f"{weights}: not the weights of {FILE} ({first_line(error)})") from error
    return ActionLearner(FrozenFeatures(base, settings), settings, model)


class _Config:
    """What else is asked of a model's configuration: there is no language model."""

    num_hidden_layers, num_attention_heads, head_dim = 0, 1, 1

    def __init__(self, width: int) -> None:
        self.hidden_size = width

    def get_text_config(self) -> _Config:
        return self


class _Moves:
    """What a Processor is for dialogues."""

    def __init__(self, features: FrozenFeatures) -> None:
        self.features = features

    def encode_generated(self, prompt: Prompt, ids: Sequence[int], split: object) -> Move:
        [action] = ids
        return Move(self.features([prompt])[0], action)

    def collate(self, examples: Sequence[Move], multiple: int = 1) -> dict[str, Tensor]:
        return {
            "features_BF": torch.stack([example.features_F for example in examples]),
            "actions_B": torch.tensor([example.action for example in examples]),
        }
