"""What a person at the terminal sees and says while a run trains: where it stands, the bar, and the request to stop.

All but the bar goes to stderr; with `trainer.progress=false` there is only the answer to a request to stop.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import TQDMProgressBar

from vlmreason.training.engine import strategies
from vlmreason.training.engine.phase import PhaseModule, Stage
from vlmreason.training.engine.settings import TrainerSettings


class Stopped(Exception):
    """The run was told to stop and has saved its state; the same command goes on."""


class Lost(Stopped):
    """Another process of the run has died; the last checkpoint is there."""


class StopRequest:
    """The first SIGINT, SIGTERM or SIGUSR2 asks for a stop at the next step; a second SIGINT stops at once."""

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        self._before = {number: signal.getsignal(number) for number in self.signals}
        self.listen()
        return self

    def listen(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in self.signals:
                signal.signal(number, self._request)

    def __exit__(self, *_: object) -> None:
        if threading.current_thread() is threading.main_thread():
            for number, handler in self._before.items():
                signal.signal(number, handler)

    def _request(self, number: int, _: object) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not self.requested and strategies.is_first():
            after_bar = "\n" if sys.stderr.isatty() else ""
            again = "; Ctrl-C again stops at once" if number == signal.SIGINT else ""
            text = f"{after_bar}vlmreason: stopping after this step{again}\n"
            os.write(2, text.encode())  # `print` must not be entered again from a signal
        self.requested = True


def announce(
    run_dir: Path, settings: TrainerSettings, stages: Sequence[Stage], done: Collection[str], step: int, lost: int
) -> None:
    """Say where a run is, on what it trains and where it stands, and what Ctrl-C does.

    `step`: where the first phase that is not `done` goes on; `lost`: steps after that which are made again.
    """
    if not settings.progress or not strategies.is_first():
        return
    num = 1
    for count in strategies.processes(settings.devices, settings.num_nodes, settings.accelerator):
        num *= count
    device = torch.cuda.get_device_name() if strategies.on_gpu(settings.accelerator) else "cpu"
    todo = [stage for stage in stages if stage.name not in done]
    told = [f"{name} is done" for name in done]
    if not todo:
        told = ["all phases are done"]
    for stage in todo:
        begins = f"from step {step} of {stage.num_steps}" if stage is todo[0] and step else f"{stage.num_steps} steps"
        told.append(f"{stage.name} {begins}")
    again = f" ({lost} later step{'s' * (lost > 1)} made again)" if lost > 0 else ""
    stops = "; Ctrl-C stops after a step and saves, the same command goes on" if todo else ""
    on = f"{num} x {device}" if num > 1 else device
    print(f"vlmreason: {run_dir} on {on}, {settings.precision}", file=sys.stderr)
    print(f"vlmreason: {', '.join(told)}{again}{stops}", file=sys.stderr, flush=True)


class ProgressBar(TQDMProgressBar):
    """Loss, examples and tokens per second, time left; counts the steps of the phase from its beginning."""

    BAR_FORMAT = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"  # 80 columns

    def __init__(self, phase: str, first_step: int) -> None:
        super().__init__(refresh_rate=1)
        self.phase, self.first_step = phase, first_step
        self._started, self._examples, self._tokens = 0.0, 0, 0

    @property
    def total_train_batches(self) -> int | float:
        return super().total_train_batches + self.first_step

    @property
    def train_description(self) -> str:
        return f"train {self.phase}"

    def on_train_start(self, *args: Any) -> None:
        super().on_train_start(*args)
        self._started = time.perf_counter()

    def on_train_epoch_start(self, *args: Any) -> None:
        bar = self.train_progress_bar
        bar.reset(total=int(self.total_train_batches))
        bar.initial = bar.n = self.first_step
        bar.refresh()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, PhaseModule)
        self._examples += int(pl_module.counts["num_examples"])
        self._tokens += int(pl_module.counts["num_tokens"])
        super().on_train_batch_end(trainer, pl_module, outputs, batch, self.first_step + batch_idx)

    def get_metrics(
        self, trainer: L.Trainer, pl_module: L.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        assert isinstance(pl_module, PhaseModule)
        seconds = max(time.perf_counter() - self._started, 1e-9)
        return {
            **pl_module.bar(),
            "ex/s": f"{self._examples / seconds:.0f}",
            "tok/s": f"{self._tokens / seconds:.0f}",
        }
