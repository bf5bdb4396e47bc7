"""What is evaluated and how: the settings of `evaluation`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vlmreason.segments import Shown
from vlmreason.streams import SPLITS
from vlmreason.structure import check_choice, check_positive, speed


@dataclass(frozen=True)
class EvaluationSettings:
    """What is evaluated and how.

    levels: levels of the task; None means all of them.
    views: how the problem is shown to the model: text, image, both.
    num: problems per level and view, the first ones of the split.
    split: train, validation or test.
    how: generate: the model writes its response; choose: it says which of the task's options is the likeliest.
    batch_size: problems generated together, or options scored together; it changes the speed and never a score.
    max_new_tokens: length limit of a response, in tokens; one that reaches it is counted as cut off.
    conversion: for image views, whether the model writes the text form first (a caption, of a task that calls it so).
        free: as it likes; force: its response begins with the first word of the sentence that announces it, "Convert";
        forbid: it may not begin so; gold: its response begins with the whole of it, as it is right.
    condition: whether responses begin with the line that says of which kind a problem is, of a task that has such.
        free: as the model likes; force: with the right line; wrong: with that of another kind; forbid: with none.
    prefill: text that every response begins with.
    length: free: thoughts end where the model ends them; given: the answer begins at the very token at which the
        expected response begins its own (with conversion=force or gold, the one that converts). What ends a thought is
        not written before, and written there. Whatever is then still wrong was not a matter of stopping.
    """

    levels: tuple[str, ...] | None = None
    views: tuple[Shown, ...] = ("text", "image")
    num: int = 200
    split: str = "test"
    how: Literal["generate", "choose"] = "generate"
    batch_size: int = speed(32)
    max_new_tokens: int = 512
    conversion: Literal["free", "force", "forbid", "gold"] = "free"
    condition: Literal["free", "force", "wrong", "forbid"] = "free"
    prefill: str = ""
    length: Literal["free", "given"] = "free"

    @property
    def decisive(self) -> dict[str, object]:
        """Return what decides the responses beside the problems; `how`, `length`, `condition` and what is written where
        they have an effect."""
        if self.how == "choose":
            return {"split": self.split, "conversion": self.conversion, "how": self.how}
        given = {key: value for key in ("length", "condition") if (value := getattr(self, key)) != "free"}
        return {key: getattr(self, key) for key in ("split", "max_new_tokens", "conversion", "prefill")} | given

    def __post_init__(self) -> None:
        check_positive(self, "num", "batch_size", "max_new_tokens")
        check_choice("split", self.split, SPLITS)
        for name, values in (("levels", self.levels), ("views", self.views)):
            if values is not None and (not values or len(set(values)) < len(values)):
                raise ValueError(f"{name}={list(values)}: one or more different ones are expected")
        if self.how == "choose" and (self.conversion != "free" or self.prefill):
            key, value = ("prefill", self.prefill) if self.prefill else ("conversion", self.conversion)
            raise ValueError(f"evaluation.{key}={value}: has no effect with evaluation.how=choose, nothing is written")
        if self.length == "given" and (self.how == "choose" or self.prefill):
            why = "evaluation.how=choose" if self.how == "choose" else f"prefill={self.prefill!r}"
            raise ValueError(f"evaluation.length=given: cannot be combined with {why}")
        if self.conversion != "free" and "image" not in self.views:
            raise ValueError(f"conversion={self.conversion}: has no effect without the image view")
        if self.condition != "free":
            others = {"how": "generate", "length": "free", "prefill": ""}
            if self.conversion in ("force", "gold"):
                others["conversion"] = "free"
            for key, value in others.items():
                if getattr(self, key) != value:
                    raise ValueError(
                        f"evaluation.condition={self.condition}: cannot be combined with "
                        f"evaluation.{key}={getattr(self, key)}"
                    )
        if self.conversion != "free" and self.prefill:
            raise ValueError(f"conversion={self.conversion}: cannot be combined with prefill={self.prefill!r}")
