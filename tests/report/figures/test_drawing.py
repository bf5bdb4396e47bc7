"""Pictures of results: what is on their axes, what is said of missing runs, and that they are always the same."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text
from scipy import stats
from scipy.signal import savgol_filter
from support.studies import make_record, make_training
from support.tiny import nano_task

from vlmreason.report.figures.draw import compose, draw
from vlmreason.report.figures.layout import spaced, text_width, wrapped
from vlmreason.report.figures.pixels import RED
from vlmreason.report.figures.style import place_labels
from vlmreason.structure import structure
from vlmreason.studies.estimates import Sample, estimate
from vlmreason.studies.experiment import Axis, Entry, Experiment
from vlmreason.studies.readings import Curve
from vlmreason.studies.records import Record
from vlmreason.studies.results import CellResult, Found, Missing, Result, collect

STYLES = {"Mix": ("#1f77b4", "o"), "Mix+": ("#17becf", "s"), "Text": ("#7f7f7f", "*")}
SIZES = {"label": "examples", "key": "scale.num_examples", "values": [10, 20, 40], "paper_values": [100, 200, 400]}
SERIES = [{"label": "Text", "style": "reference"}, {"label": "Mix"}, {"label": "Mix+"}, {"label": "Other"}]
PANELS = [{"label": "Tables"}, {"label": "Grids"}]
KINDS = ("lines", "bars", "curves", "points", "table", "pixels")

Values = Mapping[tuple[str, str, str], Sequence[float]]
"""Of (panel, series, place), one value per seed: shares of 50 problems."""


def made(kind: str, values: Values, marks: tuple[str, ...] = (), notes: Sequence[str] = (), **changes: Any) -> Result:
    """A result of three seeds; cells that `values` lacks are missing."""
    data: dict[str, Any] = {
        "title": "A figure", "place": "figure 5, section 4", "draw": kind, "cost": {"nano": "", "paper": ""},
        "expected": "Mix+ is best.", "seeds": [0, 1, 2], "measure": {"level": "hard", "view": "image"},
        "panels": PANELS, "series": SERIES, **changes,
    }  # fmt: skip
    experiment = structure(Experiment, data)
    cells = []
    for cell in experiment.cells():
        found = values.get((cell.panel, cell.series, cell.x), ())
        missing = tuple(Missing({**cell.set, "seed": seed}, None, "no run") for seed in cell.seeds[len(found) :])
        runs = tuple(f"{cell.panel}-{cell.series}-{cell.x}-{seed}" for seed in range(len(found)))
        if cell.measure.is_curve:
            curves = tuple(
                Curve(
                    run,
                    seed,
                    tuple(1.0 + n + seed * (cell.measure.along == "norm") for n in range(5)),
                    tuple(value * 2**-n for n in range(5)),
                )
                for seed, (run, value) in enumerate(zip(runs, found, strict=True))
            )
            cells.append(CellResult(cell, None, (), curves, runs, missing, marks if runs else ()))
            continue
        by_problem = cell.measure.what == "accuracy"
        samples = tuple(
            Sample(seed, tuple(float(n < round(share * 50)) for n in range(50)) if by_problem else (share,), by_problem)
            for seed, share in enumerate(found)
        )
        cells.append(CellResult(cell, estimate(samples), samples, (), runs, missing, marks if runs else ()))
    return Result("made_up/fig", "nano", experiment, tuple(cells), tuple(notes))


def every(result_of: str, x: Sequence[str], series: Sequence[str] = ("Text", "Mix", "Mix+", "Other")) -> Values:
    """Three seeds for every cell of both panels (`result_of`: what to leave out, as "Grids/Mix+/20")."""
    found = {}
    for panel in ("Tables", "Grids"):
        for number, label in enumerate(series):
            for step, place in enumerate(x):
                if f"{panel}/{label}/{place}" != result_of:
                    found[(panel, label, place)] = [0.1 + 0.2 * number + 0.04 * (seed + step) for seed in range(3)]
    return found


def drawn(result: Result, **more: Any) -> Figure:
    """The composed figure, laid out."""
    figure = compose(result, STYLES, **more)
    figure.draw_without_rendering()
    return figure


def words(figure: Figure | Axes) -> str:
    """Everything that is written in a figure or on its axes."""
    return "\n".join(text.get_text() for text in figure.findobj(Text) if text.get_visible())


def labelled(axes: Axes, label: str) -> list[Any]:
    return [line for line in axes.lines if line.get_label() == label]


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()] if figure.legends else []


def marked(axes: Axes, colour: str, marker: str) -> Any:
    """The line of a series by its looks."""
    (found,) = [
        line for line in axes.lines
        if (line.get_color(), line.get_marker(), line.get_markerfacecolor()) == (colour, marker, colour)
    ]  # fmt: skip
    return found


X3 = ("10", "20", "40")


def test_lines_stand_at_their_places_in_percent_with_intervals() -> None:
    figure = drawn(made("lines", every("", X3), x=SIZES, share_y=True))
    tables, grids = figure.axes
    assert (tables.get_title(), grids.get_title()) == ("Tables", "Grids")
    line = marked(tables, *STYLES["Mix+"])
    assert line.get_ydata() == pytest.approx([54, 58, 62])
    assert np.diff(line.get_xdata()) == pytest.approx([1, 1]), "factors of 2 are one unit"
    assert len(tables.collections) >= 3 + 1, "intervals of three series and the band of the reference"
    assert [text.get_text() for text in tables.get_xticklabels()] == ["10", "20", "40"], "no number of the paper"
    assert tables.get_ylim() == grids.get_ylim() and max(tables.get_yticks()) == 100
    assert tables.get_ylabel() == "hard image: accuracy (%)" and grids.get_ylabel() == ""
    (reference,) = [line for line in tables.lines if line.is_dashed()]
    assert reference.get_ydata() == pytest.approx([14, 18, 22]) and to_hex(reference.get_color()) == "#7d7d7d"
    assert legend(figure) == ["Text", "Mix", "Mix+", "Other"]
    colours = {line.get_color() for line in tables.lines}
    assert len(colours) == 4, "a series without a style of its own has a colour that no other has"
    assert "72 runs: mean with 95 % interval over 3 seeds and 50 problems." in words(figure)
    assert "Figure 5, section 4" in words(figure) and "nano: built-in model" in words(figure)


def test_numbers_of_the_paper_are_hollow_at_their_places() -> None:
    paper = [
        {"panel": "Tables", "series": "Mix+", "x": 400, "value": 76, "place": "section 4"},
        {"panel": "Grids", "series": "Mix", "x": 200, "value": 9, "place": "section 4"},
    ]
    figure = drawn(made("lines", every("", X3), x=SIZES, paper=paper))
    (number,) = labelled(figure.axes[0], "paper")
    assert list(number.get_ydata()) == [76]
    assert number.get_xdata()[0] == pytest.approx(marked(figure.axes[0], *STYLES["Mix+"]).get_xdata()[2])
    assert number.get_markerfacecolor() == "none" and number.get_markeredgecolor() == STYLES["Mix+"][0]
    assert legend(figure).count("paper") == 1
    assert figure.axes[0].get_xticklabels()[2].get_text() == "40\n[400]"
    assert "[in the paper]" in figure.axes[0].get_xlabel()


def test_a_number_without_a_place_at_this_scale_is_told() -> None:
    paper = [{"panel": "Tables", "series": "Mix+", "x": 400, "value": 76, "place": "section 4"}]
    figure = drawn(made("lines", every("", X3[:2]), x={**SIZES, "values": [10, 20]}, paper=paper))
    assert not labelled(figure.axes[0], "paper")
    assert "Numbers of the paper without a place here: Tables, Mix+, 400: 76." in words(figure)


def test_a_missing_place_interrupts_its_line_and_is_named() -> None:
    figure = drawn(made("lines", every("Tables/Mix+/20", X3), x=SIZES))
    tables, grids = figure.axes
    assert np.isnan(marked(tables, *STYLES["Mix+"]).get_ydata()).tolist() == [False, True, False]
    (cross,) = labelled(tables, "missing")
    assert cross.get_color() == STYLES["Mix+"][0] and cross.get_ydata()[0] < 0
    assert tables.get_ylim()[0] < cross.get_ydata()[0] and not labelled(grids, "missing")
    assert "missing" in legend(figure) and "Missing: Tables, Mix+ at 20." in words(figure)


def test_places_that_a_series_has_not_are_no_gap_in_its_line() -> None:
    series = [{"label": "Mix", "at": {"10": {}, "40": {}}}, {"label": "Mix+"}]
    figure = drawn(made("lines", every("", X3), x=SIZES, series=series))
    line = marked(figure.axes[0], *STYLES["Mix"])
    assert list(line.get_ydata()) == pytest.approx([34, 42]) and np.ptp(line.get_xdata()) == pytest.approx(2)
    assert "missing" not in words(figure).lower()


def test_one_seed_says_what_its_interval_is_worth() -> None:
    figure = drawn(made("lines", {("Tables", "Mix", "10"): [0.4]}, x=SIZES))
    assert "1 run: mean with 95 % interval over 50 problems; one seed" in words(figure)
    assert "Runs that are there, 1 of 3: Tables, Mix at 10." in words(figure)
    assert "Missing: all of Grids;" in words(figure) and "missing" in words(figure.axes[1])


def test_series_with_one_place_stand_side_by_side() -> None:
    figure = drawn(made("lines", every("", ("",))))
    at = [marked(figure.axes[0], *STYLES[name]).get_xdata()[0] for name in ("Mix", "Mix+")]
    assert at[1] - at[0] > 0.2
    (reference,) = [line for line in figure.axes[0].lines if line.is_dashed()]
    assert reference.get_xdata()[0] < -1 and reference.get_xdata()[-1] > 1, "across the panel"


def test_places_that_grow_by_factors_are_spaced_by_their_logarithm() -> None:
    assert spaced(Axis(key="k", values=(1, 2, 8))) == pytest.approx([0, 2 / 3, 2])
    assert spaced(Axis(key="k", values=(0, 2, 8))) == [0, 1, 2]
    assert spaced(Axis(key="k", values=(10, 20, 30))) == [0, 1, 2]
    assert spaced(Axis(key="k", values=("a", "b", "c"))) == [0, 1, 2]
    assert spaced(Axis(entries=(Entry("one"), Entry("two")))) == [0, 1]
    assert place_labels(Axis(key="k", values=(3000, 6500)), with_paper=False) == ["3k", "6.5k"]


def test_bars_are_grouped_by_place_with_values_and_diamonds() -> None:
    paper = [{"panel": "Tables", "series": "Mix", "x": 100, "value": 64, "place": "section 4"}]
    figure = drawn(made("bars", every("Tables/Mix+/20", X3), x=SIZES, paper=paper))
    axes = figure.axes[0]
    mix = [bar for bar in axes.patches if to_hex(bar.get_facecolor()) == STYLES["Mix"][0]]
    assert [bar.get_height() for bar in mix] == pytest.approx([34, 38, 42])
    assert np.diff([bar.get_x() for bar in mix]) == pytest.approx([1, 1])
    assert {"34.0", "38.0", "42.0"} <= {text.get_text() for text in axes.texts}
    (diamond,) = labelled(axes, "paper")
    middle = mix[0].get_x() + mix[0].get_width() / 2
    assert (diamond.get_xdata()[0], diamond.get_ydata()[0]) == pytest.approx((middle, 64))
    (slot,) = [bar for bar in axes.patches if bar.get_hatch()]
    assert round(slot.get_x() + slot.get_width() / 2) == 1 and "missing" in words(axes)
    assert [text.get_text() for text in axes.get_xticklabels()] == ["10\n[100]", "20\n[200]", "40\n[400]"]
    assert legend(figure) == ["Text", "Mix", "Mix+", "Other", "paper"]


def test_bars_of_one_place_have_their_names_under_them() -> None:
    figure = drawn(made("bars", every("", ("",)), marks=("made before the settings trainer.new",)))
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["Mix", "Mix+", "Other"]
    assert "34.0†" in words(axes) and legend(figure) == ["Text"], "the reference is a line"


def test_every_run_has_its_curve() -> None:
    measure = {"what": "gradients:norm", "along": "examples"}
    values = {("Tables", "Mix", ""): [1.0, 2.0, 3.0], ("Tables", "Mix+", ""): [4.0], ("Grids", "Mix", ""): [1.0]}
    figure = drawn(made("curves", values, measure=measure))
    tables, grids = figure.axes
    assert [len(line.get_xdata()) for line in labelled(tables, "Mix")] == [5, 5, 5]
    assert {line.get_color() for line in labelled(tables, "Mix")} == {STYLES["Mix"][0]}
    assert (tables.get_xlabel(), tables.get_ylabel()) == ("training examples", "gradient norm, simple images")
    assert "missing: Mix+" in grids.get_title() and "missing" not in tables.get_title()
    assert "Other (missing)" in legend(figure)
    assert "5 runs, each shown alone; seeds 0, 1, 2." in words(figure)
    (mean,) = labelled(tables, "mean")
    assert list(mean.get_ydata()) == pytest.approx([2 * 2**-n for n in range(5)]) and not labelled(grids, "mean")
    assert "Thick: the mean of the runs." in words(figure)


def test_the_direction_of_a_curve_over_another_measure_is_seen() -> None:
    measure = {"what": "gradients:alignment", "along": "norm"}
    paper = [{"panel": "Tables", "series": "Mix", "value": 0.5, "place": "section 5"}]
    figure = drawn(made("curves", {("Tables", "Mix", ""): [1.0, 2.0]}, measure=measure, paper=paper))
    assert "The paper: Tables, Mix: 0.5." in words(figure)
    axes = figure.axes[0]
    starts = labelled(axes, "first checkpoint")
    assert [tuple(start.get_xdata()) + tuple(start.get_ydata()) for start in starts] == [(1, 1), (2, 2)]
    assert len([text for text in axes.texts if getattr(text, "arrow_patch", None)]) == 2
    assert axes.get_xlabel() == "gradient norm, simple images"
    assert "missing" in words(figure.axes[1])


RISE = (0.2, 0.3, 0.5, 0.4, 0.7, 0.8, 0.8)
PLAYED = {"training": "curve", "along": "env_steps", "level": "hard", "view": "image"}


def trained(seeds: Sequence[int], panels: Sequence[dict[str, Any]], window: int = 0) -> Result:
    """Curves of training of a series that rises, by seeds 0.1 apart, and of one without runs."""
    data = {
        "title": "A figure", "place": "figure 4.7", "draw": "curves", "cost": {"nano": "", "paper": ""}, "expected": "",
        "seeds": list(seeds), "window": window, "measure": PLAYED, "panels": list(panels),
        "series": [{"label": "Mix", "set": {"supervision": "mix"}}, {"label": "Other"}],
    }  # fmt: skip

    def find(settings: Mapping[str, Any]) -> Found | None:
        if "supervision" not in settings:
            return None
        ys = [y + 0.1 * settings["seed"] for y in RISE]
        return Found(make_record({}, seed=settings["seed"], run=f"r{settings['seed']}", training=make_training(ys)))

    return collect("made_up/fig", "nano", structure(Experiment, data), find)


def band(axes: Axes) -> Any:
    """Lowest and highest of the band at every place."""
    (found,) = axes.collections
    points = found.get_paths()[0].vertices
    return [[pick(y for x, y in points if x == place) for pick in (min, max)] for place in sorted({*points[:, 0]})]


def test_training_is_drawn_as_the_mean_of_the_runs_with_its_error() -> None:
    figure = drawn(trained((0, 1), [{"label": "success"}, {"label": "return", "measure": {"what": "part:return"}}]))
    success, gained = figure.axes
    (line,) = labelled(success, "Mix")
    assert list(line.get_xdata()) == [100 * n for n in range(7)]
    assert list(line.get_ydata()) == pytest.approx([100 * y + 5 for y in RISE])
    assert np.diff(band(success)).ravel() == pytest.approx([10] * 7), "two seeds 10 apart: one standard error is 5"
    assert labelled(gained, "Mix")[0].get_ydata() == pytest.approx([4 * y - 1.8 for y in RISE])
    assert (success.get_xlabel(), gained.get_ylabel()) == ("environment steps", "hard image: return")
    assert legend(figure) == ["Mix", "Other (missing)"]
    said = words(figure)
    assert "on 100 validation problems each time; means over the runs; bands: one standard error." in said
    assert "each shown alone" not in said and "smoothed" not in said


def test_one_run_has_the_binomial_error() -> None:
    figure = drawn(trained((0,), [{"label": "success"}]))
    assert np.diff(band(figure.axes[0])).ravel() == pytest.approx([200 * (y * (1 - y) / 100) ** 0.5 for y in RISE])
    assert "one standard error, binomial" in words(figure)


def test_smoothing_leaves_the_points_faint_and_needs_as_many() -> None:
    axes = drawn(trained((0,), [{"label": "success"}], window=5)).axes[0]
    assert labelled(axes, "Mix")[0].get_ydata() == pytest.approx(100 * savgol_filter(RISE, 5, 3))
    (faint,) = labelled(axes, "before smoothing")
    assert list(faint.get_ydata()) == pytest.approx([100 * y for y in RISE]) and faint.get_alpha() < 0.5
    axes = drawn(trained((0,), [{"label": "success"}], window=9)).axes[0]
    assert labelled(axes, "Mix")[0].get_ydata() == pytest.approx([100 * y for y in RISE])
    assert not labelled(axes, "before smoothing")


def test_training_over_another_measure_has_a_direction() -> None:
    axes = drawn(trained((0, 1), [{"label": "success", "measure": {"along": "accuracy@simple"}}])).axes[0]
    (start,) = labelled(axes, "first checkpoint")
    assert (start.get_xdata()[0], start.get_ydata()[0]) == pytest.approx((12.5, 25))
    assert axes.get_xlabel() == "simple: accuracy (%)"


@pytest.mark.parametrize(("worst", "scale"), [(2.0, "linear"), (5000.0, "symlog")])
def test_outliers_make_a_scale_logarithmic_and_the_label_says_so(worst: float, scale: str) -> None:
    measure = {"what": "gradients:norm"}
    figure = drawn(
        made("curves", {("Tables", "Mix", ""): [1.0] * 20 + [worst]}, measure=measure, seeds=list(range(21)))
    )
    axes = figure.axes[0]
    assert axes.get_yscale() == scale and ("log scale" in axes.get_ylabel().replace("\n", " ")) == (scale == "symlog")
    assert axes.get_ylim()[1] > worst, "nothing is cut off"


TWO = {"entries": [{"label": "simple (%)", "measure": {"level": "simple"}}, {"label": "hard (%)"}]}


def test_a_point_per_run_with_their_rank_correlation() -> None:
    values = every("", ("simple (%)", "hard (%)")) | {("Tables", "Mix", "hard (%)"): [0.9, 0.2]}
    figure = drawn(made("points", values, x=TWO))
    axes = figure.axes[0]
    points = [(line.get_xdata(), line.get_ydata()) for line in axes.lines]
    x, y = (np.concatenate([pair[side] for pair in points]) for side in (0, 1))
    assert len(x) == 4 * 3 - 1, "a run without the second measure has no point"
    rho = stats.spearmanr(x, y).statistic
    assert f"Spearman's rank correlation {rho:.2f}, n = 11 runs" in axes.get_title().replace("\n", " ")
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("simple (%)", "hard (%)")
    (mix,) = labelled(axes, "Mix")
    assert list(mix.get_ydata()) == pytest.approx([90, 20]) and list(mix.get_xdata()) == pytest.approx([30, 34])


def test_points_need_two_places() -> None:
    with pytest.raises(ValueError, match=r"made_up/fig: draw=points: x has 3 places"):
        compose(made("points", {}, x=SIZES), STYLES)


def test_a_table_has_value_interval_and_the_papers_number() -> None:
    paper = [{"panel": "Tables", "series": "Mix", "x": 100, "value": 64.5, "place": "table 1"}]
    values = {**every("Grids/Mix+/20", X3), ("Tables", "Mix+", "10"): [0.5]}
    result = made("table", values, x=SIZES, paper=paper, marks=("old",))
    figure = drawn(result)
    axes = figure.axes[0]
    place = {text.get_text(): text.get_position() for text in reversed(axes.texts)}  # the first of the same
    assert {"Tables", "Grids", "10", "20", "40", "Text", "Mix", "Mix+", "Other", "34.0†"} <= set(place)
    assert place["paper 64.5"][0] == place["34.0†"][0] and place["paper 64.5"][1] > place["34.0†"][1], "below it"
    assert "1 of 3 runs" in place
    (slot,) = [patch for patch in axes.patches if patch.get_hatch()]
    assert slot.get_x() < place["missing"][0] < slot.get_x() + slot.get_width()
    assert "hard image: accuracy (%)" in words(figure)


ATTRIBUTION = {"what": "attribution:path", "level": "hard"}
TOP = (0, 5, 144 * 7 + 3)


def attributed(run: str, version: int = 1, size: int = 144) -> Record:
    record = make_record({("hard", "image"): "10"}, run=run)
    record.data["evaluations"][0]["task_version"] = version
    example = {"id": "table_readout-hard-validation-0", "height": size, "width": size, "top": {"segment 1": TOP}}
    record.data["analyses"]["attribution"] = {
        "settings": {"top_percent": 1.0},
        "results": [{"level": "simple", "examples": []}, {"level": "hard", "examples": [example]}],
    }
    return Record(record.data, record.path)


def pixels(records: Sequence[Record], with_task: bool = True) -> Figure:
    values = {("", "Mix", ""): [0.1], ("", "Mix+", ""): [0.2]}
    result = made("pixels", values, measure=ATTRIBUTION, panels=[{}], series=[{"label": "Mix"}, {"label": "Mix+"}])
    return drawn(result, records=records, load_task=(lambda _: nano_task("table_readout")) if with_task else None)


def test_the_top_pixels_are_red_and_no_others() -> None:
    task = nano_task("table_readout")
    figure = pixels([attributed("-Mix--0"), attributed("-Mix+--0")])
    above, below = figure.axes
    for axes in (above, below):
        shown = np.asarray(axes.images[0].get_array())
        red = (shown == RED).all(axis=-1)
        assert sorted(np.flatnonzero(red)) == sorted(TOP)
        picture = task.draw(task.sample("hard", "validation", 0).state)
        assert shown.shape == picture.shape and (shown[~red] >= picture[~red]).all(), "a faded picture"
    assert above.get_title() == "segment 1" and "Mix+" in words(figure)
    assert "top 1 % of the pixels; run -Mix--0, problem table_readout-hard-validation-0" in words(figure)


@pytest.mark.parametrize(
    ("record", "with_task", "why"),
    [
        (attributed("-Mix--0"), False, "no task"),
        (attributed("another"), True, "missing"),
        (attributed("-Mix--0", version=99), True, "version 99"),
        (attributed("-Mix--0", size=100), True, "100 x 100 px"),
    ],
)
def test_pictures_that_cannot_be_drawn_say_why(record: Record, with_task: bool, why: str) -> None:
    figure = pixels([record], with_task)
    assert all(not axes.images for axes in figure.axes)
    assert why in words(figure.axes[0]).replace("\n", " ")


def of_kind(kind: str, values: Values, **changes: Any) -> Result:
    """A result that its kind can draw."""
    measure = {"curves": {"what": "gradients:norm"}, "pixels": ATTRIBUTION}.get(kind, {"level": "hard"})
    return made(kind, values, measure=measure, **({"x": TWO} if kind == "points" else {}) | changes)


@pytest.mark.parametrize("kind", KINDS)
def test_a_figure_of_nothing_says_so(kind: str, tmp_path: Path) -> None:
    result = of_kind(kind, {}, notes=["24 of 24 values are missing."])
    figure = drawn(result)
    assert "Nothing is there yet" in words(figure) and "24 of 24 values are missing." in words(figure)
    assert all("missing" in words(axes) for axes in figure.axes)
    assert draw(result, STYLES, [], tmp_path / "fig", ["png"]) == [tmp_path / "fig.png"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_result_gives_the_same_bytes(kind: str, tmp_path: Path) -> None:
    places = ("simple (%)", "hard (%)") if kind == "points" else ("",)
    result = of_kind(kind, every("Grids/Mix/", places))
    formats = ["png", "pdf", "svg"]
    first = draw(result, STYLES, [], tmp_path / "one" / "fig", formats)
    with matplotlib.rc_context({"font.size": 20, "axes.facecolor": "black", "lines.linewidth": 9}):
        second = draw(result, STYLES, [], tmp_path / "two" / "fig", formats)
        assert matplotlib.rcParams["font.size"] == 20, "the user's settings are left as they were"
    assert [path.name for path in first] == ["fig.png", "fig.pdf", "fig.svg"]
    for one, two in zip(first, second, strict=True):
        assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_everything_written_is_within_the_page_and_notes_are_below_all_axes(kind: str) -> None:
    places = ("simple (%)", "hard (%)") if kind == "points" else ("",)
    long = "A note of many words that says what every reader must be told, " * 6
    title = "A title of many words that goes on and on until it cannot be on one line " * 2
    figure = drawn(of_kind(kind, every("Grids/Mix/", places), notes=[long], title=title))
    page = figure.bbox.padded(1)
    texts = [*figure.texts, *(figure.legends[0].get_texts() if figure.legends else ())]
    for axes in figure.axes:
        texts += [axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts]
    for text in texts:
        box = text.get_window_extent()
        assert page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1, text.get_text()
    (notes,) = [text for text in figure.texts if "Expected: Mix+ is best." in text.get_text()]
    lowest = min(axes.get_tightbbox().y0 for axes in figure.axes)
    assert notes.get_window_extent().y1 <= lowest + 1


def test_runs_that_are_marked_have_a_dagger_and_its_note() -> None:
    mark = "made before the settings trainer.new"
    figure = drawn(made("lines", every("", X3), x=SIZES, marks=(mark,), notes=[f"3 runs marked: {mark}."]))
    assert words(figure.axes[0]).count("†") == 4 * 3
    assert f"† 3 runs marked: {mark}." in words(figure)


def test_entries_of_the_paper_alone_are_not_missing() -> None:
    panels = [{"label": "Tables"}, {"label": "Grids", "paper_only": True}]
    paper = [{"panel": "Grids", "series": "Mix", "x": 100, "value": 64, "place": "section 4"}]
    values = {key: value for key, value in every("", X3).items() if key[0] == "Tables"}
    figure = drawn(made("lines", values, x=SIZES, panels=panels, paper=paper))
    assert figure.axes[1].get_title() == "Grids (the paper alone)"
    assert labelled(figure.axes[1], "paper") and not labelled(figure.axes[1], "missing")
    assert "missing" not in words(figure).lower()


def test_text_is_broken_where_it_can_be() -> None:
    assert wrapped("Image-via-Text+", 0.6, 8).split("\n") == ["Image-", "via-Text+"]
    for line in wrapped("some words and averyveryverylongone $x_1$", 0.6, 8).split("\n"):
        assert text_width(line, 8) <= 0.6
    assert "$x_1$" in words(drawn(made("table", {}, title="costs $x_1$ and $y$"))), "no mathematics in a title"
