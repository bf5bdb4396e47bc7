"""Gradient times input: shares where it is known which pixels matter, regions of the pictures, refusals."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from support.tiny import TRACES, nano_task, processor, tiny_learner
from torch import Tensor, nn

from vlmreason.analysis.attribution import Settings, attribute, pixel_scores, shares
from vlmreason.analysis.tokens import Piece, encode_pieces
from vlmreason.dialogue.build import build_dialogue
from vlmreason.models.vlm.learner import Learner
from vlmreason.models.vlm.processor import IGNORED
from vlmreason.tasks.tables.base import BODY, MARKED
from vlmreason.tasks.tables.regions import runs

NAMES = ("table_readout", "consecutive_table_readout", "grid_navigation", "visual_analogy")
FEW = Settings(num=6, batch_size=4, num_examples=1)


class Toy:
    """A learner whose losses are a linear function of the pixels: `weigh` gives the weights of a batch."""

    def __init__(self, weigh: Any) -> None:
        self.model: Any = nn.Linear(1, 1)
        self.processor, self.weigh = processor(), weigh

    def token_losses(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        pixels = batch["pixel_values"]
        values_B = (self.weigh(pixels.detach()) * pixels).sum((1, 2, 3))
        wanted = batch["labels"][:, 1:] != IGNORED
        return values_B[:, None].expand_as(wanted)[wanted], batch["segments"][:, 1:][wanted]


def on_marked(pixels: Tensor) -> Tensor:
    """The pixel's own sign, in cells of the path's color, else 0: scores are positive there and nowhere else."""
    raw = pixels * 0.3 + 0.94
    near = (raw - torch.tensor(MARKED).view(1, 3, 1, 1) / 255).abs().amax(1, keepdim=True) < 0.01
    return near * pixels.sign()


def test_all_falls_on_the_path_where_only_its_pixels_matter() -> None:
    assert MARKED != BODY
    (found,) = attribute(Toy(on_marked), nano_task(), dataclasses.replace(FEW, levels=("hard",)))  # type: ignore[arg-type]
    path = found.regions["path"]
    assert path.share.mean == pytest.approx(1) and path.magnitude.mean == pytest.approx(1)
    assert path.top.mean == 1
    assert 0.2 < path.area.mean < 0.6
    assert path.over_area.mean == pytest.approx(1 - path.area.mean)
    assert path.over_input.ci_low > 0.1
    assert found.own.share.mean < 0.5  # all stretches see the whole path: no stretch is about its own cells alone


def test_noise_falls_on_a_region_by_its_area() -> None:
    generator = torch.Generator().manual_seed(0)

    def noise(pixels: Tensor) -> Tensor:
        return torch.randn(pixels.shape, generator=generator) / pixels

    settings = dataclasses.replace(FEW, num=12, levels=("hard",))
    (found,) = attribute(Toy(noise), nano_task("visual_analogy"), settings)  # type: ignore[arg-type]
    for focus in (*found.regions.values(), found.own, *found.stretches.values()):
        assert focus.share.mean == pytest.approx(focus.area.mean, abs=0.02)
        assert abs(focus.over_area.mean) < 0.02


def test_a_gradient_of_noise_falls_on_a_region_by_its_input() -> None:
    """The picture's background is nearly zero: with gradients that know nothing the path has more than its area."""
    generator = torch.Generator().manual_seed(0)
    toy = Toy(lambda pixels: torch.randn(pixels.shape, generator=generator))
    (found,) = attribute(toy, nano_task(), dataclasses.replace(FEW, num=12, levels=("hard",)))  # type: ignore[arg-type]
    path = found.regions["path"]
    assert path.over_input.mean == pytest.approx(0, abs=0.01)
    assert path.over_area.mean > 0.05


@pytest.fixture(scope="module")
def learner() -> Learner:
    return tiny_learner()


def test_scores_are_the_derivative_along_the_picture(learner: Learner) -> None:
    """Summed over all pixels: the change of a stretch's mean loss as the whole picture is scaled."""
    task = nano_task()
    problem = task.sample("hard", "train", 0)
    places = task.regions(problem.state)
    pieces = [Piece(stretch.text, number) for number, stretch in enumerate(places.stretches, start=1)]
    pieces.append(Piece(task.answer(problem.state), 0))
    encoded = encode_pieces(learner.processor, build_dialogue(task, problem, "image"), pieces)
    batch = learner.processor.collate([encoded])
    scores = pixel_scores(learner, batch, len(places.stretches))
    assert scores.shape == (1, len(places.stretches), 144, 144)
    losses = []
    for scale in (0.999, 1.001):
        with torch.no_grad():
            each, numbers = learner.token_losses(batch | {"pixel_values": batch["pixel_values"] * scale})
        losses.append([float(each[numbers == k + 1].double().mean()) for k in range(len(places.stretches))])
    slopes = [(after - before) / 0.002 for before, after in zip(*losses, strict=True)]
    np.testing.assert_allclose(scores.sum((0, 2, 3)).numpy(), slopes, rtol=0.05, atol=2e-3)


@pytest.mark.parametrize("name", NAMES)
def test_batches_change_nothing(name: str, learner: Learner) -> None:
    task = nano_task(name)
    settings = Settings(levels=("hard",), num=3, num_examples=1)
    (one,), (three,) = (attribute(learner, task, dataclasses.replace(settings, batch_size=size)) for size in (1, 3))
    assert one.own.share.mean == pytest.approx(three.own.share.mean, rel=1e-3)
    for region, focus in one.regions.items():
        assert focus.share.mean == pytest.approx(three.regions[region].share.mean, rel=1e-3)
    example = one.examples[0]
    assert example.id.endswith("hard-validation-0") and (example.height, example.width) == (144, 144)
    for top in example.top.values():
        assert len(top) == len(set(top)) == 208  # 1 % of 144 x 144
    json.dumps(dataclasses.asdict(one), allow_nan=False)
    assert all(p.requires_grad and p.grad is None for p in learner.model.parameters())


@pytest.mark.parametrize("trace", TRACES)
@pytest.mark.parametrize("name", NAMES)
def test_stretches_are_the_trace_and_lie_in_the_picture(name: str, trace: str) -> None:
    task = nano_task(name, trace)
    for index in range(3):
        state = task.sample("hard", "test", index).state
        found = task.regions(state)
        assert "".join(stretch.text for stretch in found.stretches) == "".join(task.thought(state))
        names = [stretch.name for stretch in found.stretches]
        assert len(names) == len(set(names)) > 1
        for mask in (*found.masks.values(), *(stretch.mask for stretch in found.stretches)):
            assert mask.shape == task.draw(state).shape[:2] and 0 < mask.mean() < 1


def test_table_masks_are_the_marked_cells() -> None:
    task = nano_task()
    state = task.sample("hard", "test", 0).state
    found, picture = task.regions(state), task.draw(state)
    yellow = (picture == np.array(MARKED)).all(-1)
    assert yellow.sum() > 500 and not yellow[~found.masks["path"]].any()
    assert found.masks["path"].sum() == 24 * 24 * len(state.path)
    together = np.sum([stretch.mask.astype(int) for stretch in found.stretches], axis=0)
    assert (together == found.masks["path"]).all()  # every cell in one stretch
    assert found.masks["path_and_names"].sum() > found.masks["path"].sum()


def test_grid_masks_hold_what_is_drawn() -> None:
    task = nano_task("grid_navigation")
    state = task.sample("hard", "test", 0).state
    found, picture = task.regions(state), task.draw(state)
    head = found.stretches[0]
    blue = (picture == np.array((150, 205, 250))).all(-1)
    assert head.name == "head" and blue.any() and not blue[~head.mask].any()
    assert head.mask[state.destination[0] * 24, state.destination[1] * 24]
    assert all(found.masks["path"][r * 24, c * 24] for _, (r, c) in state.objects)
    assert not any(found.masks["path"][r * 24, c * 24] for _, (r, c) in state.obstacles)


def test_analogy_masks_are_the_panels() -> None:
    task = nano_task("visual_analogy")
    state = task.sample("hard", "test", 0).state
    found, picture = task.regions(state), task.draw(state)
    by_name = {stretch.name: stretch.mask for stretch in found.stretches}
    assert [by_name[name].sum() // 36**2 for name in ("example 1", "query", "option C", "relation")] == [3, 2, 1, 6]
    ink = (picture < 255).all(-1)
    ink[found.masks["panels"]] = False
    x, y = task.panel_places()[2][2]
    ink[y : y + 36, x : x + 36] = False
    assert not ink.any()  # nothing is drawn beside the panels and the question mark


def test_runs_end_where_the_path_turns_or_jumps() -> None:
    assert runs([(1, 1), (1, 2), (1, 3), (2, 3), (3, 3)]) == [[(1, 1), (1, 2), (1, 3)], [(2, 3), (3, 3)]]
    assert runs([(1, 4), (1, 5), (2, 1), (2, 2)]) == [[(1, 4), (1, 5)], [(2, 1), (2, 2)]]
    assert runs([(1, 5), (2, 1), (2, 2)]) == [[(1, 5)], [(2, 1), (2, 2)]]
    assert runs([(3, 3)]) == [[(3, 3)]]


def test_shares_of_known_scores() -> None:
    scores, mask = np.array([[3.0, -1.0], [1.0, 0.0]]), np.array([[True, True], [False, False]])
    pixels = np.array([[1.0, 1.0], [3.0, 5.0]])
    assert shares(scores, pixels, mask, 1) == (0.5, 0.2, 0.75, 0.8, 1.0)
    assert shares(-np.abs(scores), pixels, mask, 1) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"num": 0}, "num=0"), ({"split": "tests"}, r"split='tests'.*'test'"), ({"top_percent": 0.0}, "top_percent=0")],
)
def test_settings_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(FEW, **changes)


def test_what_cannot_be_attributed_is_refused(learner: Learner) -> None:
    with pytest.raises(ValueError, match=r"table_skills: its family has no regions"):
        attribute(learner, nano_task("table_skills"), Settings(num=1))
    with pytest.raises(ValueError, match="did you mean 'hard'"):
        attribute(learner, nano_task(), Settings(levels=("hart",)))


def test_models_that_resize_are_refused(learner: Learner, monkeypatch: pytest.MonkeyPatch) -> None:
    collate = learner.processor.collate

    def halved(*arguments: Any) -> dict[str, Tensor]:
        batch = collate(*arguments)
        return batch | {"pixel_values": batch["pixel_values"][..., ::2, ::2]}

    monkeypatch.setattr(learner.processor, "collate", halved)
    with pytest.raises(ValueError, match=r"tiles or resizes pictures.*144 x 144"):
        attribute(learner, nano_task(), FEW)
