"""Weights that components share: their gradients are summed, and the copies stay equal, wherever the components are."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import interlocking_backprop as ib
from interlocking_backprop.bench.processes import on_ranks
from interlocking_backprop.schedule.costs import ComponentCosts, Costs
from interlocking_backprop.schedule.list_scheduling import list_schedule
from interlocking_backprop.schedule.order import depth_first
from interlocking_backprop.schedule.simulate import simulate
from interlocking_backprop.scheme.streams import Workload
from tests import oracle
from tests.small_nets import Recorder, mlp_components, recorded

# The first components of each group have their first weight in common.
ENDS, THREE, TWO_PAIRS = [(0, -1)], [(0, 2, -1)], [(0, 2), (1, -1)]


def tied_nets(k: int, groups=ENDS, **options):
    main_nets, aux_nets = mlp_components(k, **options)
    for group in groups:
        first, *others = (main_nets[i] for i in group)
        for other in others:
            other[0].weight = first[0].weight
    return main_nets, aux_nets


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=1e-2)


def batch(size: int = 7, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, 5, generator=generator).double(), torch.randn(size, 5, generator=generator).double()


@pytest.mark.parametrize("optimizer", [sgd, torch.optim.AdamW], ids=["sgd", "adamw"])
@pytest.mark.parametrize("m", [1, 3])
@pytest.mark.parametrize("groups", [ENDS, THREE, TWO_PAIRS])
def test_end_to_end_is_ordinary_training(optimizer, m, groups):
    main_nets, _ = tied_nets(4, groups)
    plain = nn.Sequential(*copy.deepcopy(main_nets))
    plain_optimizer = optimizer(plain.parameters())
    model = ib.build_model(main_nets, [None] * 3, ib.e2e(4), optimizer, F.mse_loss, n_microbatches=m)
    for step in range(5):
        x, target = batch(seed=step)
        loss = model.training_step(x, target).result()
        plain_optimizer.zero_grad()
        expected = F.mse_loss(plain(x), target)
        expected.backward()
        plain_optimizer.step()
        torch.testing.assert_close(loss, expected.detach())
    trained = nn.Sequential(*(component.main_net for component in model.components))
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(trained.state_dict()[name], value, rtol=1e-10, atol=1e-10)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 5), st.integers(1, 3), st.integers(0, 10_000), st.booleans())
def test_gradients_are_the_sum_over_all_who_hold_the_weight(k, m, seed, one_is_frozen):
    matrix = np.triu(np.random.default_rng(seed).normal(size=(k, k)))
    if one_is_frozen:
        matrix[0] = 0
    main_nets, aux_nets = tied_nets(k, seed=seed)
    model = ib.build_model(main_nets, aux_nets, ib.Scheme(matrix), Recorder, F.mse_loss, n_microbatches=m)
    x, target = batch(seed=seed)
    parts = list(zip(x.tensor_split(m), target.tensor_split(m), strict=True))
    main, _ = oracle.gradients(main_nets, aux_nets, model.scheme, F.mse_loss, parts)
    main[0][0] = main[-1][0] = main[0][0] + main[-1][0]
    model.training_step(x, target)
    for net, expected in zip(main_nets, main, strict=True):
        for parameter, gradient in zip(net.parameters(), expected, strict=True):
            torch.testing.assert_close(recorded(model, parameter), gradient, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("scheme", ["local", "pairwise", "3wise-sum"])
def test_the_copies_stay_equal(scheme):
    model = ib.build_model(*tied_nets(4, THREE), ib.parse_scheme(scheme, 4), sgd, F.mse_loss, max_grad_norm=0.01)
    for step in range(4):
        model.training_step(*batch(seed=step))
    weights = [model.components[i].main_net[0].weight for i in (0, 2, 3)]
    assert len({id(w) for w in weights}) == 3
    assert all(torch.equal(w, weights[0]) for w in weights)


def test_untied_they_go_ways_of_their_own():
    model = ib.build_model(*tied_nets(3), ib.local(3), sgd, F.mse_loss, tied_weights="untie")
    first, last = (model.components[i].main_net[0].weight for i in (0, 2))
    assert torch.equal(first, last)
    model.training_step(*batch())
    assert not torch.equal(first, last)
    assert not model.ties


def test_an_untrained_shared_weight_costs_nothing():
    main_nets, aux_nets = tied_nets(3)
    main_nets[0][0].weight.requires_grad_(False)
    model = ib.build_model(main_nets, aux_nets, ib.local(3), sgd, F.mse_loss)
    assert "REDUCE_GRAD" not in str(model.schedule)
    model.training_step(*batch())
    assert torch.equal(main_nets[0][0].weight, main_nets[2][0].weight)


def test_bad_arguments():
    with pytest.raises(ValueError, match="tied_weights is 'cut'; expected 'keep' or 'untie'"):
        ib.build_model(*tied_nets(2), ib.local(2), sgd, F.mse_loss, tied_weights="cut")
    main_nets, aux_nets = mlp_components(2)
    aux_nets[0][0].weight = main_nets[1][0].weight
    with pytest.raises(
        ValueError, match="belongs to main net 1 too; expected heads that share parameters with other heads at most"
    ):
        ib.build_model(main_nets, aux_nets, ib.local(2), sgd, F.mse_loss)
    model = ib.build_model(*tied_nets(2), ib.local(2), sgd, F.mse_loss)
    model.components[1].main_net[0].weight.requires_grad_(False)
    with pytest.raises(ValueError, match="wants a gradient in some components and not in others"):
        model.training_step(*batch())


def train(model: ib.InterlockingBackpropModel) -> dict:
    for step, size in enumerate((7, 7, 5, 7, 7)):
        if step == 3:
            model.set_scheme(ib.pairwise(5))  # what was made ready for the scheme before is got rid of
        model.training_step(*(batch(size, step) if model.rank == 0 else (None, None)))
    return dict(model.state_dict())


CASES = [
    (scheme, groups, clip)
    for scheme in (ib.e2e(5), ib.local(5), ib.nwise(5, 3, "sum"))
    for groups in (ENDS, THREE, TWO_PAIRS)
    for clip in (None, 0.05)
]


def model_of(scheme, groups, clip) -> ib.InterlockingBackpropModel:
    nets = tied_nets(5, groups, dropout=0.3)
    return ib.build_model(*nets, scheme, sgd, F.mse_loss, n_microbatches=2, seed=3, max_grad_norm=clip)


def on_rank(rank: int, size: int) -> list[dict]:
    states = []
    for case in CASES:
        model = model_of(*case)
        model.enable_model_parallel()
        states.append(train(model))
        model.shutdown()
    return states


@pytest.mark.parametrize("size", [2, 3, 4])
def test_several_ranks_compute_the_same(size):
    on_several = on_ranks(size, on_rank)
    for n, case in enumerate(CASES):
        together = {name: value for states in on_several for name, value in states[n].items()}
        for name, value in train(model_of(*case)).items():
            assert torch.equal(together[name], value), (case, name)


def test_a_device_per_component_computes_the_same():
    for case in CASES:
        model = model_of(*case)
        model.enable_model_parallel(["cpu"] * 5)
        state = train(model)
        assert all(torch.equal(state[name], value) for name, value in train(model_of(*case)).items())


class TestSchedule:
    def test_one_device(self):
        workload = Workload.of(ib.local(3), ties=((0, 2),))
        order = " ".join(map(str, depth_first(workload).actions[0]))
        assert order == "0F0 0L0 0W0 0REDUCE_GRAD 1F0 1L0 1W0 1U 2F0 2L0 2W0 2REDUCE_GRAD 0U 2U"

    def test_the_simulator_shows_what_a_tie_costs(self):
        """Local learning needs 3 units a step. Tied, component 0 waits for the last one's gradient: all run as one.

        rank 0  F W W . .  W' …        F0 F1 F2 F3 then W3, the update of both ends, and F0 of the next step
        """
        tied = Workload.of(ib.local(4), ties=((0, 3),))
        times = [
            simulate(list_schedule(workload, 1, range(4)), Costs.uniform(4)).step_time
            for workload in (Workload.of(ib.local(4)), tied)
        ]
        assert times == [3, 4 + 2]

    def test_messages_are_counted_and_take_their_time(self):
        costs = Costs([ComponentCosts(shared_bytes=10)] * 4, latency=0.5, bandwidth=20)
        schedule = list_schedule(Workload.of(ib.local(4), ties=((0, 3),)), 1, range(4), costs)
        simulation = simulate(schedule, costs)
        # Three activations of no bytes and their latency on the way up, the shared gradient on the way down.
        assert simulation.step_time == 4 + 2 + 3 * 0.5 + (0.5 + 10 / 20)
        assert simulation.n_messages == (2, 1, 1, 1)
        assert simulation.message_bytes == (10, 0, 0, 10)

    def test_text_form(self):
        schedule = list_schedule(Workload.of(ib.local(4), ties=((0, 3),)), 2, range(4))
        assert type(schedule).from_json(schedule.to_json()) == schedule
