"""Gradient alignment: closed forms, the naive stack, the theorems of appendix H, projections."""

import gc
import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from support.tiny import nano_task, tiny_learner
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from vlmreason.analysis.gradients import (
    LOSSES,
    Adam,
    Samples,
    Settings,
    align,
    encode_solution,
    losses,
    measure,
    only,
    solution_samples,
)
from vlmreason.analysis.projection import Projection
from vlmreason.analysis.tokens import Piece, encode_pieces, piece_losses
from vlmreason.dialogue.build import build_dialogue
from vlmreason.models.contract import AdapterSettings
from vlmreason.models.vlm.learner import Learner
from vlmreason.segments import ANSWER, Response, Segment

SETTINGS = Settings(num=6, batch_size=1)
NUM = 40


def points(num: int, *size: int, seed: int = 0) -> Tensor:
    return torch.randn(num, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def quadratic(parameter: nn.Parameter, centers: Tensor, weight: float = 1.0) -> Samples:
    """Losses weight/2 |p - c|^2: gradients weight (p - c)."""
    return lambda: (weight / 2 * (parameter - center).square().sum() for center in centers)


def naive(parameters: list[nn.Parameter], samples: Samples) -> Tensor:
    """The stack of all gradients, (num, P)."""
    rows = []
    for loss in samples():
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        parts = [torch.zeros_like(p) if g is None else g for g, p in zip(found, parameters, strict=True)]
        rows.append(torch.cat([part.reshape(-1) for part in parts]))
    return torch.stack(rows).double()


def updates(gradients: Tensor, simple: Tensor, adam: Adam) -> Tensor:
    m, v = simple.mean(0), simple.square().mean(0)
    below = ((1 - adam.beta2) * gradients.square() + adam.beta2 * v).sqrt() + adam.eps
    return ((1 - adam.beta1) * gradients + adam.beta1 * m) / below


def assert_as_naive(parameters: list[nn.Parameter], simple: Samples, hard: Samples, rel: float) -> None:
    found = align(parameters, simple, hard, Adam())
    s, h = naive(parameters, simple), naive(parameters, hard)
    inner, square = float(s.mean(0) @ h.mean(0)), float(h.mean(0) @ h.mean(0))
    assert found.inner == pytest.approx(inner, rel=rel)
    assert found.alignment == pytest.approx(inner / square, rel=rel)
    assert found.cosine == pytest.approx(inner / math.sqrt(square * float(s.mean(0) @ s.mean(0))), rel=rel)
    assert found.simple.sample_norm.mean == pytest.approx(float(s.norm(dim=1).mean()), rel=rel)
    assert found.hard.norm == pytest.approx(math.sqrt(square), rel=rel)
    above = float((updates(s, s, Adam()) @ h.mean(0)).mean())
    below = float((updates(h, s, Adam()) @ h.mean(0)).mean())
    assert found.adam == pytest.approx(above / below, rel=rel)
    pairs = h @ h.T
    different = (pairs.sum() - pairs.diagonal().sum()) / (len(h) * (len(h) - 1))
    assert square * (1 - found.hard.noise) == pytest.approx(float(different), rel=rel)
    assert found.alignment_corrected == pytest.approx(inner / float(different), rel=rel)
    assert found.hard.example_norm == pytest.approx(float(h.norm(dim=1).square().mean().sqrt()), rel=rel)


def test_quadratic_losses_have_their_closed_form() -> None:
    parameter = nn.Parameter(points(1, 5, seed=3)[0])
    a, b = points(NUM, 5, seed=1), points(NUM, 5, seed=2) + 1
    found = align([parameter], quadratic(parameter, a, 0.5), quadratic(parameter, b, 2.0))
    s, h = 0.5 * (parameter.detach() - a.mean(0)), 2 * (parameter.detach() - b.mean(0))
    assert found.alignment == pytest.approx(float(s @ h / (h @ h)), rel=1e-5)
    assert found.cosine == pytest.approx(float(s @ h / (s.norm() * h.norm())), rel=1e-5)
    assert found.simple.norm == pytest.approx(float(s.norm()), rel=1e-5)
    assert found.simple.loss.mean == pytest.approx(
        float((0.25 * (parameter.detach() - a).square().sum(1)).mean()), rel=1e-6
    )
    assert found.num_parameters == 5
    assert found.adam is None and found.projection is None


def test_a_set_is_aligned_with_itself() -> None:
    parameter = nn.Parameter(points(1, 5)[0])
    samples = quadratic(parameter, points(NUM, 5) + 2)
    found = align([parameter], samples, samples, Adam())
    assert (found.alignment, found.cosine) == (pytest.approx(1), pytest.approx(1))
    assert found.adam == pytest.approx(1)


def test_running_sums_give_what_the_stack_gives() -> None:
    first, second = nn.Parameter(points(1, 3, 2)[0]), nn.Parameter(points(1, 4, seed=1)[0])
    inputs = points(NUM, 3, seed=2) + 1

    def samples(which: slice, power: int) -> Samples:
        return lambda: ((x @ first).pow(power).sum() + (x.sum() * second).cos().sum() for x in inputs[which])

    assert_as_naive([first, second], samples(slice(0, 15), 2), samples(slice(15, 40), 3), rel=1e-5)


def test_scales_of_the_losses() -> None:
    """Equation 3 scales as simple / hard, 7 not at all; Adam's denominator scales with the simple gradients."""
    parameter = nn.Parameter(points(1, 6)[0])
    a, b = points(NUM, 6, seed=1) + 1, points(NUM, 6, seed=2) + 2
    one = align([parameter], quadratic(parameter, a), quadratic(parameter, b), Adam(eps=0))
    two = align([parameter], quadratic(parameter, a, 3.0), quadratic(parameter, b, 0.5), Adam(eps=0))
    both = align([parameter], quadratic(parameter, a, 7.0), quadratic(parameter, b, 7.0), Adam(eps=0))
    assert two.alignment == pytest.approx(6 * one.alignment, rel=1e-5)
    assert two.cosine == pytest.approx(one.cosine, rel=1e-5)
    assert two.simple.sample_norm.mean == pytest.approx(3 * one.simple.sample_norm.mean, rel=1e-5)
    assert two.hard.noise == pytest.approx(one.hard.noise, rel=1e-4)
    assert both.alignment == pytest.approx(one.alignment, rel=1e-5)
    assert both.adam == pytest.approx(one.adam, rel=1e-5)


def test_norms_of_examples_are_found_from_batches() -> None:
    parameter = nn.Parameter(points(1, 6)[0])
    centers = 3 * points(4000, 6, seed=1) + 1

    def batches(size: int) -> Samples:
        return lambda: (0.5 * (parameter - part).square().sum(1).mean() for part in centers.split(size))

    one, eight = (align([parameter], batches(size), batches(size), batch_size=size).simple for size in (1, 8))
    assert eight.example_norm == pytest.approx(one.example_norm, rel=0.03)
    assert eight.sample_norm.mean < 0.9 * one.sample_norm.mean
    assert eight.noise == pytest.approx(one.noise, rel=0.3)
    assert one.noise < 0.01


def test_no_gradient_no_score() -> None:
    parameter = nn.Parameter(torch.zeros(3))
    zero = quadratic(parameter, torch.zeros(4, 3))
    found = align([parameter], quadratic(parameter, torch.ones(4, 3)), zero, Adam())
    assert found.alignment is found.cosine is found.adam is None
    with pytest.raises(ValueError, match="no sample"):
        align([parameter], list, zero)


def network(seed: int) -> tuple[list[nn.Parameter], Callable[[int, float], Samples]]:
    """A small smooth network in float64 and sets of losses of it."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)).double()

    def sets(number: int, shift: float) -> Samples:
        inputs, targets = points(12, 4, seed=number) + shift, points(12, 2, seed=number + 50)
        return lambda: ((model(x) - y).square().mean() for x, y in zip(inputs, targets, strict=True))

    return list(model.parameters()), sets


def value(samples: Samples) -> float:
    with torch.no_grad():
        return float(torch.stack(list(samples())).mean())


def drop(parameters: list[nn.Parameter], steps: Tensor, hard: Samples, eta: float) -> float:
    """Mean change of the hard loss over steps of size eta."""
    start, before, changes = [p.detach().clone() for p in parameters], value(hard), []
    for step in steps:
        parts = torch.split(step, [p.numel() for p in parameters])
        with torch.no_grad():
            for p, at, part in zip(parameters, start, parts, strict=True):
                p.copy_(at - eta * part.view_as(p))
        changes.append(value(hard) - before)
    with torch.no_grad():
        for p, at in zip(parameters, start, strict=True):
            p.copy_(at)
    return sum(changes) / len(changes)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_theorem_h1_steps_of_gradient_descent(seed: int) -> None:
    parameters, sets = network(seed)
    simple, hard = sets(1, 0.0), sets(2, 0.5)
    s, h = naive(parameters, simple), naive(parameters, hard)
    wanted = align(parameters, simple, hard).alignment
    errors = [abs(drop(parameters, s, hard, eta) / drop(parameters, h, hard, eta) - wanted) for eta in (1e-3, 1e-5)]
    assert errors[1] < 1e-4 * max(1, abs(wanted))
    assert errors[1] < errors[0] / 20  # the error is of the order of eta


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_theorem_h2_steps_of_modified_adam(seed: int) -> None:
    parameters, sets = network(seed)
    simple, hard = sets(1, 0.0), sets(2, 0.5)
    s, h = naive(parameters, simple), naive(parameters, hard)
    wanted = align(parameters, simple, hard, Adam()).adam
    steps = updates(s, s, Adam()), updates(h, s, Adam())
    ratios = [drop(parameters, steps[0], hard, eta) / drop(parameters, steps[1], hard, eta) for eta in (1e-3, 1e-6)]
    assert ratios[1] == pytest.approx(wanted, rel=1e-3)
    assert abs(ratios[1] - wanted) < abs(ratios[0] - wanted)


def test_projections_err_as_stated() -> None:
    """Over seeds the root mean square error is the stated deviation (an upper bound, nearly reached)."""
    parameter = nn.Parameter(points(1, 3000, seed=9)[0].float())
    a, b = points(4, 3000, seed=1).float(), points(4, 3000, seed=2).float()
    simple, hard = quadratic(parameter, a), quadratic(parameter, b)
    exact = align([parameter], simple, hard)
    found = [align([parameter], simple, hard, projection=Projection(400, seed)) for seed in range(80)]
    for name, true in (("alignment", exact.alignment), ("cosine", exact.cosine), ("norm", 1.0)):
        values = [one.hard.norm / exact.hard.norm if name == "norm" else getattr(one, name) for one in found]
        squares = [(value - true) ** 2 for value in values]
        error = math.sqrt(sum(squares) / len(squares))
        stated = sum(getattr(one.projection, name) for one in found) / len(found)
        assert 0.7 * stated < error < 1.25 * stated, name
    assert len({one.inner for one in found}) == len(found)
    assert found[0].simple.sample_norm == exact.simple.sample_norm  # of whole gradients, projected or not


def test_projections_are_linear_and_know_their_seed() -> None:
    projection = Projection(64, 3)
    one, other = [torch.randn(7, 3), torch.randn(500)], [torch.randn(7, 3), torch.randn(500)]
    both = projection([a + 2 * b for a, b in zip(one, other, strict=True)])
    torch.testing.assert_close(both, projection(one) + 2 * projection(other))
    torch.testing.assert_close(projection(one), Projection(64, 3)(one))
    assert not torch.equal(projection(one), Projection(64, 4)(one))
    with pytest.raises(ValueError, match="projection=4"):
        Projection(4)


@pytest.fixture(scope="module")
def learner() -> Learner:
    return tiny_learner()


def test_a_learner_is_measured_as_its_stack(learner: Learner) -> None:
    task = nano_task()
    named = learner.trained_parameters("all")
    with only(learner, [parameter for _, parameter in named]) as parameters:
        simple, hard = (solution_samples(learner, task, level, SETTINGS) for level in task.levels)
        assert_as_naive(list(parameters), simple, hard, rel=2e-3)
    assert all(parameter.grad is None and parameter.requires_grad for parameter in learner.model.parameters())


def test_the_score_does_not_depend_on_the_batch(learner: Learner) -> None:
    task = nano_task()
    one, three = (measure(learner, task, replace(SETTINGS, batch_size=size, adam=False)) for size in (1, 3))
    assert three.alignment == pytest.approx(one.alignment, rel=1e-3)
    assert three.cosine == pytest.approx(one.cosine, rel=1e-3)
    assert three.simple.num_samples == 2
    assert three.simple.sample_norm.mean < one.simple.sample_norm.mean  # batches cancel part of the noise


def test_parts_count_alone(learner: Learner) -> None:
    task = nano_task()
    whole = measure(learner, task, replace(SETTINGS, adam=False))
    parts = [
        measure(learner, task, replace(SETTINGS, adam=False, train=(part,)))
        for part in ("vision_tower", "projector", "language_model")
    ]
    assert sum(part.num_parameters for part in parts) == whole.num_parameters
    assert sum(part.inner for part in parts) == pytest.approx(whole.inner, rel=1e-4)
    text = measure(learner, task, replace(SETTINGS, adam=True, train=("vision_tower",), view="text"))
    assert text.hard.norm == 0 and text.alignment is None  # text reaches no vision tower


def test_adapters_count_alone() -> None:
    learner = tiny_learner()
    frozen, adapted = ("vision_tower", "projector"), ("language_model",)
    learner.adapt(AdapterSettings("lora", frozen=frozen, parts=adapted, r=2, alpha=4), 0)
    found = measure(learner, nano_task(), replace(SETTINGS, num=2))
    names = [name for name, parameter in learner.model.named_parameters() if parameter.requires_grad]
    assert names and all(".lora_" in name for name in names)
    assert 0 < found.num_parameters == sum(p.numel() for _, p in learner.trained_parameters("all"))
    assert found.hard.norm > 0


def test_losses_are_those_of_their_tokens(learner: Learner) -> None:
    """Equations 4, 5 and 2: against logits, token by token, without the conversion sentence."""
    task = nano_task()
    found = losses(learner, task, "hard", num=3, split="validation")
    assert list(found) == list(LOSSES)
    values: dict[str, list[float]] = {name: [] for name in LOSSES}
    for index in range(3):
        problem = task.sample("hard", "validation", index)
        for view in ("image_via_text", "image"):
            dialogue = build_dialogue(task, problem, view)
            batch = learner.processor.collate([learner.processor.encode(dialogue)])
            with torch.no_grad():
                each, kinds = learner.token_losses(batch)
            if view == "image":
                values["solution_given_image"].append(float(each.mean()))
                continue
            sentence = replace(dialogue, response=Response((Segment(ANSWER, task.convert(problem.state)),)))
            num_sentence = sum(s > 0 for s in learner.processor.encode(sentence).segments) - 1  # and the end token
            values["text_given_image"].append(float(each[kinds == 1][num_sentence:].mean()))
            values["solution_given_image_and_text"].append(float(each[kinds > 1].mean()))
    for name, numbers in values.items():
        assert found[name].mean == pytest.approx(sum(numbers) / 3, rel=1e-5), name
        assert found[name].ci_low < found[name].mean < found[name].ci_high


@pytest.mark.parametrize("name", ["table_readout", "grid_navigation", "visual_analogy"])
def test_pieces_tile_the_response(name: str, learner: Learner) -> None:
    task = nano_task(name)
    problem = task.sample("hard", "train", 1)
    dialogue = build_dialogue(task, problem, "image")
    pieces = [Piece(step, number) for number, step in enumerate(task.thought(problem.state), start=1)]
    pieces.append(Piece(task.answer(problem.state), len(pieces) + 1))
    encoded = encode_pieces(learner.processor, dialogue, pieces)
    assert encoded.input_ids == learner.processor.encode(dialogue).input_ids
    numbers = [number for number in encoded.segments if number]
    assert numbers == sorted(numbers) and set(numbers) == set(range(1, len(pieces) + 1))
    for piece in pieces:
        ids = [i for i, number in zip(encoded.input_ids, encoded.segments, strict=True) if number == piece.number]
        shown = learner.processor.decode([i for i in ids if i not in learner.processor.end_ids])
        assert shown.split() == piece.text.split()
    via_text = encode_solution(learner, task, "hard", "train", 1, "image_via_text")
    shown = [i for i, number in zip(via_text.input_ids, via_text.segments, strict=True) if number == 1]
    assert learner.processor.decode(shown).split() == task.text(problem.state).split()


def test_rows_of_a_batch_have_their_own_means(learner: Learner) -> None:
    task = nano_task()
    examples = [encode_solution(learner, task, "simple", "train", index, "image_via_text") for index in range(3)]
    with torch.no_grad():
        together = piece_losses(learner, learner.processor.collate(examples), 2)
        apart = [piece_losses(learner, learner.processor.collate([one]), 2) for one in examples]
    torch.testing.assert_close(together, torch.cat(apart), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": "tets"}, "did you mean 'test'"),
        ({"num": 7, "batch_size": 2}, "num=7, batch_size=2"),
        ({"num": 1}, "num=1"),
        ({"projection": 64}, "adam=true"),
        ({"projection": 2, "adam": False}, "projection=2"),
        ({"seed": 3}, "seed=3: has no effect"),
    ],
)
def test_settings_are_checked(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SETTINGS, **changes)


def test_levels_are_checked(learner: Learner) -> None:
    with pytest.raises(ValueError, match="did you mean 'hard'"):
        measure(learner, nano_task(), replace(SETTINGS, levels=("simple", "hrad")))


def test_memory_is_a_few_gradients_whatever_the_number_of_samples() -> None:
    """Counted by sizes that nothing else has, when the last sample of each pass is asked for."""
    sizes = (10_007, 20_011)
    parameters = [nn.Parameter(torch.ones(size)) for size in sizes]
    counts = []

    def samples() -> Iterator[Tensor]:
        for number in range(20):
            if number == 19:
                live = [tensor for tensor in gc.get_objects() if type(tensor) in (Tensor, nn.Parameter)]
                counts.append(sum(tensor.numel() in sizes for tensor in live) / len(sizes))
            yield sum((parameter.square().sum() for parameter in parameters), torch.zeros(()))

    align(parameters, samples, samples, Adam())
    assert len(counts) == 3
    assert 3 <= max(counts) <= 1 + 1 + 4 + 1  # model, gradient, means of both, squares, updates; one in the making


@pytest.mark.skipif(not dist.is_available() or dist.is_initialized(), reason="needs a process group of its own")
def test_sharded_parameters_give_the_same() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))
    inputs = points(8, 4).float() + 1

    def scores(adam: Adam | None = None, projection: Projection | None = None) -> list[float]:
        def samples(which: slice, target: float) -> Samples:
            return lambda: ((model(x[None]) - target).square().mean() for x in inputs[which])

        parameters = list(model.parameters())
        found = align(parameters, samples(slice(0, 4), 0), samples(slice(4, 8), 1), adam, projection)
        values = (found.alignment, found.cosine, found.adam, found.simple.example_norm)
        return [value for value in values if value is not None]

    whole = scores(Adam()) + scores(projection=Projection(64))
    assert len(whole) == 7
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
        assert all(isinstance(parameter, DTensor) for parameter in model.parameters())
        assert scores(Adam()) + scores(projection=Projection(64)) == pytest.approx(whole, rel=1e-4)
    finally:
        dist.destroy_process_group()


def test_samples_come_one_at_a_time() -> None:
    """No sample is asked for before the one before has been worked off: no stack of graphs."""
    parameter = nn.Parameter(torch.ones(2))
    open_graphs: list[int] = []

    def samples() -> Iterator[Tensor]:
        for _ in range(5):
            assert parameter.grad is None
            open_graphs.append(1)
            yield parameter.square().sum()

    align([parameter], samples, samples, Adam())
    assert len(open_graphs) == 15  # two passes over the simple set, one over the hard one
