"""Experiments as cubes: what is in a cell, which runs it needs, what is refused."""

from pathlib import Path
from typing import Any

import pytest
from support.studies import ARTIFACT, use_study, write_study

from vlmreason.structure import structure
from vlmreason.studies import artifacts, needs
from vlmreason.studies.experiment import Experiment
from vlmreason.studies.measures import follow_up, read_measure


def artifact(**changes: Any) -> Experiment:
    x = {**ARTIFACT["x"], "values": [10, 20], "paper_values": [100, 200]}
    return structure(Experiment, {**ARTIFACT, "seeds": [0, 1], "x": x, **changes})


def test_a_cell_joins_its_three_entries() -> None:
    cells = list(artifact().cells())
    assert [(c.panel, c.series, c.x) for c in cells] == [
        ("as image", "Mix", "10"), ("as image", "Mix", "20"), ("as image", "Image", "10"), ("as image", "Image", "20"),
        ("as text", "Mix", "10"), ("as text", "Mix", "20"),
    ]  # fmt: skip
    assert cells[1].set == {"task": "table_readout", "supervision": "mix", "scale.num_examples": 20}
    assert (cells[1].measure.level, cells[1].measure.view, cells[5].measure.view) == ("hard", "image", "text")
    assert [job["seed"] for job in cells[0].jobs()] == [0, 1]


def test_later_axes_win() -> None:
    cells = artifact(
        series=[{"label": "Mix", "set": {"task": "grid_navigation"}, "measure": {"level": "simple"}}]
    ).cells()
    assert {(c.set["task"], c.measure.level) for c in cells} == {("grid_navigation", "simple")}


def test_an_entry_is_at_its_places_of_another_axis_with_further_settings() -> None:
    x = {"label": "all examples", "values": [30, 40]}
    here = {"30": {"scale.num_examples": 30}}, {"40": {"scale.num_examples": 30}}
    series = [{"label": name, "set": {"supervision": name}, "at": at} for name, at in zip("ab", here, strict=True)]
    cells = list(artifact(x=x, series=series, paper=[]).cells())
    assert [(c.panel, c.series, c.x, c.set["scale.num_examples"]) for c in cells] == [
        ("as image", "a", "30", 30), ("as image", "b", "40", 30),
        ("as text", "a", "30", 30), ("as text", "b", "40", 30),
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"a: at=\['50'\]: labels of one other axis"):
        artifact(x=x, series=[{"label": "a", "at": {"50": {}}}], paper=[])


def test_no_run_is_needed_where_only_the_paper_has_a_number() -> None:
    series = [{"label": "Mix"}, {"label": "another model", "paper_only": True}]
    cells = artifact(series=series).cells()
    assert {cell.series for cell in cells if list(cell.jobs())} == {"Mix"}


def test_an_entry_may_have_fewer_seeds() -> None:
    series = [{"label": "Mix"}, {"label": "no claim", "seeds": [2, 0]}]
    found = artifact(seeds=[0, 1, 2], series=series, paper=[]).cells()
    assert {(cell.series, cell.seeds) for cell in found} == {("Mix", (0, 1, 2)), ("no claim", (0, 2))}
    for seeds in ([], [3]):
        with pytest.raises(ValueError, match=r"no claim: seeds=.*: one or more of \[0, 1, 2\] is expected"):
            artifact(seeds=[0, 1, 2], series=[{"label": "no claim", "seeds": seeds}], paper=[])


def test_a_number_of_the_paper_finds_its_place_at_another_scale() -> None:
    axis = artifact().x
    assert axis.place_of(200) == 1
    assert axis.place_of(10) == 0
    assert axis.place_of(300) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"series": [{"label": "A"}, {"label": "A"}]}, "series: one entry or more is expected, with different labels"),
        ({"seeds": []}, "seeds: one or more"),
        ({"paper": [{"value": 1, "place": "p", "series": "Mix", "panel": "nowhere"}]}, "paper: panel='nowhere'"),
        ({"paper": [{"value": 1, "place": "p", "series": "Mox", "panel": "as text"}]}, "paper: series='Mox'"),
        ({"paper": [{"value": 1, "place": "p", "series": "Mix", "panel": "as text", "x": 7}]}, "paper: x=7"),
        ({"measure": {"what": "gradients:alignment"}}, "draw=lines: what=gradients:alignment is drawn otherwise"),
        ({"draw": "curves"}, "draw=curves: what=accuracy is drawn otherwise"),
        ({"measure": {"what": "acuracy"}}, "measure.what=acuracy: allowed are accuracy"),
        ({"measure": {"levle": "hard"}}, "measure.levle: no such key"),
        ({"measure": {"what": "gradients:aligned"}}, "there are alignment"),
        ({"measure": {"what": "likelihood:action"}}, "there are thought, answer"),
        ({"measure": {"at": 0.5}}, "measure.at=0.5"),
        ({"measure": {"training": "curve", "along": "compute"}}, "draw=lines: what=accuracy is drawn otherwise"),
        ({"measure": {"training": "best", "what": "tokens"}}, "measure.training=best: of what=accuracy, part:NAME"),
        ({"draw": "curves", "measure": {"training": "curve"}}, "measure.along=examples: allowed are updates"),
        ({"measure": {"along": "env_steps"}}, "measure.along=env_steps: allowed are step"),
        ({"window": 4}, "window=4: 0 or an odd number from 5"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        artifact(**changes)


def test_an_artifact_goes_before_its_study() -> None:
    """In the settings of evaluations of another task."""
    asked = artifact(
        analyses={"evaluation": {"evaluation": "labels"}}, measure={"task": "digits"}, panels=[{}], paper=[]
    )
    found = {command for _, _, command in needs.asked(asked, {"evaluation": {"evaluation": "pictures"}})}
    assert found == {("evaluate", "task=digits", "evaluation=labels")}


def test_what_follows_training() -> None:
    assert follow_up(read_measure({}), {}) is None
    assert follow_up(read_measure({"what": "imported:MMMU"}), {}) is None
    assert follow_up(read_measure({"conversion": "force"}), {}) == (
        "evaluate", "evaluation.conversion=force", "evaluation.views=[image]",
    )  # fmt: skip
    assert follow_up(read_measure({"task": "grid_navigation"}), {}) == ("evaluate", "task=grid_navigation")
    others = {"evaluation": {"evaluation": "pictures"}}
    assert follow_up(read_measure({"task": "digits"}), others) == ("evaluate", "task=digits", "evaluation=pictures")
    others["evaluation:visual_pairs"] = {"evaluation": "pairs"}
    assert follow_up(read_measure({"task": "digits"}), others) == ("evaluate", "task=digits", "evaluation=pictures")
    pairs = read_measure({"task": "visual_pairs", "how": "choose"})
    assert follow_up(pairs, others) == ("evaluate", "task=visual_pairs", "evaluation=pairs", "evaluation.how=choose")
    one = {"evaluation:digits": {"evaluation.levels": ["all"]}, "condition": {"evaluation.num": 5}}
    assert follow_up(read_measure({"task": "digits"}), one) == ("evaluate", "task=digits", "evaluation.levels=[all]")
    assert follow_up(read_measure({"task": "things10"}), one) == ("evaluate", "task=things10")
    assert follow_up(read_measure({"conversion": "force"}), others) == (
        "evaluate", "evaluation.conversion=force", "evaluation.views=[image]",
    )  # fmt: skip
    assert follow_up(read_measure({"task": "grid_navigation"}), {}, own_task="grid_navigation") is None
    gradients = read_measure({"what": "gradients:cosine", "at": 0.5})
    assert follow_up(gradients, {"gradients": {"num": 8, "adam": False, "levels": ["simple", "hard"]}}) == (
        "analyze", "what=gradients", "num=8", "adam=false", "levels=[simple,hard]",
    )  # fmt: skip
    likelihood = read_measure({"what": "likelihood:unread"})
    assert likelihood.in_percent and not likelihood.is_curve
    assert follow_up(likelihood, {"likelihood": {"temperature": 0.5}}) == (
        "analyze", "what=likelihood", "temperature=0.5",
    )  # fmt: skip


@pytest.mark.parametrize("value", [True, 0.5, "text", [1]])
def test_settings_that_are_no_mapping_are_named(value: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_study(monkeypatch, write_study(tmp_path, fig1={**ARTIFACT, "set": value}))
    with pytest.raises(ValueError, match=r"fig1\.yaml: set=.*a mapping is expected"):
        artifacts.read_experiment("made_up/fig1", "nano")
