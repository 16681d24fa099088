"""Heads that are copies of another component's weights: a plain loop with `copy.deepcopy` gives the same."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import interlocking_backprop as ib
from interlocking_backprop.bench.processes import on_ranks
from tests import oracle
from tests.engine.copied import SOURCES, K, model_of, nets, same, sgd, trained
from tests.small_models import batch

RANDOM = ib.Scheme(np.triu(np.random.default_rng(3).normal(size=(K, K))), name="random")
FROZEN_SOURCE = ib.Scheme([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]], name="frozen source")


def loop(main_nets, aux_nets, scheme, m, n_steps) -> None:
    """The definition: gradients by the oracle, one optimizer a net, and copies that are refreshed after all updates."""
    copies = {i: head for i, head in enumerate(aux_nets) if isinstance(head, ib.HeadCopy)}
    heads = [copies[i].module.requires_grad_(True) if i in copies else head for i, head in enumerate(aux_nets)]
    optimizers = [sgd(net.parameters()) for net in main_nets]
    head_optimizers = [sgd(head.parameters()) for head in heads]
    for t in range(1, n_steps + 1):
        x, target = batch(7, seed=t - 1)
        parts = list(zip(x.tensor_split(m), target.tensor_split(m), strict=True))
        main, aux = oracle.gradients(main_nets, heads, scheme, F.mse_loss, parts)
        for i, (net, gradients) in enumerate(zip([*main_nets, *heads], [*main, *aux[:-1]], strict=True)):
            is_head, i = i >= len(main_nets), i % len(main_nets)
            if (is_head and i in copies) or not (is_head or scheme.matrix[i].any()):
                continue
            for parameter, gradient in zip(net.parameters(), gradients, strict=True):
                parameter.grad = gradient
            (head_optimizers if is_head else optimizers)[i].step()
        for i, head_copy in copies.items():
            source = head_copy.source
            if head_copy.every is not None and t % head_copy.every == 0:
                heads[i].load_state_dict(source.state_dict())
            elif head_copy.momentum is not None:
                beta = head_copy.momentum
                for own, new in zip(heads[i].parameters(), source.parameters(), strict=True):
                    own.data = beta * own.data + (1 - beta) * new.data
                for own, new in zip(heads[i].buffers(), source.buffers(), strict=True):
                    own.copy_(new)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(3, 5),
    st.integers(1, 3),
    st.sampled_from(sorted(SOURCES)),
    st.sampled_from(
        [{"every": 1}, {"every": 2}, {"every": 3}, {"momentum": 0.0}, {"momentum": 0.7}, {"momentum": 0.999}]
    ),
    st.integers(0, 10_000),
    st.sampled_from(["here", "devices"]),
)
def test_the_loop_gives_the_same(k, m, source, when, seed, where):
    random = np.random.default_rng(seed)
    n_copied = k - 2 if source == "another head" else k - 1
    copied = tuple(i for i in range(n_copied) if i == 0 or random.integers(2))
    scheme = ib.Scheme(np.triu(random.normal(size=(k, k))) * random.integers(0, 2, size=(k, 1)))
    assume(scheme.uses.any())
    main_nets, aux_nets = nets(k, source, copied, seed, **when)
    plain = copy.deepcopy((main_nets, aux_nets))
    model = ib.build_model(main_nets, aux_nets, scheme, sgd, F.mse_loss, n_microbatches=m)
    if where == "devices":
        model.enable_model_parallel(["cpu"] * k)
    trained(model, steps=range(6))
    loop(*plain, scheme, m, 6)
    for net, expected in zip([*main_nets, *aux_nets], [*plain[0], *plain[1]], strict=True):
        for name, value in expected.state_dict().items():
            torch.testing.assert_close(net.state_dict()[name], value, rtol=1e-8, atol=1e-9)


_CASES = [
    (source, scheme, when)
    for source in SOURCES
    for scheme, when in [(ib.local(K), {"every": 2}), (RANDOM, {"momentum": 0.9}), (FROZEN_SOURCE, {"every": 1})]
]


@pytest.mark.parametrize("m", [1, 3])
def test_a_device_for_each_component(m):
    for source, scheme, when in _CASES:
        expected = trained(model_of(source, scheme, (0, 1), when, m, dropout=0.2))
        model = model_of(source, scheme, (0, 1), when, m, dropout=0.2)
        model.enable_model_parallel(["cpu"] * K)
        assert same(trained(model), expected), (source, scheme.name)


@pytest.mark.parametrize(("size", "m"), [(2, 2), (3, 1), (4, 2)])
def test_ranks(size, m):
    several = on_ranks(size, _on_rank, m)
    for n, (source, scheme, when) in enumerate(_CASES):
        model = model_of(source, scheme, (0, 1), when, m, dropout=0.2)
        expected = trained(model)
        found = {name: value for results in several for name, value in results[n][0].items()}
        assert same(found, expected), (source, scheme.name, when)
        exits = model.eval().map_exits(F.mse_loss, *batch(7))
        assert [
            next(v for v in values if v is not None) for values in zip(*(r[n][1] for r in several), strict=True)
        ] == exits


def _on_rank(rank, size, m):
    results = []
    for source, scheme, when in _CASES:
        model = model_of(source, scheme, (0, 1), when, m, dropout=0.2)
        model.enable_model_parallel()
        state = trained(model, rank)
        exits = model.eval().map_exits(F.mse_loss, *(batch(7) if rank == 0 else (None, None)))
        results.append((state, exits))
        model.shutdown()
    return results


def test_large_weights_on_ranks():
    """They travel as they are, and the next update of the source must not reach them on their way."""
    found = [name for part in on_ranks(2, _wide_on_rank) for name in part]
    assert same(dict(found), _wide_steps(_wide_model()))


def _wide_model():
    torch.manual_seed(0)
    main_nets = [nn.Sequential(nn.Linear(400, 400), nn.Tanh()) for _ in range(2)]
    heads = [ib.HeadCopy(main_nets[1], momentum=0.5)]
    return ib.build_model(main_nets, heads, ib.local(2), sgd, F.mse_loss)


def _wide_steps(model, rank=0):
    for step in range(6):
        generator = torch.Generator().manual_seed(step)
        x, target = torch.randn(4, 400, generator=generator), torch.randn(4, 400, generator=generator)
        model.training_step(*((x, target) if rank == 0 else (None, None)))
    return {name: value.clone() for name, value in model.state_dict().items()}


def _wide_on_rank(rank, size):
    model = _wide_model()
    model.enable_model_parallel()
    return list(_wide_steps(model, rank).items())


class TestWhen:
    def test_the_copy_is_used_from_the_next_update_on(self):
        model = model_of(when={"every": 2})
        head_copy, source = model.components[0].aux_net, model.components[-1].main_net[-2]
        assert torch.equal(head_copy.module.weight, source.weight)
        start, seen = source.weight.clone(), []
        for step in range(4):
            model.training_step(*batch(seed=step))
            seen.append((head_copy.module.weight.clone(), source.weight.clone()))
        assert torch.equal(seen[0][0], start)
        assert torch.equal(seen[1][0], seen[1][1])
        assert torch.equal(seen[2][0], seen[1][1])
        assert torch.equal(seen[3][0], seen[3][1])

    def test_the_schedule_is_that_of_the_next_step(self):
        model = model_of(when={"every": 2})
        for step in range(4):
            assert ("3GIVE" in str(model.schedule)) == (step % 2 == 1)
            assert ("0COPY" in str(model.schedule)) == (step % 2 == 1)
            model.training_step(*batch(seed=step))

    def test_the_weights_at_build_are_the_first_ones(self):
        main_nets, aux_nets = nets(K, "readout", every=5)
        main_nets[-1][-2].weight.data.fill_(0.25)
        model = ib.build_model(main_nets, aux_nets, ib.local(K), sgd, F.mse_loss)
        assert (model.components[0].aux_net.module.weight == 0.25).all()

    def test_accumulated_batches_count_once(self):
        model = model_of(when={"every": 1}, accumulate=3)
        head_copy, source = model.components[0].aux_net, model.components[-1].main_net[-2]
        start = source.weight.clone()
        for step in range(5):
            model.training_step(*batch(seed=step))
            assert torch.equal(head_copy.module.weight, start) == (step < 2)
        assert torch.equal(head_copy.module.weight, source.weight)

    def test_gradients_leave_the_copy_alone(self):
        model = model_of(when={"momentum": 0.5})
        trained(model)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        found = model.gradients(*batch())
        assert found[0].head == {}
        assert found[1].head
        model.alignment(*batch())
        assert same(dict(model.state_dict()), before)

    def test_a_scheme_that_changes_keeps_the_copy(self):
        model, twin = model_of(when={"momentum": 0.5}), model_of(when={"momentum": 0.5})
        trained(model, steps=range(2))
        head_copy = model.components[0].aux_net
        before = head_copy.module.weight.clone()
        model.set_scheme(ib.pairwise(K))
        assert model.components[0].aux_net is head_copy
        assert torch.equal(head_copy.module.weight, before)
        trained(model, steps=range(2, 4))
        trained(twin, steps=range(2))
        twin.set_scheme(ib.pairwise(K))
        twin.enable_model_parallel(["cpu"] * K)
        assert same(trained(twin, steps=range(2, 4)), dict(model.state_dict()))

    def test_global_clipping(self):
        """All updates wait for the last gradient, and the copies for the update of their source."""
        model = model_of(when={"every": 1}, max_grad_norm=0.1, clip_by="global")
        trained(model, steps=range(2))
        assert torch.equal(model.components[0].aux_net.module.weight, model.components[-1].main_net[-2].weight)

    def test_an_update_that_a_loss_scale_skips_counts(self):
        model = model_of(when={"every": 2}, grad_scaler=torch.amp.GradScaler("cpu"))
        head_copy, source = model.components[0].aux_net, model.components[-1].main_net[-2]
        start = source.weight.clone()
        x, target = batch()
        model.training_step(x, torch.full_like(target, torch.inf))
        assert torch.equal(source.weight, start)
        model.training_step(x, target)
        assert not torch.equal(source.weight, start)
        assert torch.equal(head_copy.module.weight, source.weight)
