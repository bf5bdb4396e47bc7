"""What PPO and GRPO share: rollouts with the policy, passes over their turns in micro-batches, figures, alarms."""

from __future__ import annotations

import math
import sys
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from vlmreason.answering.rollout import Engine, Rollouts, Turn, encode
from vlmreason.models.contract import TokenScores
from vlmreason.models.vlm.learner import Learner
from vlmreason.models.vlm.processor import Encoded
from vlmreason.streams import stream
from vlmreason.structure import nearest
from vlmreason.training.engine import strategies
from vlmreason.training.engine.optimizers import OptimizerSettings
from vlmreason.training.engine.phase import PhaseModule, PhaseSettings
from vlmreason.training.reinforced.settings import ReinforcementSettings

LENGTH_STEP, RESPONSE_STEP = 16, 8
_HELP = {
    "kl": "; a lower algorithm.optimizer.lr, or algorithm.kl_limit=0.02, may help",
    "clipped": "; a lower algorithm.optimizer.lr, fewer algorithm.epochs, or algorithm.ratio=token (ppo) may help",
}
"""What may be done about a limit that was passed."""
MAX_GAP = 1.0
"""Nats per token between the log-probabilities of engine and trainer beyond which these are not the same model."""


class Server(Engine, Protocol):
    """An engine with weights of its own."""

    def serving(self) -> AbstractContextManager[None]:
        """Let the engine draw with the weights that the learner has now, for the block."""


class Policy(PhaseModule):
    """A phase in which a learner acts and is changed by what its actions bring. A step is one update.

    `figures`: names of what an optimizer step returns sums of, and the numbers that they are of, as (2, F); one is
    "kl", per token and of all of them alike.
    """

    figures: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        learner: Learner,
        optimizer: OptimizerSettings,
        settings: ReinforcementSettings,
        rollouts: Rollouts,
        phase: PhaseSettings,
        micro_tokens: int,
        engine: Server | None = None,
    ) -> None:
        """`micro_tokens`: padded tokens of one pass; `engine`: what generates responses in the learner's place."""
        super().__init__(learner, optimizer, settings.updates, phase)
        self.algorithm, self.rollouts, self.micro_tokens = settings, rollouts, micro_tokens
        self.engine: Engine = engine or learner
        self.serving = engine.serving if engine else nullcontext
        self.num_passes = float(settings.epochs)  # of the latest update
        self._warned: set[str] = set()
        self._numbered: tuple[Sequence[Encoded], list[int]] | None = None

    def setup(self, stage: str) -> None:
        super().setup(stage)
        for module in self.model.modules():  # the policy that acts and the one that is changed are the same
            if isinstance(module, nn.Dropout):
                module.p = 0.0  # not `eval`: generation puts the whole model back into training
            for name in ("dropout", "attention_dropout"):  # what attention gives to functions while it trains
                if isinstance(getattr(module, name, None), float):
                    setattr(module, name, 0.0)

    @abstractmethod
    def roll_out(self) -> list[Turn]:
        """Return the turns of this update that this process plays."""

    @abstractmethod
    def improve(self, turns: Sequence[Turn], encoded: Sequence[Encoded]) -> dict[str, float]:
        """Return all optimizer steps of the update; returns figures that are the same in every process."""

    def trained_on(self, encoded: Sequence[Encoded]) -> Sequence[Encoded]:
        """Return those of the turns that the update made use of."""
        return encoded

    def training_step(self, batch: Any, _: int) -> None:
        started = time.perf_counter()
        self.rollouts.seconds.generate = self.rollouts.seconds.environment = 0.0
        with strategies.usable(self.model), self.computing(), self.serving():
            turns = self.roll_out()
        encoded = [encode(self.learner.processor, self.rollouts.env, turn) for turn in turns]
        if self.step == self.phase.first_step:
            self._warn_of_unknown_rewards(turns)
        rolled_out = time.perf_counter()
        figures = self.improve(turns, encoded)
        if self.engine is not self.learner and figures.get("rollout_gap", 0.0) > MAX_GAP:
            raise ValueError(
                f"algorithm.engine={self.algorithm.engine}: its log-probabilities are {figures['rollout_gap']:.2f} per "
                "token away from the learner's: it does not compute the same model; algorithm.engine=learner"
            )
        self.step += 1
        self._count(turns, encoded)
        self.last = {**self._describe(turns), **figures}
        if self.algorithm.kl_limit is not None:
            self.last["passes"] = self.num_passes
        self.last |= {f"alarm_{name}": 1.0 for name in self._alarms()}
        self.seconds_in_step = time.perf_counter() - started
        self.timing = {
            "seconds_generate": self.rollouts.seconds.generate,
            "seconds_environment": self.rollouts.seconds.environment,
            "seconds_update": time.perf_counter() - rolled_out,
        }

    def bar(self) -> dict[str, str]:
        return {"reward": f"{self.last.get('reward', float('nan')):.3f}"}

    def micro_batches(self, encoded: Sequence[Encoded], indices: Sequence[int]) -> Iterator[tuple[list[int], Any]]:
        """Return the chosen turns as batches of the learner, each with its turns' numbers; all processes make as many.

        A process with fewer repeats turns of its own without numbers: they are to weigh nothing. Turns with the same
        prompt are in a batch together, where it is computed once.
        """
        prompts = self._prompts(encoded)
        parts = self._parts(encoded, prompts, indices)
        rows = strategies.gather_rows([float(len(parts))], self.device)
        for number in range(int(max(row[0] for row in rows))):
            part = parts[number] if number < len(parts) else []
            examples = [encoded[i] for i in part] or [encoded[0]]
            of_part = [prompts[i] for i in part] or [0]
            if len(set(of_part)) < len(of_part):
                batch = self.learner.processor.collate_following(examples, of_part, RESPONSE_STEP)
            else:
                batch = self.learner.processor.collate(examples, LENGTH_STEP)
            yield part, {name: value.to(self.device) for name, value in batch.items()}

    def _parts(self, encoded: Sequence[Encoded], prompts: Sequence[int], indices: Sequence[int]) -> list[list[int]]:
        """Cut the chosen turns into parts of at most `micro_tokens`, what is padded and prompts that recur counted so.

        Equal prompts are neighbours, and so are turns of about one length.
        """
        lengths = {i: (encoded[i].segments.count(0), len(encoded[i])) for i in indices}
        parts: list[list[int]] = []
        size = (0, 0, 0)  # prompts of the last part, its longest prompt and response (tokens)
        for i in sorted(indices, key=lambda i: (lengths[i][0], prompts[i], lengths[i][1])):
            prompt, response = lengths[i][0], lengths[i][1] - lengths[i][0]
            if parts:
                more = size[0] + (prompts[parts[-1][-1]] != prompts[i])
                longer = more, max(size[1], prompt), max(size[2], response)
                if longer[0] * longer[1] + (len(parts[-1]) + 1) * longer[2] <= self.micro_tokens:
                    parts[-1].append(i)
                    size = longer
                    continue
            parts.append([i])
            size = (1, prompt, response)
        return parts

    def _prompts(self, encoded: Sequence[Encoded]) -> list[int]:
        """Number the prompts of turns, equal ones alike where the learner may compute them once."""
        if self._numbered is None or self._numbered[0] is not encoded:
            numbers: dict[Any, int] = {}
            shares = getattr(self.learner, "shares_prompts", False)
            found = [numbers.setdefault(_prompt_key(e) if shares else i, len(numbers)) for i, e in enumerate(encoded)]
            self._numbered = encoded, found
        return self._numbered[1]

    def make_steps(
        self, indices: Sequence[int], step: Callable[[list[int]], tuple[Tensor, float]]
    ) -> tuple[Tensor, float]:
        """Return the optimizer steps on the chosen turns, in another order in each epoch.

        `step` makes one on some turns and returns its figures and the gradient's norm; they are summed and averaged.
        """
        rng = stream(self.phase.seed, self.phase.name, self.step, "minibatches", self.global_rank)
        num, found = self.algorithm.minibatches, []
        orders = [list(indices) for _ in range(self.algorithm.epochs)]
        for order in orders:
            rng.shuffle(order)
        for part in (order[number::num] for order in orders for number in range(num)):
            sums, norm = step(part)
            found.append((sums, norm))
            if self.algorithm.kl_limit is not None and self.means(sums)["kl"] > self.algorithm.kl_limit:
                break
        self.num_passes = len(found) / num
        return sum((sums for sums, _ in found), torch.zeros(())), sum(norm for _, norm in found) / len(found)

    def means(self, sums: Tensor) -> dict[str, float]:
        """Return the figures of optimizer steps by name from sums and numbers (2, F); nan where a number is 0."""
        named = zip(self.figures, *sums.tolist(), strict=True)
        return {name: value / num if num else math.nan for name, value, num in named}

    def scores(self, batch: Mapping[str, Tensor]) -> TokenScores:
        return self.learner.token_scores(batch, self.algorithm.temperature)

    def optimize(self, sums: Tensor) -> tuple[Tensor, float]:
        """Return one optimizer step on the gradients that are there; returns the sums of all processes and their
        norm."""
        sums = self.sum_over_processes(sums)
        norm = self.clip()
        if not math.isfinite(norm):
            raise ValueError(
                f"phase {self.phase.name}, update {self.step}: the gradient is no finite number; a lower "
                "algorithm.optimizer.lr, or trainer.precision=32-true, may help"
            )
        for optimizer in self.all_optimizers():
            optimizer.step()
            optimizer.zero_grad()
        return sums, norm

    def mean_over_processes(self, sums: Sequence[float], counts: Sequence[float]) -> list[float]:
        """Return sums over counts, both over all processes; nan where there is nothing."""
        rows = strategies.gather_rows([*sums, *counts], self.device)
        totals = [sum(column) for column in zip(*rows, strict=True)]
        half = len(sums)
        return [a / b if b else math.nan for a, b in zip(totals[:half], totals[half:], strict=True)]

    def _describe(self, turns: Sequence[Turn]) -> dict[str, float]:
        """Means over the turns of the update and, where episodes ended, over these."""
        ended = [turn for turn in turns if turn.outcome.done]
        mine = {name: None for turn in turns for name in turn.outcome.rewards}
        names = sorted(strategies.gather_dicts(mine))  # a reward may be given in one process alone
        sums = [
            sum(turn.reward for turn in turns),
            sum(turn.sample.num_tokens for turn in turns),
            sum(not turn.outcome.parsed for turn in turns),
            sum(not turn.sample.finished for turn in turns),
            sum(turn.outcome.success for turn in ended),
            sum(turn.gained for turn in ended),
            *(sum(turn.outcome.rewards.get(name, 0.0) for turn in turns) for name in names),
        ]
        counts = [len(turns)] * 4 + [len(ended)] * 2 + [len(turns)] * len(names)
        keys = ("reward", "response_tokens", "unparsed", "cut_off", "success", "return")
        means = self.mean_over_processes([float(value) for value in sums], [float(count) for count in counts])
        named = zip([*keys, *(f"reward_{name}" for name in names)], means, strict=True)
        return {key: value for key, value in named if not math.isnan(value)}

    def _count(self, turns: Sequence[Turn], encoded: Sequence[Encoded]) -> None:
        """Figures of the batch for the throughput, and how much was played and trained so far."""
        mine = {
            "num_targets": sum(turn.sample.num_tokens for turn in turns),
            "num_tokens": sum(map(len, encoded)),
            "num_pairs": sum(len(one) ** 2 for one in encoded),
            "num_padded": sum(map(len, encoded)),
            "num_images": sum(turn.prompt.image is not None for turn in turns),
            "num_examples": len(turns),
            "num_episodes": sum(turn.outcome.done for turn in turns),
            "num_trained": sum(map(len, self.trained_on(encoded))),
        }
        rows = strategies.gather_rows([float(value) for value in mine.values()], self.device)
        self.counts = dict(zip(mine, (sum(column) for column in zip(*rows, strict=True)), strict=True))
        self.add(
            env_steps=self.counts["num_examples"],
            episodes=self.counts["num_episodes"],
            tokens_generated=self.counts["num_tokens"],
            tokens_trained=round(self.counts["num_trained"] * self.num_passes),
        )

    def _warn_of_unknown_rewards(self, turns: Sequence[Turn]) -> None:
        seen = {name for turn in turns for name in turn.outcome.rewards}
        for name in self.algorithm.rewards.keys() - seen if strategies.is_first() else ():
            print(
                f"vlmreason: algorithm.rewards.{name}: no turn of the first update had such a reward; there were "
                f"{', '.join(sorted(seen))}{nearest(name, seen)}",
                file=sys.stderr,
            )

    def _alarms(self) -> list[str]:
        """Names of the limits that the latest update is beyond; the first time of each is said aloud."""
        limits, last = self.algorithm.alarms, self.last
        found = limits.beyond(last)
        for name in found:
            if name not in self._warned and strategies.is_first():
                self._warned.add(name)
                print(
                    f"vlmreason: update {self.step}: {name} {last[name]:.4f} is beyond algorithm.alarms.{name}="
                    f"{getattr(limits, name)}; the policy may be collapsing" + _HELP.get(name, ""),
                    file=sys.stderr,
                )
        return found


def _prompt_key(one: Encoded) -> tuple[Any, ...]:
    start = one.segments.count(0)
    return (*one.input_ids[:start], None if one.image is None else one.image.tobytes())
