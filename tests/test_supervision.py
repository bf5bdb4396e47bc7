"""Supervision as data: every shipped strategy against algorithm 1, and the properties of the mixtures."""

from __future__ import annotations

import itertools
import random
import tracemalloc
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from vlmreason.data.mixture import ExampleRef, Mixture, Permutation, mixtures
from vlmreason.structure import structure
from vlmreason.supervision import Supervision

CONF = Path(__file__).parents[1] / "conf"
PRETRAINING = (
    *("nano_pretraining", "nano_reading", "nano_reading_even"),
    *("nano_chains", "nano_no_chains"),
)
OF_ENVIRONMENTS = {"expert"}  # composed with one only: tests/commands/test_env_compose.py
STRATEGIES = sorted({path.stem for path in (CONF / "supervision").glob("*.yaml")} - {*PRETRAINING} - OF_ENVIRONMENTS)
SINGLE = {
    "text": ("text",),
    "image": ("image",),
    "text_image": ("text", "image"),
    "image_via_text": ("image_via_text",),
    "both": ("both",),
    "mix": ("text", "image", "image_via_text"),
}


def load(name: str, *overrides: str, **sizes: int) -> Supervision:
    """A strategy of conf/supervision composed as a command does it."""
    scale = {"num_examples": 360, "num_align": 40, "num_warmup": 20, "max_response_tokens": 90, **sizes}
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(overrides=[f"+supervision={name}", *(f"+scale.{k}={v}" for k, v in scale.items()), *overrides])
    return structure(Supervision, OmegaConf.to_container(config.supervision, resolve=True), "supervision")


def plain(
    parts: dict[str, Any],
    num_examples: int = 60,
    phase: dict[str, Any] | None = None,
    shared: dict[str, Any] | None = None,
    **top: Any,
) -> Supervision:
    main = {"num_examples": num_examples, "parts": parts, **(phase or {})}
    data = {"name": "x", "phases": {"main": main}, "parts": shared or {}, **top}
    return structure(Supervision, data, "supervision")


def refs(supervision: Supervision, phase: str = "main", seed: int = 0, task: str = "t") -> list[ExampleRef]:
    mixture = Mixture(supervision, phase, task, seed)
    return [mixture[i] for i in range(len(mixture))]


def algorithm_1(strategy: str, num: int, rng: random.Random) -> list[tuple[str, int, str]]:
    """Appendix C.1 written out: (level, instance, view) of every example."""
    simple_views = SINGLE.get(strategy.removesuffix("_plus"), ())
    num_simple, num_hard = num, 0
    if strategy in ("text", "image", "both"):
        unique = num_simple
    elif strategy in ("text_image", "image_via_text", "mix"):
        unique = num_simple // 3
    elif strategy in ("image_via_text_plus", "mix_plus"):
        num_simple = num_hard = num // 2
        unique = num_simple // 3
    elif strategy == "align":
        simple_views = ("text", "image_via_text")
        unique = num_simple // 2
    else:
        assert strategy == "text_warmup"
        simple_views = ("text",)
        num_simple = num_hard = num // 2
        unique = num_simple
    pairs = [("simple", x, view) for x in range(unique) for view in simple_views]
    rng.shuffle(pairs)
    copies = -(-num_simple // len(pairs))
    examples = (pairs * copies)[:num_simple]
    examples += [("hard", x, "text") for x in range(num_hard)]
    rng.shuffle(examples)
    return examples


def shape_of(examples: Sequence[tuple[str, int, str]], whole_epochs: bool) -> object:
    """What two draws of one strategy have in common whichever instances they drew."""
    pairs = Counter(examples)
    repetitions = Counter((level, num) for (level, _, _), num in pairs.items())
    instances = Counter(level for level, _ in {(level, x) for level, x, _ in examples})
    views: dict[tuple[str, int], list[str]] = {}
    for level, x, view in examples:
        views.setdefault((level, x), []).append(view)
    per_instance = Counter((level, tuple(sorted(seen))) for (level, _), seen in views.items())
    return repetitions, instances, per_instance if whole_epochs else None


@pytest.mark.parametrize(
    ("strategy", "phase", "num"),
    [(s, "main", 360) for s in (*SINGLE, "image_via_text_plus", "mix_plus")]
    + [("align", "align", 40), ("text_warmup", "text_warmup", 20)],
)
@pytest.mark.parametrize("seed", [0, 5])
def test_a_strategy_is_algorithm_1(strategy: str, phase: str, num: int, seed: int) -> None:
    got = [(ref.level, ref.index, ref.view) for ref in refs(load(strategy), phase, seed)]
    wanted = algorithm_1(strategy, num, random.Random(seed))
    assert len(got) == num
    whole_epochs = strategy != "text_image"
    assert shape_of(got, whole_epochs) == shape_of(wanted, whole_epochs)


@pytest.mark.parametrize("name", PRETRAINING)
def test_pretraining_names_skills_only_and_adds_up(name: str) -> None:
    supervision = load(name)
    assert all(name.endswith("_skills") for name in supervision.task_names(None))
    for phase, mixture in mixtures(supervision, None, 0).items():
        assert sum(row["examples"] for row in mixture.describe()) == supervision.phase(phase).num_examples


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_shipped_strategy_has_its_totals(strategy: str) -> None:
    header = (CONF / "supervision" / f"{strategy}.yaml").read_text()
    assert f"supervision={strategy}" in header.split("defaults:")[0]
    for sizes in ({}, {"num_examples": 101, "num_align": 7, "num_warmup": 5}):
        for order in ("shuffle", "interleave"):
            supervision = load(strategy, f"supervision.order={order}", **sizes)
            assert supervision.name == strategy
            made = mixtures(supervision, "table_readout", 1)
            assert sum(len(mixture) for mixture in made.values()) == supervision.num_examples
            for name, mixture in made.items():
                seen = Counter((ref.task, ref.level, ref.view) for ref in (mixture[i] for i in range(len(mixture))))
                rows = mixture.describe()
                assert sum(row["examples"] for row in rows) == len(mixture) == sum(seen.values())
                assert {(row["task"], row["level"], row["view"]) for row in rows} == set(seen)
                instances = {(ref.task, ref.level, ref.index) for ref in refs(supervision, name, 1, "table_readout")}
                assert len(instances) == sum({(r["part"], r["task"]): r["instances"] for r in rows}.values())


@pytest.mark.parametrize(
    ("strategy", "phases"),
    [
        ("align_mix_plus", ["align", "main"]),
        ("tw_mix", ["text_warmup", "main"]),
        ("tw_mix_plus", ["text_warmup", "main"]),
        ("tw_align_mix_plus", ["text_warmup", "align", "main"]),
    ],
)
def test_sequences_are_made_of_the_single_phases(strategy: str, phases: list[str]) -> None:
    supervision = load(strategy)
    assert list(supervision.phases) == phases
    assert supervision.phases["main"] == load("mix" if strategy == "tw_mix" else "mix_plus").phases["main"]
    if "align" in phases:
        assert supervision.phases["align"] == load("align").phases["align"]
    if "text_warmup" in phases:
        assert supervision.phases["text_warmup"].train == ("language_model",)
        levels = {part.level for part in supervision.phases["text_warmup"].parts.values()}
        assert levels == ({"simple"} if strategy == "tw_mix" else {"simple", "hard"})
    assert refs(supervision) == refs(load("mix" if strategy == "tw_mix" else "mix_plus"))


def test_phases_share_instances_only_when_asked() -> None:
    def simple(supervision: Supervision, phase: str) -> set[int]:
        return {ref.index for ref in refs(supervision, phase) if ref.level == "simple"}

    fresh, shared = load("tw_align_mix_plus"), load("align_mix_plus", "supervision.phases.align.pool=main")
    sets = [simple(fresh, phase) for phase in fresh.phases]
    assert len(set.union(*sets)) == sum(map(len, sets))
    assert simple(shared, "align") < simple(shared, "main")


def test_another_main_phase_and_added_phases_come_by_override() -> None:
    supervision = load("tw_align_mix_plus", "supervision/phase@supervision.phases.main=image_plus")
    assert list(supervision.phases) == ["text_warmup", "align", "main"]
    assert Counter((ref.level, ref.view) for ref in refs(supervision)) == {
        ("simple", "image"): 180,
        ("hard", "text"): 180,
    }
    longer = load("align_mix_plus", "+supervision/phase@supervision.phases.last=text")
    assert list(longer.phases) == ["align", "main", "last"]
    fewer = load("text_warmup", "~supervision.phases.text_warmup.parts.hard")
    assert {ref.level for ref in refs(fewer, "text_warmup")} == {"simple"}


def test_epochs_of_the_consecutive_study() -> None:
    for name, epochs in (("text", 2), ("image", 3)):
        examples = refs(load(name, f"supervision.phases.main.parts.simple.epochs={epochs}"))
        assert set(Counter(ref.index for ref in examples).values()) == {epochs}


def test_what_a_broken_epoch_repeats_is_drawn_at_random() -> None:
    examples = refs(load("text_image"))
    repeated = {pair for pair, num in Counter((ref.index, ref.view) for ref in examples).items() if num == 2}
    assert len(repeated) == 120  # half of 120 instances in two views
    assert {view for _, view in repeated} == {"text", "image"}
    assert len({index for index, _ in repeated}) > 75  # 60 if copies were cut in order of the instances


def test_hard_examples_repeat_and_may_be_images() -> None:
    examples = refs(
        load(
            "mix_plus",
            "supervision.phases.main.parts.hard.epochs=3",
            "supervision.phases.main.parts.hard.views=[image]",
        )
    )
    hard = [ref for ref in examples if ref.level == "hard"]
    assert len(hard) == 180 and {ref.view for ref in hard} == {"image"}
    assert set(Counter(ref.index for ref in hard).values()) == {3}


def test_indivisible_numbers_lose_nothing_and_repeat_nothing() -> None:
    for num in range(2, 40):
        examples = refs(load("mix_plus", num_examples=num))
        assert len(examples) == num == len({(ref.level, ref.index, ref.view) for ref in examples})
        assert 0 <= sum(ref.level == "simple" for ref in examples) - num // 2 <= 1


def test_tasks_mix_in_equal_shares() -> None:
    examples = refs(load("multi_task_mix_plus"))
    counts = Counter((ref.task, ref.level) for ref in examples)
    assert set(counts.values()) == {60} and len(counts) == 6
    supervision = load("multi_task_mix_plus")
    assert supervision.task_names("other") == ("table_readout", "grid_navigation", "visual_analogy")
    first = refs(load("align_mix_plus", "supervision.tasks=[a,b]"), "align")
    assert Counter(ref.task for ref in first) == {"a": 20, "b": 20}


def test_other_tasks_levels_and_weights() -> None:
    parts = {
        "picture": {"task": "skills", "level": "lookup", "views": ["image"], "weight": 2},
        "text": {"task": "skills", "level": "lookup", "views": ["text"], "first": 0, "weight": 1},
        "walk": {"task": "skills", "level": "walk", "views": ["text", "image"], "weight": 3, "distinct": 5},
    }
    examples = refs(plain(parts, 60))
    counts = Counter((ref.level, ref.view) for ref in examples)
    assert counts["lookup", "image"] == 20 and counts["lookup", "text"] == 10
    seen = {view: {r.index for r in examples if (r.level, r.view) == ("lookup", view)} for view in ("image", "text")}
    assert seen["text"] < seen["image"]
    assert len({ref.index for ref in examples if ref.level == "walk"}) == 5
    separate = refs(plain({**parts, "text": {**parts["text"], "first": None}}, 60))
    assert len({ref.index for ref in separate if ref.level == "lookup"}) == 30


@pytest.mark.parametrize("size", [1, 2, 3, 255, 256, 257, 1000, 4097, 65536])
def test_a_permutation_is_a_bijection(size: int) -> None:
    images = [Permutation(size, 7, "a")(i) for i in range(size)]
    assert sorted(images) == list(range(size))
    if size > 100:
        assert images != [Permutation(size, 8, "a")(i) for i in range(size)]


def test_a_permutation_looks_random() -> None:
    size = 30_000
    permutation = Permutation(size, 1)
    images = [permutation(i) for i in range(size)]
    mean = sum((i - size / 2) * (image - size / 2) for i, image in enumerate(images)) / size
    assert abs(mean / (size**2 / 12)) < 4 / size**0.5  # no correlation of place and image
    steps = Counter((b - a) * 20 // (2 * size) for a, b in itertools.pairwise(images))
    assert len(steps) == 20 and steps.most_common(1)[0][1] < 0.11 * size  # differences: a triangle over (-size, size)
    for part in range(10):  # each tenth of the places gets its tenth of the images, within 5 standard deviations
        low = sum(image < size // 10 for image in images[part * size // 10 : (part + 1) * size // 10])
        assert abs(low - size / 100) < 5 * (size / 100 * 0.81) ** 0.5


@pytest.mark.parametrize("order", ["shuffle", "interleave"])
def test_order_of_access_does_not_matter_and_seeds_do(order: str) -> None:
    supervision = load("mix_plus", f"supervision.order={order}")
    forward = refs(supervision)
    again = Mixture(supervision, "main", "t", 0)
    places = list(range(len(again)))
    random.Random(1).shuffle(places)
    assert all(again[i] == forward[i] for i in places)
    other = refs(supervision, seed=1)
    assert not {(ref.level, ref.index) for ref in forward} & {(ref.level, ref.index) for ref in other}
    where_hard = [[i for i, ref in enumerate(examples) if ref.level == "hard"] for examples in (forward, other)]
    assert (where_hard[0] == where_hard[1]) == (order == "interleave")
    start = min(ref.index for ref in forward), min(ref.index for ref in other)
    assert [ref.index - start[0] for ref in forward] != [ref.index - start[1] for ref in other]
    assert {ref.split for ref in forward} == {"train"}


def test_interleaving_deals_the_views_in_a_fixed_cycle() -> None:
    supervision = load("mix_plus", "supervision.order=interleave")
    mixture = Mixture(supervision, "main", "t", 0)
    examples = [(ref.level, ref.view) for ref in refs(supervision)]
    cycle = [("simple", view) for view in SINGLE["mix"]] + [("hard", "text")] * 3  # appendix F
    assert mixture.cycle_length == len(cycle) and examples == cycle * 60
    orders = [[ref.index for ref in refs(supervision)[slot::6]] for slot in range(3)]
    assert (
        sorted(orders[0]) == sorted(orders[1]) == sorted(orders[2])
    )  # the same instances, each view shuffled by itself
    assert orders[0] != sorted(orders[0]) and orders[0] != orders[1] != orders[2]
    assert Mixture(load("mix_plus"), "main", "t", 0).cycle_length is None
    shuffled = shape_of([(r.level, r.index, r.view) for r in refs(load("mix_plus"))], True)
    assert shape_of([(r.level, r.index, r.view) for r in refs(supervision)], True) == shuffled


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name not in ("text", "text_plus", "text_warmup")])
def test_interleaving_puts_an_image_into_every_window(strategy: str) -> None:
    supervision = load(strategy, "supervision.order=interleave", num_examples=1000, num_align=100)
    for name, mixture in mixtures(supervision, "t", 3).items():
        has_image = [mixture[i].view != "text" for i in range(len(mixture))]
        if name in ("text_warmup", "text"):
            assert not any(has_image)
            continue
        k = mixture.cycle_length
        assert k is not None and k <= 80
        assert all(any(has_image[i : i + k]) for i in range(len(has_image) - k + 1))


def test_thought_kept_removed_internalized() -> None:
    assert {ref.thought_kept for ref in refs(load("mix"))} == {1.0}
    assert {ref.thought_kept for ref in refs(load("mix", "supervision.phases.main.thought=remove"))} == {0.0}
    everywhere = load("tw_align_mix_plus", "supervision.thought=remove")
    assert all(ref.thought_kept == 0 for phase in everywhere.phases for ref in refs(everywhere, phase))
    own = load("align_mix_plus", "supervision.thought=remove", "supervision.phases.align.thought=keep")
    assert {ref.thought_kept for ref in refs(own, "align")} == {1.0}

    supervision = load("mix_plus", "supervision.phases.main.thought=internalize")
    kept = [ref.thought_kept for ref in refs(supervision)]
    assert kept[:108] == [1.0] * 108 and kept[252:] == [0.0] * 108  # 30 % of 360 at either end
    middle = kept[108:252]
    assert all(1 > a > b > 0 for a, b in itertools.pairwise(middle))
    assert sum(middle) / len(middle) == pytest.approx(0.5)
    for row in Mixture(supervision, "main", "t", 0).describe():
        assert row["thought"] == pytest.approx(sum(kept) / len(kept))
    shares = load(
        "mix", "supervision.phases.main.thought=internalize", "supervision.phases.main.thought_shares=[0.5,0.5,0]"
    )
    kept = [ref.thought_kept for ref in refs(shares)]
    assert kept[:180] == [1.0] * 180 and 0 < kept[-1] < kept[180] < 1


def test_a_phase_may_begin_its_responses_with_the_kind_of_the_problem() -> None:
    """Asked for where it has an effect; where it is not asked for nothing else changes."""
    plain, told = load("avr_no_condition"), load("avr")
    assert {ref.condition for ref in refs(told, "reasoning")} == {True}
    assert not any(ref.condition for phase in plain.phases for ref in refs(plain, phase))
    without, with_it = (Mixture(one, "reasoning", "t", 0).identity() for one in (plain, told))
    assert with_it == without | {"condition": True} and "condition" not in without
    silent = {"table_skills", "raven_perception", "irregular"}
    told.check_conditions("raven", silent)
    plain.check_conditions("raven", silent | {"raven"})
    with pytest.raises(
        ValueError, match=r"phases\.reasoning\.condition=true: has no effect, irregular, raven, raven_p"
    ):
        told.check_conditions("raven", silent | {"raven"})


def test_memory_does_not_grow_with_the_number_of_examples() -> None:
    tracemalloc.start()
    mixture = Mixture(load_large(), "main", "t", 0)
    drawn = {mixture[i] for i in range(0, 10**9, 10**6)}
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(drawn) == 1000 and peak < 2_000_000
    assert {ref.level for ref in drawn} == {"simple", "hard"}
    assert sum(row["examples"] for row in mixture.describe()) == 10**9


def load_large() -> Supervision:
    parts = {"simple": {"level": "simple", "views": ["text", "image"]}, "hard": {"level": "hard", "views": ["text"]}}
    return plain(parts, 10**9)


TEXT = {"level": "simple", "views": ["text"]}


@pytest.mark.parametrize(
    ("parts", "phase", "top", "sentence"),
    [
        ({"a": {**TEXT, "views": ["imge"]}}, {}, {}, r"parts\.a\.views\[0\]='imge'.*did you mean 'image'"),
        ({"a": {**TEXT, "views": []}}, {}, {}, r"parts\.a\.views=\[\]"),
        ({"a": {**TEXT, "views": ["text", "text"]}}, {}, {}, "distinct views"),
        ({"a": {**TEXT, "weight": 0}}, {}, {}, r"parts\.a\.weight=0.*more than 0"),
        ({"a": {**TEXT, "weight": float("nan")}}, {}, {}, r"parts\.a\.weight=nan"),
        ({"a": {**TEXT, "epochs": 0.5}}, {}, {}, r"parts\.a\.epochs=0\.5: 1 or more"),
        ({"a": {**TEXT, "distinct": 0}}, {}, {}, r"parts\.a\.distinct=0: 1 or more"),
        ({"a": {**TEXT, "distinct": 3, "epochs": 2}}, {}, {}, "exclude each other"),
        ({"a": {**TEXT, "first": -1}}, {}, {}, r"parts\.a\.first=-1"),
        ({"a": {**TEXT, "thought_kept": 2}}, {}, {}, r"thought_kept=2\.0: allowed is 0 to 1"),
        ({"a": {**TEXT, "begins": [4, 2]}}, {}, {}, r"begins=\[4, 2\]: first and last position are expected"),
        ({"a": {**TEXT, "views": ["image"], "begins": [0, 2]}}, {}, {}, r"begins: of views=\[text\] alone"),
        ({"a": {**TEXT, "wieght": 1}}, {}, {}, r"parts\.a\.wieght: no such key.*did you mean 'weight'"),
        ({"a": TEXT}, {"num_examples": 0}, {}, r"phases\.main\.num_examples=0: 1 or more"),
        ({"a": TEXT}, {"num_examples": -5}, {}, r"phases\.main\.num_examples=-5"),
        ({"a": TEXT}, {"thought": "hide"}, {}, r"thought='hide': allowed are keep, remove, internalize"),
        ({"a": TEXT}, {"thought_shares": [0.3, 0.4, 0.3]}, {}, "has no effect unless thought=internalize"),
        ({"a": TEXT}, {"thought": "internalize", "thought_shares": [0.3, 0.4, 0.4]}, {}, "sum 1"),
        ({"a": TEXT}, {"train": []}, {}, r"phases\.main\.train"),
        ({"a": TEXT}, {"train": ["decoder"]}, {}, r"phases\.main\.train.*language_model"),
        ({"a": {**TEXT, "task": "t"}}, {"tasks": ["u"]}, {}, r"phases\.main\.tasks: has no effect"),
        ({"a": {**TEXT, "task": "t"}}, {}, {"tasks": ["u"]}, r"supervision\.tasks: has no effect"),
        ({"a": TEXT}, {}, {"tasks": ["u", "u"]}, "named twice"),
        ({"a": TEXT}, {}, {"order": "sorted"}, "allowed are shuffle, interleave"),
        ({}, {}, {}, "one part or more"),
        ({}, {"weights": {"a": 1}}, {}, r"weights\.a: no such part in supervision\.parts; there are none"),
        ({"a": TEXT}, {"weights": {"a": 1}}, {"shared": {"a": TEXT}}, "the phase has a part of its own with this name"),
        ({}, {"weights": {"a": 1}}, {"shared": {"a": {**TEXT, "weight": 2}}}, r"parts\.a\.weight=2\.0: has no effect"),
    ],
)
def test_bad_settings_end_with_a_sentence(
    parts: dict[str, Any], phase: dict[str, Any], top: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        plain(parts, phase=phase, **top)


def test_bad_mixtures_end_with_a_sentence() -> None:
    two = {"a": TEXT, "b": {"level": "hard", "views": ["text"]}}
    with pytest.raises(ValueError, match=r"num_examples=1: too few, nothing is left for parts\.b"):
        Mixture(plain(two, 1), "main", "t", 0)
    with pytest.raises(ValueError, match="at most 30 instances fit into 60 examples in 2 views"):
        Mixture(plain({"a": {"level": "x", "views": ["text", "image"], "distinct": 31}}, 60), "main", "t", 0)
    with pytest.raises(ValueError, match=r"parts\.a\.task: missing"):
        Mixture(plain(two), "main", None, 0)
    with pytest.raises(ValueError, match="seed=-1"):
        Mixture(plain(two), "main", "t", -1)
    with pytest.raises(ValueError, match=r"there are main.*did you mean 'main'"):
        Mixture(plain(two), "mian", "t", 0)
    uneven = {"a": {**TEXT, "weight": 0.0007}, "b": TEXT}
    with pytest.raises(ValueError, match="order=interleave needs 10007 examples per cycle"):
        Mixture(plain(uneven, 10**6, order="interleave"), "main", "t", 0)
    with pytest.raises(IndexError, match="example 60 of 60"):
        Mixture(plain(two), "main", "t", 0)[60]


def test_phases_name_parts_of_the_supervision_by_weight() -> None:
    shared = {"a": TEXT, "b": {"level": "hard", "views": ["image"]}}
    named = plain({"c": TEXT}, phase={"weights": {"b": 3, "a": 0.5}}, shared=shared)
    written = plain({"b": {**shared["b"], "weight": 3}, "a": {**TEXT, "weight": 0.5}, "c": TEXT})
    assert named == written == replace(named)
    assert list(named.phase("main").parts) == ["b", "a", "c"]


def test_the_even_control_shows_every_length_in_both_views() -> None:
    """It differs from what it controls in views and lengths alone."""
    reading, even = load("nano_reading"), load("nano_reading_even")
    assert list(reading.phases) == list(even.phases)
    text: set[str] = set()
    for name, phase in reading.phases.items():
        other = even.phase(name)
        assert replace(other, parts=phase.parts) == phase and list(other.parts) == list(phase.parts)
        for part, found in phase.parts.items():
            control = other.parts[part]
            assert (control.task, control.weight, control.begins) == (found.task, found.weight, found.begins)
            assert not control.level.startswith(("few_", "short_"))
            text |= {control.level} if control.views == ("text",) and control.level in LONG else set()
    assert not text and any("image" in part.views and part.level in LONG for part in even.phase("all").parts.values())


LONG = ("list", "trail", "walk")


def test_the_control_of_chains_lacks_them_alone() -> None:
    chains, control = load("nano_chains"), load("nano_no_chains")
    assert list(chains.phases) == list(control.phases) == ["captions", "skills"]
    assert chains.phase("captions") == control.phase("captions")
    parts = dict(chains.phase("skills").parts)
    assert parts.pop("chain").level == "chain" and parts == control.phase("skills").parts
    assert replace(chains.phase("skills"), parts=parts) == control.phase("skills")


def test_levels_are_checked_against_the_tasks() -> None:
    supervision = load("mix_plus", "supervision.phases.main.parts.hard.level=medum")
    levels = {"t": ("simple", "medium", "hard")}
    load("mix_plus").check_levels("t", levels)
    with pytest.raises(ValueError, match=r"parts\.hard\.level='medum'.*simple, medium, hard.*did you mean 'medium'"):
        supervision.check_levels("t", levels)
    with pytest.raises(ValueError, match="task='u'"):
        supervision.check_levels("u", levels)
