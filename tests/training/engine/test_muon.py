"""Muon in float32 takes the steps of torch's own, to the precision of bfloat16, whatever is stacked."""

import pytest
import torch
from support.tiny import tiny_learner
from torch import nn

from vlmreason.training.engine.muon import Float32Muon, orthogonal
from vlmreason.training.engine.optimizers import OptimizerSettings, build_optimizers
from vlmreason.training.engine.phase import PhaseModule, PhaseSettings

SHAPES = ((8, 8), (24, 8), (8, 24), (24, 8))


def parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def test_steps_are_those_of_torch() -> None:
    ours, theirs = parameters(), parameters()
    optimizers = Float32Muon(ours, lr=0.1, weight_decay=0.1), torch.optim.Muon(theirs, lr=0.1, weight_decay=0.1)
    before = [p.detach().clone() for p in ours]
    for step in range(4):
        generator = torch.Generator().manual_seed(step)
        for a, b in zip(ours, theirs, strict=True):
            a.grad = b.grad = torch.randn(a.shape, generator=generator)
        for optimizer in optimizers:
            optimizer.step()
    for a, b, start in zip(ours, theirs, before, strict=True):
        assert (a - b).norm() < 0.02 * (b - start).norm()


def test_singular_values_come_near_1() -> None:
    made = orthogonal(torch.stack([torch.randn(16, 6, generator=torch.Generator().manual_seed(i)) for i in range(3)]))
    values = torch.linalg.svdvals(made)
    assert values.min() > 0.6 and values.max() < 1.3


def test_it_is_chosen_by_the_optimizer_s_key() -> None:
    matrix = [("layers.0.weight", parameters()[0])]
    [chosen] = build_optimizers(OptimizerSettings("muon", lr=1e-3, muon_lr=0.01, orthogonal="float32"), matrix)
    assert isinstance(chosen, Float32Muon) and chosen.param_groups[0]["peak_lr"] == 0.01
    [usual] = build_optimizers(OptimizerSettings("muon", lr=1e-3, muon_lr=0.01), matrix)
    assert isinstance(usual, torch.optim.Muon)
    with pytest.raises(ValueError, match=r"optimizer.orthogonal=float32: has no effect"):
        OptimizerSettings("adamw", lr=1e-3, orthogonal="float32")


def test_unless_chosen_it_is_float32_where_all_is() -> None:
    """In a phase of float32 with whole weights; a choice of the optimizer wins."""
    learner = tiny_learner()
    for chosen, float32, kind in ((None, True, Float32Muon), (None, False, torch.optim.Muon),
                                  ("bfloat16", True, torch.optim.Muon)):  # fmt: skip
        settings = OptimizerSettings("muon", lr=1e-3, muon_lr=0.01, orthogonal=chosen)
        module = PhaseModule(learner, settings, 1, PhaseSettings("one", float32=float32))
        assert [type(one) for one in module.configure_optimizers() if not isinstance(one, torch.optim.AdamW)] == [kind]
