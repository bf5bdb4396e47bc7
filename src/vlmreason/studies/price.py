"""What runs that are not there would cost, by what records say of the time of like ones."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from vlmreason.studies.records import Record

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Price:
    """Of training `num` runs: minutes by what spends them (cores, GPUs); `unknown`: runs without a like one."""

    num: int
    minutes: Mapping[str, float]
    unknown: int

    def __str__(self) -> str:
        return f"{self.num} run{'' if self.num == 1 else 's'} missing, {self.cost}"

    @property
    def cost(self) -> str:
        """Say what they cost, in words."""
        if self.unknown == self.num:
            return "at a cost that is not known: no record is of a like run"
        cost = " and ".join(_words(minutes, unit) for unit, minutes in self.minutes.items())
        rest = f"; of {self.unknown} it is not known" if self.unknown else ""
        return f"about {cost} of training{rest}"


def price(missing: Iterable[tuple[Config, int]], records: Iterable[Record]) -> Price:
    """Estimate what runs cost, given by configuration and number of steps.

    A like run has the same scale, model and algorithm, and the same task where one has; its time per step counts.
    """
    rates: dict[tuple[str, ...], list[tuple[str, float]]] = {}
    for record in records:
        if rate := _rate(record):
            for key in _keys(record.config):
                rates.setdefault(key, []).append(rate)
    minutes: dict[str, float] = {}
    num = unknown = 0
    for config, steps in missing:
        num += 1
        like = next((rates[key] for key in _keys(config) if key in rates), [])
        if not like:
            unknown += 1
            continue
        unit = like[-1][0]
        minutes[unit] = minutes.get(unit, 0.0) + steps * statistics.median(rate for kind, rate in like if kind == unit)
    return Price(num, minutes, unknown)


def _keys(config: Config) -> list[tuple[str, ...]]:
    """By what a run is like others, the closest first."""
    names = [str(config.get(group, {}).get("name", "")) for group in ("scale", "model", "algorithm")]
    return [(*names, str(config["task"]["name"])), tuple(names)]


def _rate(record: Record) -> tuple[str, float] | None:
    """Minutes of cores or GPUs that a step of a run took; None where it does not say."""
    seconds = float(record.cost.get("seconds") or 0) + sum((record.cost.get("reused_seconds") or {}).values())
    steps, hardware = sum(record.steps.values()), record.provenance["hardware"]
    if not seconds or not steps or record.config.get("smoke"):
        return None
    trainer = record.config.get("trainer", {})
    gpus, devices = len(hardware.get("gpus") or ()), trainer.get("devices")
    if gpus and trainer.get("accelerator") != "cpu":
        return "GPU", seconds * (devices if isinstance(devices, int) else gpus) / steps / 60
    return "core", seconds * int(trainer.get("num_threads") or hardware.get("cores") or 1) / steps / 60


def _words(minutes: float, unit: str) -> str:
    """A number with two digits that count."""
    whole = max(round(minutes), 1)
    digits = max(len(str(whole)) - 2, 0)
    return f"{round(whole, -digits):,} {unit} minute{'' if whole == 1 else 's'}"
