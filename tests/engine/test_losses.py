"""A loss for each head, and what a loss asks for by its signature."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

import interlocking_backprop as ib
from interlocking_backprop.bench.processes import on_ranks
from tests.small_models import batch, sgd
from tests.small_nets import Recorder, mlp_components, recorded


def by_depth(output, target, component, component_input=None):
    """InfoPro's weights by depth: the deeper, the less of reconstruction."""
    share = component / 3
    return share * F.mse_loss(output, target) + (1 - share) * F.l1_loss(output, component_input)


def model_of(m: int = 2, optimizer=sgd, loss=F.mse_loss, k: int = 4, **options) -> ib.InterlockingBackpropModel:
    return ib.build_model(*mlp_components(k), ib.local(k), optimizer, loss, n_microbatches=m, **options)


def losses(model, x, target) -> list[float]:
    model.training_step(x, target)
    return [loss.item() for loss in model.exit_losses]


def test_a_loss_for_each_head():
    x, target = batch()
    functions = [F.mse_loss, F.l1_loss, None]
    found = losses(model_of(aux_loss_function=functions, loss=F.smooth_l1_loss), x, target)
    expected = [
        losses(model_of(aux_loss_function=f, loss=F.smooth_l1_loss), x, target)[i]
        for i, f in enumerate((F.mse_loss, F.l1_loss, F.smooth_l1_loss, None))
    ]
    assert found == expected
    assert len(set(expected)) == 4


@pytest.mark.parametrize("m", [1, 2, 4])
def test_the_gradients_are_those_of_each_heads_loss(m):
    x, target = batch()
    model = model_of(m, Recorder, aux_loss_function=by_depth)
    model.training_step(x, target)
    y = x
    for i, component in enumerate(model.components):
        x_i, y = y, component.main_net(y.detach())
        output = y if component.aux_net is None else component.aux_net(y)
        loss = F.mse_loss(output, target) if i == 3 else by_depth(output, target, i, x_i.detach())
        parameters = list(component.parameters())
        for p, g in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            torch.testing.assert_close(recorded(model, p), g, rtol=0, atol=1e-12)


@pytest.mark.parametrize("functions", [[], [F.mse_loss] * 4])
def test_another_number_of_losses(functions):
    with pytest.raises(
        ValueError, match=rf"aux_loss_function has {len(functions)} entries for 4 components; expected 3"
    ):
        model_of(aux_loss_function=functions)


def test_costs_are_measured_with_a_loss_that_asks():
    assert len(model_of(aux_loss_function=by_depth).measure_costs(*batch(), repeats=1).components) == 4


def steps(rank: int, prepare) -> tuple:
    functions = [by_depth, F.l1_loss, by_depth]
    model = model_of(3, aux_loss_function=functions)
    prepare(model)
    for _ in range(3):
        model.training_step(*(batch(7) if rank == 0 else (None, None)))
    result = dict(model.state_dict()), model.exit_losses
    model.shutdown()
    return result


def on_rank(rank: int, size: int) -> tuple:
    return steps(rank, lambda model: model.enable_model_parallel())


@pytest.mark.parametrize("size", [2, 4])
def test_on_ranks_the_same(size):
    state, exit_losses = steps(0, lambda model: None)
    parts = on_ranks(size, on_rank)
    found = {name: value for part, _ in parts for name, value in part.items()}
    assert all(torch.equal(state[name], found[name]) for name in state)
    for i, loss in enumerate(exit_losses):
        assert [found[i] for _, found in parts if found[i] is not None] == [loss]
