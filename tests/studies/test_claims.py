"""Claims over cells of experiments: how they are read, judged and shown."""

import functools
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.studies import make_record, make_training

from vlmreason.report.ledger import insert, ledger
from vlmreason.structure import structure
from vlmreason.studies import artifacts
from vlmreason.studies.claims import Claim, Verdict, check, judge, read_claims
from vlmreason.studies.experiment import Experiment
from vlmreason.studies.results import Found, Result, collect

PROBLEMS = 40
EXPERIMENT = structure(
    Experiment,
    {
        "title": "Made up", "place": "nowhere", "draw": "lines", "cost": {"nano": "", "paper": ""}, "expected": "",
        "seeds": [0, 1, 2], "measure": {"level": "hard", "view": "image"},
        "panels": [{"label": "Tables"}, {"label": "Grids", "set": {"task": "grids"}}],
        "series": [
            {"label": "Mix", "set": {"supervision": "mix"}},
            {"label": "Mix+", "set": {"supervision": "mix_plus"}},
            {"label": "Length", "set": {"supervision": "mix"}, "measure": {"what": "tokens"}},
            {"label": "Peak", "set": {"supervision": "mix"}, "measure": {"training": "best"}},
            {"label": "Length+", "set": {"supervision": "mix_plus"}, "measure": {"what": "tokens"}, "only": ["Tables"]},
        ],
        "x": {"label": "examples", "key": "scale.num_examples", "values": [10, 20], "paper_values": [300, 600]},
    },
)  # fmt: skip
CURVES = structure(
    Experiment,
    {
        "title": "Made up", "place": "nowhere", "draw": "curves", "cost": {"nano": "", "paper": ""}, "expected": "",
        "seeds": [0, 1, 2], "measure": {"what": "gradients:alignment", "along": "norm"},
        "series": [{"label": name, "set": {"supervision": name}} for name in ("mix", "mix_plus")],
    },
)  # fmt: skip
TRAINED = replace(
    CURVES,
    measure={"training": "curve", "level": "hard", "view": "image", "along": "env_steps"},
)


def marks(share: float, seed: int) -> str:
    """`share` of the problems right, not the same ones for every seed."""
    return "".join("01"[(7 * i + seed) % PROBLEMS < share * PROBLEMS] for i in range(PROBLEMS))


def result(
    shares: Mapping[str, float], seeds: tuple[int, ...] = (0, 1, 2), experiment: Experiment = EXPERIMENT
) -> Mapping[str, Result]:
    """Runs by supervision, as good as `shares` says, at all places; `name: tokens` is for what they write."""

    def find(settings: Mapping[str, Any]) -> Found | None:
        name, seed = settings["supervision"], settings["seed"]
        if name not in shares or seed not in seeds:
            return None
        record = make_record({("hard", "image"): marks(shares[name], seed)}, seed, run=f"{name}-{seed}")
        record.data["evaluations"][0]["cells"][0]["row"]["mean_tokens"] = shares.get(f"{name}: tokens", 20.0) + seed
        return Found(record)

    return {"made_up": collect("made_up", "nano", experiment, find)}


def curves(norms: Mapping[str, tuple[tuple[float, float], ...]]) -> Mapping[str, Result]:
    """Runs by supervision with their checkpoints: norm and alignment; the first is of a phase before."""

    def find(settings: Mapping[str, Any]) -> Found:
        def row(number: int, norm: float, score: float) -> dict[str, Any]:
            scores = {"alignment": score + 0.01 * settings["seed"], "cosine": 0, "adam": 0}
            losses = ("text_given_image", "solution_given_image_and_text", "solution_given_image")
            return {
                "checkpoint": "align" if number == 0 else f"main-{number}",
                "alignment": scores | {"simple": {"example_norm": norm}},
                "losses": {name: {"mean": 0} for name in losses},
            }

        rows = [row(number, *point) for number, point in enumerate(norms[settings["supervision"]])]
        return Found(make_record({}, analyses={"gradients": {"results": rows}}))

    return {"made_up": collect("made_up", "nano", CURVES, find)}


def trained(shares: Mapping[str, Sequence[float]]) -> Mapping[str, Result]:
    """Runs by supervision with their evaluations while training, after a phase that ends at 0.25."""

    def find(settings: Mapping[str, Any]) -> Found:
        return Found(make_record({}, training=make_training(shares[settings["supervision"]], before=2)))

    return {"made_up": collect("made_up", "nano", TRAINED, find)}


def claim(**keys: Any) -> Claim:
    """As it is written in the file: Mix+ above Mix, where `keys` do not say otherwise."""
    return read([{
        "left": {"series": "Mix+"}, "right": {"series": "Mix"}, "relation": "above",
        "at": {"panel": "Tables", "x": "last"}, **keys,
    }])[0]  # fmt: skip


def read(claims: list[dict[str, Any]], load: Any = None) -> tuple[Claim, ...]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "claims.yaml"
        shared = {"text": "Better", "place": "figure 1", "experiment": "made_up"}
        path.write_text(yaml.safe_dump([{"id": f"c{n}", **shared, **one} for n, one in enumerate(claims)]))
        return read_claims(path, load)


def bound(relation: str, value: float, series: str = "Mix") -> Claim:
    return read([{"left": {"panel": "Tables", "series": series, "x": 20}, "relation": relation, "bound": value}])[0]


@pytest.mark.parametrize(("mix", "mix_plus", "verdict"), [
    (0.1, 0.8, "holds"), (0.8, 0.1, "fails"), (0.45, 0.5, "not decided"), (0.5, 0.5, "not decided"),
])  # fmt: skip
def test_the_verdict_follows_the_runs(mix: float, mix_plus: float, verdict: str) -> None:
    found = judge(claim(), result({"mix": mix, "mix_plus": mix_plus}))
    assert found.verdict == verdict
    assert found.effect is not None and found.effect.mean == pytest.approx(100 * (mix_plus - mix))
    assert (found.effect.num_seeds, found.effect.num_problems) == (3, PROBLEMS)
    assert found.runs == tuple(f"{name}-{seed}" for name in ("mix_plus", "mix") for seed in range(3))


@pytest.mark.parametrize(("relation", "verdict"), [("above", "fails"), ("below", "holds"), ("within", "fails")])
def test_relations(relation: str, verdict: str) -> None:
    assert judge(claim(relation=relation, margin=5), result({"mix": 0.9, "mix_plus": 0.1})).verdict == verdict


def test_a_margin_moves_what_is_claimed() -> None:
    numbers = result({"mix": 0.2, "mix_plus": 0.7})
    assert [judge(claim(margin=margin), numbers).verdict for margin in (0, 50, 90)] == ["holds", "not decided", "fails"]
    assert judge(claim(margin=-90), result({"mix": 0.7, "mix_plus": 0.2})).verdict == "holds", "less than 90 behind"
    assert judge(claim(relation="within", margin=90), numbers).verdict == "holds"


@pytest.mark.parametrize(("relation", "value", "verdict"), [
    ("below", 60, "holds"), ("below", 30, "not decided"), ("below", 5, "fails"), ("above", 5, "holds"),
    ("above", 60, "fails"),
])  # fmt: skip
def test_bounds(relation: str, value: float, verdict: str) -> None:
    assert judge(bound(relation, value), result({"mix": 0.3})).verdict == verdict


def test_without_runs_there_is_no_verdict_but_what_is_missing() -> None:
    found = judge(claim(), result({"mix": 0.5}))
    assert (found.verdict, found.effect) == ("no runs", None)
    assert [gap.set["supervision"] for gap in found.missing] == ["mix_plus"] * 3
    partly = judge(claim(), result({"mix": 0.1, "mix_plus": 0.9}, seeds=(0, 1)))
    assert partly.verdict == "holds" and partly.effect is not None and partly.effect.num_seeds == 2
    assert len(partly.missing) == 2 and "| 2 of 3 x 40 |" in ledger([partly])[2]


def test_one_run_decides_only_where_no_more_are_planned() -> None:
    numbers = {"mix": 0.1, "mix_plus": 0.9}
    for one in (claim(), claim(relation="below"), bound("below", 60)):
        found = judge(one, result(numbers, seeds=(1,)))
        assert found.verdict == "not decided" and found.effect is not None and found.effect.ci_low is not None
        assert " to " in ledger([found])[2] and "| 1 of 3 x 40 |" in ledger([found])[2]
    alone = result(numbers, seeds=(1,), experiment=replace(EXPERIMENT, seeds=(1,)))
    assert judge(claim(), alone).verdict == "holds" and judge(claim(relation="below"), alone).verdict == "fails"


def test_all_contrasts_must_hold_or_any() -> None:
    grids = {"at": {"panel": "Grids", "x": 20}}
    several = [{}, {**grids, "left": {"series": "Mix"}, "right": {"series": "Mix+"}}]
    numbers = result({"mix": 0.2, "mix_plus": 0.8})
    assert [judge(claim(contrasts=several, hold=hold), numbers).verdict for hold in ("all", "any")] == [
        "fails",
        "holds",
    ]
    found = judge(claim(contrasts=[{}, grids, {"margin": 55}]), numbers)
    assert [judged.verdict for judged in found.contrasts] == ["holds", "holds", "not decided"]
    assert found.verdict == "not decided" and found.deciding is found.contrasts[2]
    half = [{}, {"left": {"series": "Length+"}, "right": {"series": "Length"}}]
    lacking = result({"mix": 0.2})
    assert judge(claim(contrasts=half), lacking).verdict == "no runs"


def test_ratios_of_numbers_per_run() -> None:
    length = {"left": {"series": "Length+"}, "right": {"series": "Length"}}
    long = result({"mix": 0.5, "mix_plus": 0.5, "mix_plus: tokens": 60})
    found = judge(claim(**length, ratio=2), long)
    assert found.verdict == "holds" and found.effect is not None and 2.6 < found.effect.mean < 3
    assert judge(claim(**length, ratio=4), long).verdict == "fails"
    assert judge(claim(**length, ratio=4, relation="within"), long).verdict == "holds"
    assert judge(claim(**length, ratio=1.2, relation="within"), long).verdict == "fails"
    assert "| 2.91 x (" in ledger([found])[2] and "| > 2 | 3 |" in ledger([found])[2]


RANKED = replace(EXPERIMENT, series=tuple(entry for entry in EXPERIMENT.series if not entry.measure))


def ranked(relation: str = "above", margin: float = 0.0) -> Claim:
    """Over two strategies at two places of the horizontal axis, tables and grids rise together."""
    sides = ({"panel": panel, "series": ["Mix", "Mix+"], "x": "all"} for panel in ("Tables", "Grids"))
    left, right = sides
    return claim(contrasts=[{"left": left, "right": right, "relation": relation, "margin": margin, "ranks": True}])


def of_tables_and_grids(shares: Mapping[tuple[str, str, int], float]) -> Mapping[str, Result]:
    """Runs by task, supervision and number of examples."""

    def find(settings: Mapping[str, Any]) -> Found:
        key = (settings.get("task", "tables"), settings["supervision"], settings["scale.num_examples"])
        seed = settings["seed"]
        return Found(make_record({("hard", "image"): marks(shares[key], seed)}, seed, run=f"{key}-{seed}"))

    return {"made_up": collect("made_up", "nano", RANKED, find)}


def test_ranks_say_whether_cells_rise_together() -> None:
    cells = [(name, num) for name in ("mix", "mix_plus") for num in (10, 20)]
    rising = {("tables", *cell): 0.2 * i + 0.1 for i, cell in enumerate(cells)}
    for grids, effect, verdict in (
        ((0.1, 0.2, 0.5, 0.9), 1.0, "holds"),
        ((0.9, 0.5, 0.2, 0.1), -1.0, "fails"),
        ((0.1, 0.3, 0.2, 0.9), 0.8, "holds"),
        ((0.5, 0.5, 0.5, 0.5), 0.0, "not decided"),  # of equal cells there is no rank
    ):
        falling = {("grids", *cell): share for cell, share in zip(cells, grids, strict=True)}
        found = judge(ranked(), of_tables_and_grids({**rising, **falling}))
        assert found.effect is not None and found.effect.mean == pytest.approx(effect)
        assert found.verdict == verdict
    stepped = {("grids", *cell): 0.5 if i else 0.1 for i, cell in enumerate(cells)}
    high = judge(ranked(margin=0.9), of_tables_and_grids({**rising, **stepped}))
    assert high.verdict == "fails" and high.effect is not None and high.effect.mean == pytest.approx(0.6**0.5)
    close = {(task, *cell): 0.1 + i / PROBLEMS for task in ("tables", "grids") for i, cell in enumerate(cells)}
    found = judge(ranked(), of_tables_and_grids(close))
    assert found.effect is not None and found.effect.ci_low is not None
    assert found.effect.mean == pytest.approx(1)
    assert found.effect.ci_low < 1, "problems are drawn, though all seeds agree"


def test_the_mean_over_several_cells() -> None:
    both = {"panel": ["Tables", "Grids"], "x": "all"}
    found = judge(claim(at=both), result({"mix": 0.2, "mix_plus": 0.6}))
    assert found.verdict == "holds" and found.effect is not None and found.effect.mean == pytest.approx(40)
    left, right = found.deciding.sides
    assert left and right and [left.mean, right.mean] == pytest.approx([60, 20])
    assert not found.missing and len(found.runs) == 6


def test_a_claim_of_another_scale_is_not_decided_at_this_one() -> None:
    elsewhere = claim(scale="paper", at={"panel": "Cubes", "x": 20})
    numbers = result({"mix": 0.1, "mix_plus": 0.9})
    assert judge(elsewhere, numbers).verdict == "not at this scale"
    with pytest.raises(ValueError, match="panel='Cubes'"):
        judge(replace(elsewhere, scale="nano"), numbers)


def test_cells_with_the_papers_number_alone_decide_nothing_at_this_scale() -> None:
    grids = replace(EXPERIMENT.panels[1], paper_only=True)
    numbers = result(
        {"mix": 0.1, "mix_plus": 0.9}, experiment=replace(EXPERIMENT, panels=(EXPERIMENT.panels[0], grids))
    )
    assert judge(claim(), numbers).verdict == "holds"
    at_grids = {"panel": "Grids", "x": 20}
    for own in (
        {"at": at_grids},
        {"at": {"panel": ["Tables", "Grids"], "x": 20}},
        {"contrasts": [{}, {"at": at_grids}]},
    ):
        found = judge(claim(**own), numbers)
        assert found.verdict == "not at this scale" and not found.missing
    either = claim(contrasts=[{}, {"at": at_grids}], hold="any")
    assert judge(either, numbers).verdict == "holds"
    lines = ledger([judge(claim(at=at_grids), numbers)])
    assert lines[2].endswith("| **not at this scale** |")
    assert "0 hold, 0 fail, 0 not decided, 0 without runs, 1 not at this scale." in lines


def test_numbers_of_curves_are_of_the_last_phase() -> None:
    numbers = curves({"mix": ((9, 9), (4, 0.1), (1, 0.7)), "mix_plus": ((9, -9), (4, 0.5), (1, 0.2))})
    left, right = {"series": "mix_plus"}, {"series": "mix"}

    def effect(of: str) -> Verdict:
        return judge(claim(at={}, left=left, right=right, of=of), numbers)

    means = {of: effect(of).effect for of in ("mean", "first", "last", "min", "max", "weighted")}
    expected = {"mean": -0.05, "first": 0.4, "last": -0.5, "min": 0.1, "max": -0.2, "weighted": 0.22}
    assert {of: found and pytest.approx(found.mean) for of, found in means.items()} == expected
    assert effect("first").verdict == "holds" and effect("last").verdict == "fails"


def test_a_gain_begins_where_the_last_phase_does() -> None:
    numbers = trained({"mix": (0.1, 0.4, 0.5), "mix_plus": (0.7, 0.6, 0.8)})
    sides = {"at": {}, "left": {"series": "mix_plus"}, "right": {"series": "mix"}}
    assert judge(claim(**sides, of="last"), numbers).verdict == "holds"
    gained = judge(claim(**sides, of="gain"), numbers)
    assert gained.effect is not None and gained.effect.mean == pytest.approx(10 - 40)
    assert gained.verdict == "fails"
    assert [side and side.mean for side in gained.deciding.sides] == pytest.approx([10, 40])
    assert judge(claim(**sides, of="gain"), trained({"mix": (0.1,), "mix_plus": (0.7, 0.8)})).verdict == "no runs"


def test_shares_along_training_are_not_taken_for_certain() -> None:
    numbers = trained({"mix": (0.2, 0.0), "mix_plus": (0.2, 0.0)})
    low = claim(at={}, left={"series": "mix"}, right=None, relation="below", bound=10, of="last")
    assert "| 0.00 (0.00 to 3.70) | < 10 | 3 | **holds** |" in ledger([judge(low, numbers)])[2]
    for of in ("last", "gain"):
        found = judge(claim(at={}, left={"series": "mix_plus"}, of=of, right={"series": "mix"}), numbers).effect
        assert found is not None and found.ci_low is not None and found.ci_low < -3


@pytest.mark.parametrize(("keys", "message"), [
    ({"left": {"series": "Mixx"}}, "series='Mixx': there are Mix, .*did you mean"),
    ({"at": {"panel": "Table", "x": 20}}, "panel='Table': there are Tables, Grids"),
    ({"at": {"x": 20}}, "panel: one of Tables, Grids is expected"),
    ({"at": {"panel": "Tables", "x": 30}}, "x='30': there are 10, 20"),
    ({"at": {"panel": "Grids", "x": 20}, "left": {"series": "Length+"}}, "no such cell"),
    ({"right": {"series": "Length"}}, "percentages are compared"),
    ({"right": {"series": "Peak"}}, "the peak of a curve is compared with an end"),
    ({"of": "mean"}, "of=mean"),
    ({"ratio": 2}, "ratio: a measure in percent"),
    ({"bound": 3}, "one of right and bound"),
    ({"ranks": True}, "ranks: left and right are as many cells, 3 or more"),
    ({"ranks": True, "margin": 1}, "ranks: left, right and a margin between"),
    ({"relation": "within"}, "relation=within: a margin"),
    ({"relation": "over"}, "contrasts\\[0\\].relation='over': allowed are above"),
    ({"left": "text"}, "left='text': a mapping is expected"),
    ({"at": "text"}, "at: a mapping of labels"),
    ({"left": None}, "left"),
    ({"leftt": {}}, "leftt: no such key"),
    ({"contrasts": []}, "contrasts: one or more"),
])  # fmt: skip
def test_faults_are_named_when_the_file_is_read(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"claims.yaml, c0: .*{message}"):
        read([{
            "left": {"series": "Mix+"}, "right": {"series": "Mix"}, "relation": "above",
            "at": {"panel": "Tables", "x": "last"}, **keys,
        }], lambda name: EXPERIMENT)  # fmt: skip


def test_ids_are_unique() -> None:
    one = {"id": "same", "left": {"panel": "Tables", "series": "Mix", "x": 300}, "relation": "below", "bound": 5}
    with pytest.raises(ValueError, match="same: there are two"):
        read([one, one], lambda name: EXPERIMENT)


def test_the_papers_value_finds_its_place_at_this_scale() -> None:
    by_paper = read([{"left": {"panel": "Tables", "series": "Mix", "x": 600}, "relation": "below", "bound": 60}])[0]
    assert judge(by_paper, result({"mix": 0.3})).effect == judge(bound("below", 60), result({"mix": 0.3})).effect


def test_the_ledger_shows_effect_size_verdict_and_what_was_tried() -> None:
    numbers = result({"mix": 0.1, "mix_plus": 0.8})
    failing = claim(relation="below", tried="twice the examples")
    lines = ledger([judge(claim(), numbers), judge(failing, numbers), judge(bound("below", 60), result({}))])
    assert lines[2].startswith("| Better | fig. 1 | +70.0 (+") and lines[2].endswith("| > 0 | 3 x 40 | **holds** |")
    assert lines[3].endswith("| < 0 | 3 x 40 | **fails** |")
    assert lines[4].endswith("| - | < 60 | - | **no runs** |")
    assert "1 hold, 1 fail, 0 not decided, 1 without runs." in lines
    assert "- Better: twice the examples" in lines
    assert "twice" not in "".join(ledger([judge(replace(claim(), tried="twice"), numbers)])), "it holds"


def test_the_ledger_between_its_markers() -> None:
    text = "# Title\n<!-- ledger s2h -->\nold\n<!-- end of ledger -->\nrest\n"
    assert insert(text, "s2h", ["new"]) == "# Title\n<!-- ledger s2h -->\nnew\n<!-- end of ledger -->\nrest\n"
    assert insert(insert(text, "s2h", ["a"]), "s2h", ["new"]) == insert(text, "s2h", ["new"])
    with pytest.raises(ValueError, match="expected in the text"):
        insert("# Title\n", "s2h", ["new"])


@pytest.mark.parametrize("study", ["s2h", "rl4vlm", "sft_vs_rl", "beyond", "avr", "emt", "mmvp", "compositional"])
@pytest.mark.parametrize("scale", ["nano", "paper"])
def test_claims_of_the_studies_name_cells_that_exist(scale: str, study: str) -> None:
    load = functools.cache(lambda name: artifacts.read_experiment(name, scale))
    claims = read_claims(artifacts.folder() / study / "claims.yaml", load, scale)
    for one in claims:
        assert one.experiment in artifacts.names()
        assert len(one.text) <= 110 and len(one.place) <= 30, f"{one.id}: too long for a line of the ledger"


def test_a_claim_of_the_study_with_a_wrong_label_is_refused() -> None:
    first = read_claims(artifacts.folder() / "s2h" / "claims.yaml")[0]
    wrong = replace(first, contrasts=(replace(first.contrasts[0], left=replace(first.contrasts[0].left, series="?")),))
    with pytest.raises(ValueError, match="series='\\?': there are"):
        check(wrong, artifacts.read_experiment(first.experiment, "nano"))
