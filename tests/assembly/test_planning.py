"""Configurations of an experiment's runs, composed fast and yet exactly those of the command."""

from collections.abc import Iterator
from typing import Any

import pytest
from hydra import initialize_config_dir

from vlmreason import places, runs
from vlmreason.assembly import compose, planning
from vlmreason.studies import artifacts


@pytest.fixture(autouse=True)
def hydra_is_ready() -> Iterator[None]:
    with initialize_config_dir(str(places.conf_dir()), version_base="1.3"):
        yield


@pytest.mark.parametrize(
    "settings",
    [
        {"task": "table_readout", "supervision": "mix_plus", "seed": 3},
        {"task": "table_readout", "supervision": "mix_plus", "scale": "paper", "model": "qwen2_5_vl_3b", "seed": 0},
        {"supervision": "align_mix_plus", "scale.num_examples": 6000, "scale.num_align": 500},
        {"supervision": "mix_plus", "supervision.phases.main.parts.hard.views": ["image"], "task.trace": "verbose"},
        {"supervision": "tw_mix", "supervision/phase@supervision.phases.main": "image_via_text_plus"},
        {"task": "table_readout", "task.nano.font": 8, "+task.wording.step": "{cell} {value} ", "seed": 1},
    ],
)
def test_the_fast_way_is_the_same(settings: dict[str, Any]) -> None:
    composer = compose.Composer()
    for seed in (settings.get("seed", 0), 7):
        wanted = settings | {"seed": seed}
        assert composer.config(wanted) == compose.freeze(compose.overrides(wanted), "train")


def test_settings_that_do_not_exist() -> None:
    with pytest.raises(ValueError, match="num_exampels"):
        compose.Composer().config({"scale.num_exampels": 3})


def test_what_only_one_of_two_runs_has() -> None:
    held = {"task": {"name": "a"}, "seed": 1, "old": 2}
    wanted = {"task": {"name": "a", "new": 3}, "seed": 1}
    assert runs.difference_of_common(held, wanted, {"seed": 1}) == ["task.new", "old"]
    assert runs.difference_of_common(held, wanted, {"task.new": 3}) is None
    assert runs.difference_of_common(held, wanted | {"seed": 2}, {}) is None
    assert runs.difference_of_common(held | {"algorithm": {"name": "ppo"}}, wanted, {}) is None
    assert runs.difference_of_common(held, wanted | {"group": {"name": "new"}}, {}) == ["task.new", "old", "group"]
    assert runs.difference_of_common(held, held | {"new": None}, {}) == [], "what is off changed nothing"
    assert runs.difference_of_common(held, held | {"new": None}, {"new": None}) is None
    assert runs.difference_of_common(held, held, {"seed": 1}) == []
    assert runs.difference_of_common(held | {"out": "x"}, held | {"out": "y"}, {}) == []


def test_further_settings_are_read_as_yaml() -> None:
    found = compose.typed(["b=3", "c=[x,y]", "d=word", "e=null"])
    assert found == {"b": 3, "c": ["x", "y"], "d": "word", "e": None}


def test_choosing() -> None:
    every = artifacts.chosen("glob(s2h/*)")
    assert every == [name for name in artifacts.names() if name.startswith("s2h/")] and len(every) > 0
    assert artifacts.chosen(["s2h/fig5", "glob(s2h/fig5)"]) == ["s2h/fig5"]


def test_progress_is_one_line_that_the_next_word_overwrites(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in range(3):
        planning.show_progress("drawing", place, 9)
    assert capsys.readouterr().err == "", "not where nobody looks"
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    for place in (0, 8):
        planning.show_progress("drawing", place, 9)
    planning.show_progress("drawing", 0, 8)
    assert capsys.readouterr().err == "\033[Kvlmreason: drawing 1 of 9\r\033[K\r", "and not for a few"
