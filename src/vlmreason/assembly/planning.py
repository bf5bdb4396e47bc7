"""What experiments lack: the runs they need, what is there of them, and the jobs of a sweep that make the rest."""

from __future__ import annotations

import itertools
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vlmreason import runs
from vlmreason.assembly import algorithms, beginnings, build, compose
from vlmreason.structure import one_line
from vlmreason.studies import artifacts
from vlmreason.studies import price as studies_price
from vlmreason.studies.library import Library
from vlmreason.studies.needs import needs
from vlmreason.studies.price import Price


@dataclass(frozen=True)
class Planned:
    """A job in the making. run_dir: of a run that is there already under another name; None: that of the config."""

    overrides: list[str]
    config: dict[str, Any]
    then: tuple[tuple[str, ...], ...] = ()
    run_dir: Path | None = None

    @property
    def place(self) -> Path:
        return self.run_dir or Path.cwd() / runs.run_directory(self.config)


def open_library(scale: str, studies: Sequence[str], folder: Path) -> Library:
    """Open the records of studies and of the runs in a folder, found by what the command line would compose."""
    return Library(scale, studies, folder, compose.Composer().config, build.evaluated_task, build.posed)


def jobs(library: Library, names: Sequence[str], scale: str, folder: str, extra: Sequence[str] = ()) -> list[Planned]:
    """Return runs to be trained, and runs of which something is still to be measured. Says how many are complete.

    `library`: of the experiments' studies (`open_library`). `folder`: where they are and go. Raises ValueError.
    """
    every = needs(names, scale, library, compose.typed(extra))
    unmet = [need for need in every if not need.is_met]
    planned = []
    for place, need in enumerate(unmet):
        show_progress("checking job", place, len(unmet))
        config, then, run_dir = need.config | {"out": folder}, need.commands, need.run_dir
        if run_dir is None:
            compose.check(config, "train")
        else:
            then = need.lacking
            config = runs.read_config(run_dir) if need.found.mark else config
        overrides = [*compose.overrides(need.settings), f"out={compose.override_value(folder)}"]
        planned.append(Planned(overrides, config, tuple(then), run_dir and run_dir.absolute()))
    trained = sum(need.run_dir is not None for need in unmet)
    more = f", {trained} more trained, without all that is measured afterwards" if trained else ""
    print(f"{len(every) - len(unmet)} of {len(every)} runs are there already{more}")
    return planned


def share_beginnings(planned: Sequence[Planned]) -> tuple[list[Planned], str]:
    """Order jobs so that what trains first phases for others comes first and what waits for them last.

    Says how many phases are trained once and what that saves; "" where jobs share none.
    """
    chains = [beginnings.names(job.config) if job.run_dir is None else {} for job in planned]
    places = [
        [(job.config["out"], name) for name in chain.values()] for job, chain in zip(planned, chains, strict=True)
    ]
    number = Counter(itertools.chain.from_iterable(places))
    shared = [[place for place in chain if number[place] > 1] for chain in places]
    made: set[tuple[str, str]] = set()
    ranks = [1] * len(planned)  # 0: trains for others, 1: has nothing to do with them, 2: waits, then trains, 3: waits
    for job in sorted(range(len(planned)), key=lambda job: -len(shared[job])):
        if shared[job]:
            waits, trains = bool(made.intersection(shared[job])), bool(set(shared[job]) - made)
            ranks[job] = (2 if trains else 3) if waits else 0
            made.update(shared[job])
    if not made:
        return list(planned), ""
    sizes = [[phase["num_examples"] for phase in job.config["supervision"]["phases"].values()] for job in planned]
    once = dict(itertools.chain.from_iterable(map(zip, places, sizes)))
    saved = sum((number[place] - 1) * once[place] for place in made)
    whole = sum(map(sum, sizes))
    num = sum(map(bool, shared))
    return [planned[job] for job in sorted(range(len(planned)), key=ranks.__getitem__)], (
        f"{num} of them share {len(made)} first phase{'s' * (len(made) > 1)}, trained once: {saved:,} of {whole:,} "
        f"examples ({saved / whole:.0%}) are saved"
    )


def in_sweeps(folder: Path, planned: Sequence[Planned]) -> Iterator[tuple[Path, list[Any]]]:
    """Return sweeps below a folder that have some of these jobs on their way, with the rows of these
    (launch.status.Row)."""
    from vlmreason.launch import directory, status

    wanted = {str(job.place): set(job.then) for job in planned}
    for path in sorted(folder.glob("*/sweep.json")):
        try:
            sweep = directory.read_sweep(path.parent, complete=False)
        except ValueError as error:
            print(f"vlmreason: {one_line(str(error))}; it is passed over", file=sys.stderr)
            continue
        same = {j.number for j in sweep.jobs if j.run_dir in wanted and wanted[j.run_dir] <= set(j.then)}
        if sweep.complete and same:
            rows = [row for row in status.observe(path.parent, sweep) if row.number in same and row.state in ON_THE_WAY]
            if rows:
                yield path.parent, rows


ON_THE_WAY = ("waiting", "submitted", "running", "stopped", "lost", "not begun")
"""What failed is planned again, from today's source."""


def name(names: Sequence[str], scale: str) -> str:
    """Name a sweep: s2h-fig5, s2h-fig5-table8, s2h for all of a study; other scales than nano behind it."""
    found = []
    for study in artifacts.studies(names):
        own = [name.partition("/")[2] for name in names if name.startswith(f"{study}/")]
        is_all = 1 < len(own) == sum(name.startswith(f"{study}/") for name in artifacts.names())
        found += [study, *([] if is_all else own if len(own) < 4 else [own[0], f"and-{len(own) - 1}-more"])]
    return "-".join([*found, *([] if scale == "nano" else [scale])])


def last_folder(first: Path) -> Path:
    """Find the last of the sweeps of the same experiments, which lie in `first`, then first-2, first-3 and so on."""
    return [folder for folder in _numbered(first) if folder == first or folder.exists()][-1]


def free_folder(first: Path) -> Path:
    """Say where the next sweep of the same experiments goes; an interrupted plan is completed."""
    from vlmreason.launch import directory

    last = last_folder(first)
    if not (last / "sweep.json").exists():
        return last
    try:
        is_taken = directory.read_sweep(last, complete=False).complete
    except ValueError:  # damaged; `in_sweeps` has said it
        is_taken = True
    return list(_numbered(first))[-1] if is_taken else last


def _numbered(first: Path) -> Iterator[Path]:
    """`first`, the directories after it, and the first one that is not there."""
    for number in itertools.count(1):
        folder = first if number == 1 else first.with_name(f"{first.name}-{number}")
        yield folder
        if not folder.exists():
            return


def price(configs: Sequence[dict[str, Any]], records: Sequence[Any]) -> Price:
    """Say what training runs of these configurations costs, by records of like ones."""
    return studies_price.price([(config, sum(steps(config).values())) for config in configs], records)


def price_of_missing(results: Iterable[Any], library: Library, extra: Mapping[str, Any]) -> Price | None:
    """Say what the runs cost that artifacts lack (vlmreason.studies.results.Result); None where they lack none."""
    lacking = [missing.set for result in results for missing in result.missing if missing.set and missing.run is None]
    configs = [library.compose({**settings, **extra}) for settings in lacking]
    different = {runs.config_hash(config): config for config in configs}
    return price(list(different.values()), library.records) if different else None


def show_progress(what: str, place: int, number: int) -> None:
    """Say where a long list stands, in one line of a terminal that the next word overwrites."""
    if number > 8 and sys.stderr.isatty():
        last = place + 1 == number
        text = "" if last else f"vlmreason: {what} {place + 1} of {number}"
        print(f"\033[K{text}", end="\r", flush=True, file=sys.stderr)


def clear_progress() -> None:
    """Make room for a line of its own."""
    if sys.stderr.isatty():
        print("\033[K", end="", flush=True, file=sys.stderr)


@dataclass(frozen=True)
class Plan:
    """A file of sweeps/plans: the product of each grid's values, one grid after the other."""

    command: Literal["train"]
    grids: tuple[dict[str, Any], ...]

    def jobs(self) -> Iterator[list[str]]:
        """Return the overrides of every job."""
        for grid in self.grids:
            lists = [value if isinstance(value, list) else [value] for value in grid.values()]
            for values in itertools.product(*lists):
                yield [f"{key}={compose.override_value(value)}" for key, value in zip(grid, values, strict=True)]


def read_plan(word: str) -> Plan:
    """Return a plan by its name or file. Raises ValueError."""
    from vlmreason.assembly import catalog
    from vlmreason.files import read_plain_yaml
    from vlmreason.structure import structure

    path = catalog.sweep_file("plan", word)
    data = read_plain_yaml(path, aliases=True)
    try:
        plan = structure(Plan, data)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    empty = [key for grid in plan.grids for key, value in grid.items() if value == []]
    if not plan.grids or empty:
        raise ValueError(f"{path}: {empty[0] if empty else 'grids'}: one value or more is expected")
    return plan


def varying(all_overrides: Sequence[Sequence[str]]) -> list[str]:
    """Return the settings in which jobs differ."""
    values: dict[str, set[str | None]] = {}
    tables = [dict(override.partition("=")[::2] for override in overrides) for overrides in all_overrides]
    for key in (key for table in tables for key in table):
        values[key] = {table.get(key) for table in tables}
    return [key for key, found in values.items() if len(found) > 1]


def steps(cfg: dict[str, Any]) -> dict[str, int]:
    """Return steps of each phase: of supervised ones those of the optimizer, of reinforcement its updates."""
    from vlmreason.assembly import build

    batch_size = build.build_scale(cfg).batch_size
    found = {
        name: -(-phase.num_examples // (sum(phase.captions.values()) or phase.batch_size or batch_size))
        for name, phase in build.build_supervision(cfg).phases.items()
    }
    if algorithm := cfg.get("algorithm", {}):
        phases = algorithms.algorithm_phases(
            algorithm["name"], "image", int(algorithm["updates"]), algorithm.get("text_first")
        )
        found |= {name: num for name, _, num in phases}
    return found
