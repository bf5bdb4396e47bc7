"""Processes that are killed, and folders that vanish: what is left is whole, free, and mended by the same command."""

import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.adding import Adding, FakeLearner, by_parity

from vlmreason.answering.settings import EvaluationSettings
from vlmreason.evaluation.evaluate import Share, evaluate
from vlmreason.evaluation.predictions import PredictionFile, prediction_path
from vlmreason.files import hold, lock, write_bytes_atomic

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
FORK = multiprocessing.get_context("fork")
SETTINGS = EvaluationSettings(num=10, batch_size=2)


def kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Mortal(FakeLearner):
    """Does something once it has been asked so often."""

    def __init__(self, after: int, act: Callable[[], Any]) -> None:
        super().__init__(by_parity)
        self.after, self.act = after, act

    def generate(self, prompts: Any, *args: Any, **kwargs: Any) -> Any:
        found = super().generate(prompts, *args, **kwargs)
        if self.num_asked > self.after:
            self.after = 10**9
            self.act()
        return found


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("killed", [0, 1])
@pytest.mark.parametrize("after", [1, 4, 13])
def test_a_rank_killed_in_an_evaluation_leaves_no_trace_in_the_order(tmp_path: Path, killed: int, after: int) -> None:
    evaluate(FakeLearner(by_parity), Adding(), SETTINGS, tmp_path / "whole", {}, progress=False)
    for mortal in (killed, None):
        barrier = FORK.Barrier(2)

        def work(rank: int, mortal: int | None = mortal, barrier: Any = barrier) -> None:
            learner = Mortal(after, kill_self) if rank == mortal else FakeLearner(by_parity)
            share = Share(rank, 2, lambda: barrier.wait(60))
            evaluate(learner, Adding(), SETTINGS, tmp_path / "broken", {}, progress=False, share=share)

        ranks = [FORK.Process(target=work, args=(rank,)) for rank in range(2)]
        for process in ranks:
            process.start()
        if mortal is not None:
            ranks[mortal].join(60)
            assert ranks[mortal].exitcode == -signal.SIGKILL
            time.sleep(0.1)  # what the other does meanwhile is kept
            ranks[1 - mortal].kill()
        for process in ranks:
            process.join(60)
        assert mortal is not None or [process.exitcode for process in ranks] == [0, 0]
    assert files(tmp_path / "broken") == files(tmp_path / "whole")


@pytest.mark.parametrize("after", [0, 9, 25])
def test_a_folder_deleted_while_it_is_evaluated_is_named_and_made_again(tmp_path: Path, after: int) -> None:
    evaluate(FakeLearner(by_parity), Adding(), SETTINGS, tmp_path / "whole", {}, progress=False)
    folder = tmp_path / "run" / "evaluation"
    deleting = Mortal(after, lambda: shutil.rmtree(tmp_path / "run"))
    with pytest.raises(ValueError, match=r"deleted while it was .*; the same command begins again"):
        evaluate(deleting, Adding(), SETTINGS, folder, {}, progress=False)
    assert not folder.exists()
    evaluate(FakeLearner(by_parity), Adding(), SETTINGS, folder, {}, progress=False)
    assert files(folder) == files(tmp_path / "whole")


def test_a_folder_deleted_between_two_levels_is_named_and_made_again(tmp_path: Path) -> None:
    real, seen = PredictionFile.__exit__, list[Path]()

    def close(self: PredictionFile, *args: Any) -> None:
        real(self, *args)
        seen.append(self.path)
        if len(seen) == 2:
            shutil.rmtree(tmp_path / "run")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PredictionFile, "__exit__", close)
        with pytest.raises(ValueError, match="deleted while it was evaluated"):
            evaluate(FakeLearner(by_parity), Adding(), SETTINGS, tmp_path / "run", {}, progress=False)
    evaluate(FakeLearner(by_parity), Adding(), SETTINGS, tmp_path / "run", {}, progress=False)
    assert prediction_path(tmp_path / "run", "hard", "image").exists()


@pytest.mark.parametrize("what", ["run", "predictions"])
def test_a_lock_ends_with_its_process_and_not_with_its_workers(tmp_path: Path, what: str) -> None:
    path, child = tmp_path / "lock", FORK.Value("i", 0)

    def work() -> None:
        kept = hold(path) if what == "run" else PredictionFile(path, {})
        assert kept
        number = os.fork()
        if number == 0:
            time.sleep(60)
            os._exit(0)
        child.value = number
        time.sleep(60)

    process = FORK.Process(target=work)
    process.start()
    while child.value == 0:
        time.sleep(0.01)
    try:
        with open(path, "a") as file:
            assert not lock(file)
        process.kill()
        process.join()
        os.kill(child.value, 0)  # the worker lives
        with open(path, "a") as file:
            assert lock(file)
    finally:
        os.kill(child.value, signal.SIGKILL)


def test_what_a_forked_process_writes_does_not_go_into_a_locked_file(tmp_path: Path) -> None:
    with open(tmp_path / "lock", "w") as file:
        assert lock(file)
        file.write("mine")  # in the buffer, of which a forked process has a copy
        process = FORK.Process(target=file.flush)
        process.start()
        process.join()
        assert (tmp_path / "lock").read_text() == ""
    assert (tmp_path / "lock").read_text() == "mine"


def test_a_file_is_whole_or_absent_whenever_its_writer_is_killed(tmp_path: Path) -> None:
    path, data = tmp_path / "picture.png", bytes(range(256)) * 2**16

    def write() -> None:
        while True:
            write_bytes_atomic(path, data, durable=False)
            path.unlink()

    found = set()
    for number in range(12):
        process = FORK.Process(target=write)
        process.start()
        time.sleep(0.02 + 0.007 * number)
        process.kill()
        process.join()
        found.add(path.read_bytes() == data if path.exists() else None)
        path.unlink(missing_ok=True)
    assert False not in found and not (found - {True, None})
