"""Heads that are one module, or share weights: these follow the sum of the losses of their exits."""

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
from interlocking_backprop.schedule.list_scheduling import list_schedule
from interlocking_backprop.schedule.order import depth_first
from interlocking_backprop.schedule.schedule import Schedule
from interlocking_backprop.scheme.streams import Workload
from tests import oracle
from tests.small_models import batch, sgd
from tests.small_nets import Recorder, mlp_components, recorded

K = 4
RANDOM = ib.Scheme(np.triu(np.random.default_rng(3).normal(size=(K, K))), name="random")
NO_FIRST_ROW = ib.Scheme([[0, 0, 0, 0], *ib.pairwise(K).matrix[1:]], name="no first row")


def nets(k: int = K, sharing=((0, 1, 2),), seed: int = 0, tied: bool = False, **options):
    """In each group the heads are one module; tied, the first and the last main net share a weight too."""
    main_nets, aux_nets = mlp_components(k, seed=seed, **options)
    for first, *others in sharing:
        for i in others:
            aux_nets[i] = aux_nets[first]
    if tied:
        main_nets[-1][0].weight = main_nets[0][0].weight
    return main_nets, aux_nets


def model_of(scheme, m=1, constructor=sgd, sharing=((0, 1, 2),), tied=False, dropout=0.2, **options):
    parts = nets(scheme.n_components, sharing, tied=tied, dropout=dropout)
    return ib.build_model(*parts, scheme, constructor, F.mse_loss, n_microbatches=m, seed=0, **options)


def trained(model, rank=0, n_steps=3) -> dict[str, torch.Tensor]:
    for step in range(n_steps):
        model.training_step(*(batch(7, seed=step) if rank == 0 else (None, None)))
    return {name: value.clone() for name, value in model.state_dict().items()}


def heads_of(model) -> list[nn.Module]:
    return [component.aux_net for component in model.components[:-1]]


@settings(max_examples=25, deadline=None)
@given(st.integers(3, 5), st.integers(1, 3), st.integers(0, 10_000), st.booleans(), st.booleans())
def test_the_oracle_holds(k, m, seed, tied, without_rows):
    random = np.random.default_rng(seed)
    group = tuple(sorted(random.choice(k - 1, size=random.integers(2, k), replace=False).tolist()))
    matrix = np.triu(random.normal(size=(k, k)))
    if without_rows:
        matrix[random.integers(k)] = 0
    main_nets, aux_nets = nets(k, (group,), seed)
    plain = copy.deepcopy((main_nets, aux_nets))
    if tied:
        main_nets[-1][0].weight = main_nets[0][0].weight
        plain[0][-1][0].weight.data.copy_(plain[0][0][0].weight)
    scheme = ib.Scheme(matrix)
    model = ib.build_model(main_nets, aux_nets, scheme, Recorder, F.mse_loss, n_microbatches=m)
    x, target = batch(7, seed=seed)
    parts = list(zip(x.tensor_split(m), target.tensor_split(m), strict=True))
    main, aux = oracle.gradients(*plain, scheme, F.mse_loss, parts)
    if tied:
        main[0][0] = main[-1][0] = main[0][0] + main[-1][0]
    totals = [sum(gradients) for gradients in zip(*(aux[i] for i in group), strict=True)]
    aux = [totals if i in group else gradients for i, gradients in enumerate(aux)]
    model.training_step(x, target)
    for i, component in enumerate(model.components):
        head = list(component.aux_net.parameters()) if component.aux_net is not None else []
        for parameter, gradient in zip([*component.main_net.parameters(), *head], [*main[i], *aux[i]], strict=True):
            torch.testing.assert_close(recorded(model, parameter), gradient, rtol=1e-10, atol=1e-10)
    for i in group:
        for found, expected in zip(model.gradients(x, target)[i].head.values(), totals, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("optimizer", [sgd, torch.optim.AdamW])
def test_with_probes_it_is_the_training_of_one_module(optimizer):
    """The loop: end to end, and a head in common that is trained on all exits."""
    main_nets, aux_nets = nets()
    network, head = copy.deepcopy((nn.ModuleList(main_nets), aux_nets[0]))
    optimizers = [optimizer(network.parameters()), optimizer(head.parameters())]
    model = ib.build_model(main_nets, aux_nets, ib.e2e(K), optimizer, F.mse_loss, n_microbatches=2)
    for step in range(5):
        x, target = batch(8, seed=step)
        model.training_step(x, target)
        for o in optimizers:
            o.zero_grad()
        for net in network[:-1]:
            x = net(x)
            F.mse_loss(head(x.detach()), target).backward()
        F.mse_loss(network[-1](x), target).backward()
        for o in optimizers:
            o.step()
    for found in heads_of(model):
        for p, q in zip(found.parameters(), head.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"max_grad_norm": 0.01},
        {"max_grad_norm": 0.01, "clip_by": "global"},
        {"accumulate": 2},
        {"aux_lr_factor": 3.0},
    ],
    ids=str,
)
def test_the_copies_stay_equal(options):
    model = model_of(RANDOM, **options)
    before = [p.clone() for p in heads_of(model)[0].parameters()]
    trained(model, n_steps=4)
    first, *others = heads_of(model)
    assert len({id(head) for head in heads_of(model)}) == 3
    assert not any(torch.equal(p, q) for p, q in zip(first.parameters(), before, strict=True))
    for other in others:
        assert all(torch.equal(p, q) for p, q in zip(first.parameters(), other.parameters(), strict=True))


def test_accumulated_batches_are_summed_once():
    accumulating, whole = model_of(RANDOM, accumulate=2, dropout=0.0), model_of(RANDOM, dropout=0.0)
    x, target = batch(8)
    for part, expected in zip(x.split(4), target.split(4), strict=True):
        accumulating.training_step(part, expected)
    whole.training_step(x, target)
    for p, q in zip(accumulating.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("clip", [None, 0.01])
def test_a_part_in_common(clip):
    main_nets, aux_nets = mlp_components(3)
    readout = nn.Linear(5, 5).double()
    aux_nets = [nn.Sequential(head, readout) for head in aux_nets]
    model = ib.build_model(main_nets, aux_nets, ib.local(3), sgd, F.mse_loss, max_grad_norm=clip)
    trained(model)
    first, second = heads_of(model)
    assert torch.equal(first[1].weight, second[1].weight)
    assert not torch.equal(first[0][0].weight, second[0][0].weight)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("scheme", [ib.local(K), RANDOM, NO_FIRST_ROW], ids=lambda s: s.name)
def test_a_device_for_each_component(scheme, tied):
    for m in (1, 3):
        expected = trained(model_of(scheme, m=m, tied=tied, sharing=((0, 2),)))
        model = model_of(scheme, m=m, tied=tied, sharing=((0, 2),))
        model.enable_model_parallel(["cpu"] * K)
        found = trained(model)
        assert all(torch.equal(value, expected[name]) for name, value in found.items())


@pytest.mark.parametrize(("size", "m"), [(2, 1), (4, 2)])
def test_ranks(size, m):
    several = on_ranks(size, _on_rank, m)
    for n, (scheme, tied, sharing) in enumerate(_CASES):
        expected = trained(model_of(scheme, m=m, tied=tied, sharing=sharing))
        found = {name: value for results in several for name, value in results[n].items()}
        assert found.keys() == expected.keys()
        assert all(torch.equal(value, expected[name]) for name, value in found.items()), (scheme.name, tied, sharing)


_CASES = [
    (scheme, tied, sharing)
    for scheme in (ib.local(K), RANDOM, NO_FIRST_ROW)
    for tied, sharing in [(False, ((0, 1, 2),)), (True, ((0, 2),))]
]


def _on_rank(rank, size, m):
    results = []
    for scheme, tied, sharing in _CASES:
        model = model_of(scheme, m=m, tied=tied, sharing=sharing)
        model.enable_model_parallel()
        results.append(trained(model, rank))
        model.shutdown()
    return results


def test_untied_they_go_ways_of_their_own():
    model = model_of(ib.local(K), tied_weights="untie")
    trained(model)
    first, second, _ = heads_of(model)
    assert not torch.equal(first[0].weight, second[0].weight)
    assert "REDUCE_GRAD" not in str(model.schedule)


def test_frozen_they_cost_nothing():
    model = model_of(ib.local(K))
    assert "REDUCE_GRAD" in str(model.schedule)
    for head in heads_of(model):
        head.requires_grad_(False)
    assert "REDUCE_GRAD" not in str(model.schedule)
    trained(model)
    heads_of(model)[1][0].weight.requires_grad_(True)
    with pytest.raises(ValueError, match=r"shared weight 'aux_net.0.weight' of component 0 .* set requires_grad alike"):
        trained(model)


def test_optimizers_that_differ_are_refused_with_a_remedy_that_works():
    sgd_with = lambda params, lr: torch.optim.SGD(params, lr=lr)  # noqa: E731
    by_index = lambda params, component: sgd_with(params, 0.1 + component)  # noqa: E731
    with pytest.raises(ValueError, match=r"'aux_net\.0\.weight' of component 1.* is updated by different optimizers"):
        model_of(ib.local(K), constructor=by_index)
    trained(model_of(ib.local(K), constructor=by_index, tied_weights="untie"))
    trained(model_of(ib.local(K), constructor=by_index, aux_optimizer_constructor=sgd))


def test_a_module_of_a_main_net_is_refused_with_a_remedy_that_works():
    main_nets, aux_nets = mlp_components(3)
    with pytest.raises(ValueError, match=r"module 'Linear' of head 0 is in main net 2 too.*copy.deepcopy.*HeadCopy"):
        ib.build_model(main_nets, [main_nets[2][2], aux_nets[1]], ib.local(3), sgd, F.mse_loss)
    ib.build_model(main_nets, [copy.deepcopy(main_nets[2][2]), aux_nets[1]], ib.local(3), sgd, F.mse_loss)


class TestSchedules:
    def test_one_process(self):
        workload = Workload.of(ib.e2e(3), heads=[True] * 3)
        assert "REDUCE_GRAD" not in str(depth_first(workload, 1))
        workload = Workload(ib.local(3), (True,) * 3, (True,) * 3, head_ties=((0, 1),))
        order = " ".join(map(str, depth_first(workload, 1).actions[0]))
        assert order == "0F0 0L0 0W0 0REDUCE_GRAD 1F0 1L0 1W0 1REDUCE_GRAD 0U 1U 2F0 2L0 2W0 2U"

    def test_the_gradients_of_heads_are_there_after_the_losses(self):
        workload = Workload(ib.pairwise(3), (True,) * 3, (True,) * 3, head_ties=((0, 1),))
        schedule = list_schedule(workload, 2, range(3))
        ib.validate(schedule)
        text = schedule.to_csv()
        assert text.count("REDUCE_GRAD") == 2
        early = text.replace(",0L1", "").replace(",0REDUCE_GRAD", ",0REDUCE_GRAD,0L1")
        with pytest.raises(ib.ScheduleError, match="0REDUCE_GRAD waits for ever for 0L1"):
            ib.validate(schedule.with_order(early))

    def test_nothing_is_handed_on_where_nothing_is_updated(self):
        workload = Workload(ib.local(3), (True,) * 3, (True,) * 3, head_ties=((0, 1),))
        assert "REDUCE_GRAD" not in str(depth_first(workload.accumulating))

    def test_as_json(self):
        schedule = list_schedule(Workload(ib.local(3), (True,) * 3, (True,) * 3, head_ties=((0, 1),)), 1, range(3))
        assert Schedule.from_json(schedule.to_json()) == schedule
