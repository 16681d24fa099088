"""Costs of actions: what is timed for each component, and the bytes, which can be worked out by hand."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import interlocking_backprop as ib
from interlocking_backprop.planning.measured_costs import measure_costs


@pytest.fixture
def model():
    torch.manual_seed(0)
    nets = [nn.Sequential(nn.Linear(6, 6), nn.Tanh()) for _ in range(3)]
    return ib.build_model(
        nets, [nn.Linear(6, 6), None], ib.Scheme([[1, 0, 0], [0, 0, 1], [0, 0, 1]]), torch.optim.Adam, nn.MSELoss()
    )


def costs(model, n=4, **options):
    x = torch.ones(n, 6)
    return measure_costs(model.components, model.losses, x, x, 1, **options).components


def test_what_a_component_does_takes_time_and_what_it_does_not_takes_none(model):
    first, second, last = costs(model)
    for c in (first, second, last):
        assert min(c.forward, c.backward_weight, c.full_backward, c.split_weight, c.update) > 0
    assert (first.backward_input, second.loss) == (0, 0)
    assert min(second.backward_input, last.backward_input, first.loss, last.loss) > 0


def test_without_heads_theirs_is_left_out(model, monkeypatch):
    assert [c.loss > 0 for c in costs(model, heads=False)] == [False, False, True]
    updated = []
    monkeypatch.setattr(
        torch.optim.Adam,
        "step",
        lambda self: updated.append(sum(p.grad is not None for g in self.param_groups for p in g["params"])),
    )
    costs(model, heads=False)
    costs(model)
    assert updated == [2, 2, 2, 2, 2, 2, 4, 4, 2, 2, 2, 2]  # a warm-up and one that counts, of each component


def test_bytes_are_those_of_tensors(model):
    for n in (4, 8):
        first, second, last = costs(model, n)
        for c in (first, second, last):
            assert c.output_bytes == n * 6 * 4
            assert c.gradient_bytes == (6 * 6 + 6) * 4
        # The input of the linear layer, which its weights need, and the output of tanh.
        assert first.saved_bytes == second.saved_bytes == last.saved_bytes == 2 * n * 6 * 4


def test_the_model_and_the_random_numbers_stay_as_they_were(model):
    before, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    costs(model)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())
    assert all(not component.optimizer.state for component in model.components)
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), random)
