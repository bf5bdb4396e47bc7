"""The shipped experiments: that each is there, can be run at both scales, and names commands that are accepted."""

import dataclasses
import functools
import itertools
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from support.program import Done, runner
from support.sampled import READ_FROM_FILES
from support.tiny import nano_task

from vlmreason import places, runs
from vlmreason.assembly import algorithms, build, catalog, compose, errors, planning
from vlmreason.commands.train import Settings
from vlmreason.data.mixture import mixtures
from vlmreason.report.figures import draw
from vlmreason.report.writing import markdown
from vlmreason.studies import artifacts, library, needs, results
from vlmreason.studies.experiment import Cell, Experiment, PaperNumber

FIGURES = (*range(3, 10), *range(13, 32))
TABLES = (*range(5, 9), 10, 11, 12, 13, 14)
OTHERS = {
    "smart101": "table1 table2 table3 table4 beyond_qf beyond_asked beyond_budget beyond_inputs",
    "rl4vlm": "fig4_5 fig4_6 fig4_7 fig_c11 fig_c12 table4_1 table4_2 table4_3 table_c1 "
    + "table4_2_alfworld table4_3_alfworld",
    "sft_vs_rl": "arms fig5_1 fig5_5 fig5_6 fig5_7 fig5_7_bars fig5_8 fig5_9 fig5_10 "
    + "fig_d5 fig_d6 fig_d7 fig_d8 fig_d9",
    "compositional": "beyond_what_pays fig3 fig4 fig5 fig7 prompts shapes sizes table2 transfer",
    "avr": "condition context_blind elicitation grpo held_out irregular old_skills stages text_panels",
    "emt": "table_a1 table_a2 table_a4 table_a9_linear table_a9_lora beyond_categories beyond_collapse beyond_remedies "
    + "beyond_studies_meet beyond_clip_halves beyond_replay beyond_rows fig2_2",
    "mmvp": "beyond_blind_pairs beyond_controls beyond_patterns beyond_towers "
    + "fig3_4 table3_1 table3_2 table3_3 table_b2 table_b3 table_b4",
    "beyond": "credit curriculum length_alone matching restores rl_closes_the_gap self_training turn_groups wordings",
}
SCALES = ("nano", "paper")
ARTIFACTS = [*artifacts.names()]

read = functools.cache(artifacts.read_experiment)


@functools.cache
def levels(task: str) -> tuple[str, ...]:
    """Of a task or an environment by the name of its file, where nothing is held out."""
    if task in catalog.groups()["env"]:
        return build.build_task(compose.Composer().config({"env": task})).levels
    return nano_task(task).levels


def levels_beside(task: str, settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Of a task that holds out what the settings say; none where they say nothing."""
    if (pairs := settings.get("task.held_out")) is None:
        return ()
    return build.build_task(compose.Composer().config({"task": task, "task.held_out": pairs})).levels


def task_of(cell: Cell) -> str:
    """What a run is evaluated on: its environment, else its task."""
    return cell.measure.task or cell.set.get("env") or cell.set["task"]


@functools.cache
def views(task: str) -> tuple[str, ...]:
    """In which a run is evaluated: of an environment its own alone."""
    if task not in catalog.groups()["env"]:
        return ("text", "image")
    return (hydra_compose("train", [f"env={task}"]).env.view,)


@pytest.fixture
def composing() -> Iterator[None]:
    with initialize_config_dir(str(places.conf_dir()), version_base="1.3"):
        yield


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Done]:
    monkeypatch.chdir(tmp_path)
    return runner(monkeypatch, capsys)


def header(name: str) -> list[str]:
    """Comment lines at the head of an experiment's file."""
    lines = (artifacts.folder() / f"{name}.yaml").read_text().splitlines()
    return list(itertools.takewhile(lambda line: line.startswith("#"), lines))


def commands(name: str) -> list[list[str]]:
    """Words of the commands in the header, without the program's name."""
    found = (re.search(r"\bvlmreason (.*)", line) for line in header(name))
    return [shlex.split(match.group(1)) for match in found if match]


def test_every_artifact_of_the_paper_is_there() -> None:
    expected = {f"s2h/fig{n}" for n in FIGURES} | {f"s2h/table{n}" for n in (*TABLES, 9)}
    assert expected <= set(ARTIFACTS)
    for study, names in OTHERS.items():
        assert set(names.split()) == {name.partition("/")[2] for name in ARTIFACTS if name.startswith(f"{study}/")}
    for path in artifacts.folder().glob("*/"):
        files = {file.stem for file in path.glob("*.yaml")}
        assert {*artifacts.NOT_ARTIFACTS} <= files


@pytest.mark.parametrize("name", ARTIFACTS)
def test_header_says_what_it_is_and_how_it_is_made(name: str) -> None:
    lines = header(name)
    number = re.fullmatch(r"\w+/(fig|table)_?([a-z]?)(\d+)(?:_(\d+))?(?:_\w+)?", name)  # fig5, fig4_7, fig_c11
    first: tuple[str, ...] = ("# Beyond", "# Section", "# Ablations")
    if number:
        kind, letter, *digits = number.groups()
        place = ".".join(filter(None, (letter.upper(), *digits)))
        first = (f"# {'Figure' if kind == 'fig' else 'Table'} {place} (",)
    assert lines[0].startswith(first)
    for start, command in (("# Runs:   ", "sweep"), ("# Figure: ", "figure")):
        [line] = [line for line in lines if line.startswith(start)]
        assert line.removeprefix(start).startswith(f"vlmreason {command} experiment={name}")
    named = {word.partition("=")[2] for words in commands(name) for word in words if word.startswith("experiment=")}
    assert named == {name}


def test_commands_of_the_headers_are_accepted(program: Callable[..., Done]) -> None:
    """Those that differ in more than the experiment's name compose; all name settings that there are."""
    tried: set[str] = set()
    for name in ARTIFACTS:
        for words in commands(name):
            errors.check_words(words[0], words[1:])
            kind = " ".join(word for word in words if not word.startswith("experiment="))
            if kind not in tried:
                tried.add(kind)
                done = program(*words, "--cfg", "job")
                assert (done.code, done.err) == (0, ""), words
    assert len(tried) > 10


@pytest.mark.slow
def test_every_run_can_be_made(composing: None) -> None:
    """Composed and checked as a sweep does it, with the data of every phase.

    Of runs that differ in seed, size or task alone, which takes long in all, the first; of the others the levels.
    """
    composer, tried = compose.Composer(), {}
    for name, scale in itertools.product(ARTIFACTS, SCALES):
        experiment = read(name, scale)
        assert experiment.cost.nano and experiment.cost.paper and experiment.expected
        for settings, _ in needs.needed(name, scale):
            key = repr(
                sorted(item for item in settings.items() if item[0] not in ("scale.num_examples", "seed", "task"))
            )
            task = settings.get("env") or settings["task"]
            if key in tried:
                supervision = tried[key]
                known = {one: levels(one) for one in supervision.task_names(task)}
                if beside := levels_beside(task, settings):
                    known[task] = beside
                supervision.check_levels(task, known)
                continue
            if task in READ_FROM_FILES:
                continue  # its problems are files of the user's
            cfg = composer.config(settings)
            build.settings(Settings, cfg)
            build.build_tasks(cfg)
            for part in (build.build_optimizer, build.build_trainer, build.build_evaluation, build.build_adapter):
                part(cfg)
            check_algorithm(cfg)
            supervision = tried[key] = build.build_supervision(cfg)
            made = mixtures(supervision, task, cfg["seed"])
            assert sum(map(len, made.values())) == supervision.num_examples
    assert len(tried) > 80


def asks_for(name: str, scale: str, cell: Cell) -> bool:
    """Whether the evaluation that makes a measure is of its level and view, where it says of which it is."""
    analyses = artifacts.read_study(name.partition("/")[0]).scales[scale].analyses
    command = read(name, scale).follow_up(cell, analyses)
    if command is not None and command[0] == "evaluate":
        given = dict(word.split("=", 1) for word in command[1:])
        asked = {
            key: given[key].strip("[]").split(",") for key in given if key in ("evaluation.levels", "evaluation.views")
        }
    else:
        asked = {key: cell.set[key] for key in ("evaluation.levels", "evaluation.views") if cell.set.get(key)}
    wanted = {"evaluation.levels": cell.measure.level, "evaluation.views": cell.measure.view}
    return all(wanted[key] in asked[key] for key in asked)


def check_algorithm(cfg: dict[str, Any]) -> None:
    """Its settings are those of an algorithm, its levels the task's."""
    if "algorithm" in cfg:
        algorithms.build_algorithm(cfg)
        assert set(cfg["algorithm"]["levels"] or ()) <= set(build.build_task(cfg).levels)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", ARTIFACTS)
def test_what_is_measured_is_there_to_be_measured(composing: None, name: str, scale: str) -> None:
    """Levels are the task's, failures are counted for such a task, gradients have snapshots, curves evaluations."""
    for cell in read(name, scale).cells():
        if cell.measure.source == "imported" or not cell.seeds:
            continue
        task = task_of(cell)
        if cell.measure.source == "gradients":
            assert cell.set["trainer.snapshots"] >= 4
        else:
            assert cell.measure.level in levels(task) or cell.measure.level in levels_beside(task, cell.set)
        if cell.measure.source in ("evaluation", "failures", "training"):
            assert cell.measure.view in views(task)
            assert asks_for(name, scale, cell)
        if cell.measure.source == "training":
            assert cell.set.get("algorithm") or cell.set.get("trainer.evaluate_every")
            assert cell.measure.along.partition("@")[2] in ("", *levels(task))


@pytest.mark.parametrize("name", ARTIFACTS)
def test_numbers_of_the_paper_belong_to_cells(name: str) -> None:
    experiment = read(name, "paper")
    cells = {(cell.panel, cell.series, cell.x) for cell in experiment.cells()}
    seen = [cell_of(experiment, number) for number in experiment.paper]
    assert set(seen) <= cells
    assert len(set(seen)) == len(seen)  # one number each
    here = read(name, "nano")
    places = {(cell.panel, cell.series, cell.x): cell for cell in here.cells()}
    for number in here.paper:
        if number.x is None or here.x.place_of(number.x) is not None:
            assert cell_of(here, number) in places


def cell_of(experiment: Experiment, number: PaperNumber) -> tuple[str, str, str]:
    places = experiment.x.places()
    place = experiment.x.place_of(number.x) if number.x is not None else 0
    assert place is not None and (number.x is not None or len(places) == 1), number
    return number.panel, number.series, places[place].label


def test_places_of_the_paper_mean_the_same_at_both_scales() -> None:
    """Where both scales have places by numbers, the one of a paper's number grows with it."""
    for name in ARTIFACTS:
        axis = read(name, "nano").x
        if axis.paper_values:
            known = [axis.place_of(value) for value in sorted(axis.paper_values)]
            assert [place for place in known if place is not None] == list(range(len(axis.places()))), name


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", ARTIFACTS)
def test_without_runs_everything_is_listed_as_missing(name: str, scale: str) -> None:
    experiment = read(name, scale)
    result = results.collect(name, scale, experiment, lambda settings: None)
    wanted = [cell for cell in result.cells if cell.cell.seeds]
    assert all(cell.estimate is None and not cell.curves and cell.missing for cell in wanted)
    assert not any(cell.missing for cell in result.cells if not cell.cell.seeds)
    runs = {repr(sorted(m.set.items(), key=str)) for m in result.missing if m.set}
    assert len(runs) == len(needs.needed(name, scale))
    text = markdown(result)
    assert text.count("- Missing: ") == len(result.missing)
    assert text.count("- The paper: ") == len(experiment.paper)


def test_figure_lists_what_is_missing(program: Callable[..., Done], tmp_path: Path) -> None:
    names = "experiment=[s2h/fig23,s2h/table5,s2h/table9]"
    done = program("figure", names, f"runs={tmp_path / 'none'}", f"out={tmp_path}", "set=['scale.num_problems=7']")
    assert done.code == 0
    *_, fig23, table5, table9, price, _ = done.out.splitlines()
    assert price.startswith("15 runs missing, about ")
    assert "15: vlmreason sweep experiment=s2h/fig23" in fig23
    assert "missing" not in table5
    assert "| - |" in (tmp_path / "s2h" / "table5.md").read_text()
    assert "MMMU" in (tmp_path / "s2h" / "table9.md").read_text()
    assert table9 == "s2h/table9: 0 runs; 45 numbers are not in table9.csv yet"


@pytest.mark.slow
def test_ablations_share_the_runs_of_the_main_figures(composing: None) -> None:
    """Settings that are the default's are not another run: else the main figures' runs would be made again."""
    composer, seen = compose.Composer(), {}

    def digest(settings: dict[str, Any]) -> str:
        key = repr(sorted(settings.items()))
        if key not in seen:
            seen[key] = runs.config_hash(composer.config(settings))
        return seen[key]

    def hashes(name: str, **chosen: Any) -> set[str]:
        """Of the runs with seed 0."""
        cells = [c for c in read(name, "nano").cells() if all(c.set.get(k) == v for k, v in chosen.items())]
        return {digest(next(cell.jobs())) for cell in cells if cell.seeds}

    tables = hashes("s2h/fig5", task="table_readout")
    assert hashes("s2h/fig15", task="table_readout") < tables
    assert hashes("s2h/fig9") < tables
    for name, num in (("fig27", 2), ("fig23", 2), ("table11", 1), ("fig22", 1), ("fig28", 2), ("fig30", 3)):
        assert len(hashes(f"s2h/{name}") & tables) == num, name
    assert hashes("s2h/fig14") == hashes("s2h/fig3")
    assert len(hashes("s2h/fig4") & hashes("s2h/fig3")) == 1


@pytest.mark.slow
def test_curves_and_tables_share_runs(composing: None) -> None:
    """Of reinforcement learning: what another artifact's header says it has is there."""
    composer = compose.Composer()

    def hashes(name: str) -> set[str]:
        needed = needs.needed(name, "nano")
        return {runs.config_hash(composer.config(settings)) for settings, _ in needed if settings["seed"] == 0}

    card_games, rules = hashes("rl4vlm/fig_c11"), hashes("sft_vs_rl/fig5_5")
    assert hashes("rl4vlm/fig4_5") < card_games < hashes("rl4vlm/table4_2") == hashes("rl4vlm/table_c1")
    assert hashes("rl4vlm/table4_1") < hashes("rl4vlm/table4_2")
    assert len(hashes("rl4vlm/fig4_7") & card_games) == 1
    assert len(hashes("rl4vlm/fig4_6") & card_games) == 3
    assert rules < hashes("sft_vs_rl/fig5_6")
    for name in ("fig5_1", "fig5_7", "fig5_8", "fig_d8"):
        assert hashes(f"sft_vs_rl/{name}") < rules, name
    for name in ("fig5_9", "fig5_10", "fig_d5", "fig_d6", "fig_d7", "fig_d9"):
        assert len(hashes(f"sft_vs_rl/{name}") & rules) == 1, name
    assert len(hashes("beyond/rl_closes_the_gap") & hashes("s2h/fig5")) == 2


def test_floors_are_counted_without_any_run(tmp_path: Path) -> None:
    """Of the problems that runs would be asked, at the sizes of these; a name that a task does not know is refused."""
    with initialize_config_dir(str(places.conf_dir()), version_base="1.3"):
        found = planning.open_library("nano", ["compositional"], tmp_path)
        settings = ["scale.num_problems=40", "task.nano.num_shapes=[2,2]"]
        two = library.collect("compositional/fig5", "nano", found, compose.typed(settings))
        cell = two.cell("text", "any shape", "")
        assert cell and cell.estimate and (cell.estimate.mean, cell.estimate.num_problems) == (1.0, 40)
        assert not cell.missing and not cell.runs and not two.num_runs
        four = found.floor({**cell.cell.set, "task.nano.num_shapes": [4, 4]}, cell.cell.measure)
        assert 1 / 3 <= sum(four) / len(four) < 0.5
        with pytest.raises(ValueError, match=r"floor:rndom: of level nearest_sum of shape_grid are known: random"):
            found.floor(cell.cell.set, dataclasses.replace(cell.cell.measure, what="floor:rndom"))
    assert draw._shown(two) == "Nothing is there yet."
