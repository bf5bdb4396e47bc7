"""Run one command through Hydra: compose, check, call, report.

Hydra composes the configuration and handles -m, --cfg and --info; it makes no folders, logs or copies of
its own for a run. The command gets plain containers, never OmegaConf's.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from vlmreason import places, runs
from vlmreason.assembly import catalog, errors, planning
from vlmreason.assembly.compose import resolve
from vlmreason.structure import one_line
from vlmreason.terminal import columns

_READER_GONE = "the reader of stdout has gone"


class _JobFailed(Exception):
    """A job of a sweep failed and has been reported; `code` is its exit code."""

    def __init__(self, code: int) -> None:
        super().__init__("reported above")
        self.code = code


def launch(command: str, config: str, words: list[str]) -> int:
    """Run a command with Hydra's command line `words`; returns the exit code."""
    program = sys.argv[0]
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing and exiting
    warnings.formatwarning = _warning
    sys.argv = [program, *_flags_first(words)]

    done: list[Done] = []

    def job(cfg: DictConfig) -> Any:
        return _run_job(command, program, cfg, done)

    decorated = hydra.main(version_base="1.3", config_path=str(places.conf_dir()), config_name=config)(job)
    try:
        decorated()
    except SystemExit as end:
        if end.code == _READER_GONE:
            raise BrokenPipeError from None
        return end.code if isinstance(end.code, int) else errors.MISTAKE
    except _JobFailed as failed:
        return failed.code
    except (HydraException, OmegaConfBaseException) as error:
        reported = errors.explain(command, words, error)
        reported.__cause__ = error
        return errors.report(reported)
    except (Exception, KeyboardInterrupt) as error:
        return errors.report(error)
    finally:
        if len(done) > 1:
            print(f"\n{table_of_jobs(done)}", flush=True)
        sys.argv = [program, command, *words]
        if before is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = before
    return 0


def _flags_first(words: list[str]) -> list[str]:
    """Put options before settings: Hydra's own parser wants settings in one piece."""
    flags, rest, value = list[str](), list[str](), False
    for word in words:
        is_flag = word.startswith("-")
        (flags if is_flag or (value and "=" not in word) else rest).append(word)
        value = is_flag and word in errors.FLAGS_WITH_VALUE
    return flags + rest


_formatwarning = warnings.formatwarning


def _warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """Say what this package warns of in one line, as errors are."""
    ours = filename.startswith(os.path.dirname(places.__file__))
    return (
        f"vlmreason: {one_line(str(message))}\n" if ours else _formatwarning(message, category, filename, lineno, line)
    )


@dataclass(frozen=True)
class Done:
    """A job of a sweep that has ended: its settings, and what it returned, None where it failed or returned nothing."""

    overrides: Sequence[str]
    place: Any
    failed: bool


def table_of_jobs(done: Sequence[Done]) -> str:
    """Write in what jobs differ, what came out and where it is; accuracy where they were evaluated."""
    keys = planning.varying([job.overrides for job in done])
    rows = []
    for job in done:
        words = dict(word.partition("=")[::2] for word in job.overrides)
        found: Any = runs.read_json_or_none(Path(str(job.place)) / "summary.json") if job.place else None
        try:
            shares = [100 * float(found[key]) for key in ("accuracy", "ci_low", "ci_high")]
            figure = "{:.1f} % ({:.1f} to {:.1f})".format(*shares)
        except (TypeError, KeyError, ValueError):
            figure = "failed" if job.failed else "-"
        rows.append([*(words.get(key, "") for key in keys), figure, str(job.place or "-")])
    return columns([*keys, "accuracy", "where"], rows, left=len(keys) + 2)


def _run_job(command: str, program: str, cfg: DictConfig, done: list[Done]) -> Any:
    """One job: `sys.argv` is as if it had been typed alone, so that processes started from it do the same job."""
    hydra_config = HydraConfig.get()
    overrides = list(hydra_config.overrides.task)
    in_sweep = hydra_config.mode == RunMode.MULTIRUN
    if in_sweep:
        print(f"vlmreason: job {hydra_config.job.num}: {command} {' '.join(overrides)}", file=sys.stderr)
    before = sys.argv
    sys.argv = [program, command, *overrides]
    try:
        plain = resolve(cfg, overrides)
        place = importlib.import_module(catalog.module_name(command)).run(plain)
    except BrokenPipeError:
        sys.exit(_READER_GONE)  # past Hydra, which would report it
    except Exception as error:
        code = errors.report(error, f"job {hydra_config.job.num}: " if in_sweep else "")
        if in_sweep:
            done.append(Done(overrides, None, True))
            raise _JobFailed(code) from None  # Hydra goes on with the other jobs and raises it at the end
        sys.exit(code)
    finally:
        sys.argv = before
    if in_sweep:
        done.append(Done(overrides, place, False))
    if place is not None:
        print(place, flush=True)
    return None if place is None else str(place)
