"""Gradients of several batches that make up one update."""

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
from tests import oracle
from tests.small_models import batch, model_of, weights
from tests.small_nets import Recorder, mlp_components, recorded


def built(scheme: ib.Scheme, **options) -> ib.InterlockingBackpropModel:
    sgd = lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)  # noqa: E731
    nets = mlp_components(scheme.n_components)
    return ib.build_model(*nets, scheme, sgd, F.mse_loss, **{"seed": 0, **options})


@settings(max_examples=25, deadline=None)
@given(
    k=st.integers(1, 5),
    m=st.integers(1, 4),
    sizes=st.lists(st.integers(1, 7), min_size=2, max_size=4),
    seed=st.integers(0, 999),
    parallel=st.booleans(),
)
def test_an_update_gets_the_mean_of_the_gradients_of_n_batches(k, m, sizes, seed, parallel):
    scheme = ib.Scheme(np.triu(np.random.default_rng(seed).normal(size=(k, k))), name="random")
    nets, heads = mlp_components(k)
    model = ib.build_model(nets, heads, scheme, Recorder, F.mse_loss, n_microbatches=m, accumulate=len(sizes))
    if parallel:
        model.enable_model_parallel(devices=["cpu"] * k)
    batches = [batch(size, seed) for seed, size in enumerate(sizes)]
    for n, (x, target) in enumerate(batches):
        assert all(not o.seen for c in model.components for o in c.optimizers), n
        loss = model.training_step(x, target).result()
        torch.testing.assert_close(loss, F.mse_loss(nn.Sequential(*nets)(x), target))
    # The micro-batches of all batches, each with the share that it has in the mean of the means.
    cut = [(x.tensor_split(min(m, len(x))), target.tensor_split(min(m, len(x)))) for x, target in batches]
    found = [oracle.gradients(nets, heads, scheme, F.mse_loss, list(zip(*parts, strict=True))) for parts in cut]
    for part, all_nets in enumerate((nets, heads)):
        for i, net in enumerate(all_nets):
            for n, p in enumerate(net.parameters()):
                expected = sum(gradients[part][i][n] for gradients in found) / len(sizes)
                torch.testing.assert_close(recorded(model, p), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("scheme", [ib.e2e(3), ib.nwise(3, 2, "sum"), ib.local(3)])
def test_halves_of_a_batch_are_the_batch(scheme):
    """Bit for bit, for a half is a power of two."""
    whole, halves = built(scheme, n_microbatches=4), built(scheme, n_microbatches=2, accumulate=2)
    for seed in range(3):
        x, target = batch(8, seed)
        whole.training_step(x, target)
        for part in zip(x.chunk(2), target.chunk(2), strict=True):
            halves.training_step(*part)
    assert torch.equal(weights(whole), weights(halves))


def test_shared_weights_stay_equal_and_are_the_plain_network_s():
    nets, _ = mlp_components(3)
    nets[2][0].weight = nets[0][0].weight
    plain = nn.Sequential(*copy.deepcopy(nets))
    sgd = lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)  # noqa: E731
    optimizer = sgd(plain.parameters())
    model = ib.build_e2e_model(nets, sgd, None, F.mse_loss, accumulate=2)
    for seed in range(4):
        x, target = batch(seed=seed)
        model.training_step(x, target)
        (F.mse_loss(plain(x), target) / 2).backward()
        if seed % 2:
            optimizer.step()
            optimizer.zero_grad()
    assert torch.equal(nets[2][0].weight, nets[0][0].weight)
    for net, other in zip(nets, plain, strict=True):
        for p, q in zip(net.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-14)


def test_with_global_clipping_and_a_loss_scale():
    clipped = {"max_grad_norm": 0.02, "clip_by": "global"}
    whole = built(ib.pairwise(3), n_microbatches=2, **clipped)
    scaler = torch.amp.GradScaler("cpu", growth_interval=1)
    halves = built(ib.pairwise(3), accumulate=2, grad_scaler=scaler, **clipped)
    for seed in range(3):
        x, target = batch(8, seed)
        whole.training_step(x, target)
        for part in zip(x.chunk(2), target.chunk(2), strict=True):
            halves.training_step(*part)
        assert scaler.get_scale() == 2.0 ** (17 + seed)
    torch.testing.assert_close(weights(whole), weights(halves), rtol=1e-12, atol=1e-14)


def test_a_scheme_that_changes_in_between_is_refused():
    model = built(ib.local(3), accumulate=2)
    model.training_step(*batch())
    model.set_scheme(ib.e2e(3))
    with pytest.raises(ValueError, match=r"1 of 2 batches are accumulated, and since then the scheme"):
        model.training_step(*batch())
    model.set_scheme(ib.local(3))
    model.training_step(*batch())
    model.set_scheme(ib.e2e(3))
    model.training_step(*batch())


def test_something_frozen_in_between_is_refused():
    model = built(ib.local(3), accumulate=3)
    model.training_step(*batch())
    model.components[1].main_net.requires_grad_(False)
    with pytest.raises(ValueError, match=r"1 of 3 batches are accumulated, and since then"):
        model.training_step(*batch())


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize("fails", ["in the loss", "in the batch"])
def test_after_a_failed_call_the_count_starts_again(fails):
    model, other = built(ib.pairwise(3), accumulate=2), built(ib.pairwise(3), accumulate=2)
    x, target = batch()
    model.training_step(x, target)
    with pytest.raises((ValueError, RuntimeError)):
        model.training_step(x[:0] if fails == "in the batch" else x, target[:, :3])
    for each in (model, other):
        each.training_step(x, target)
        each.training_step(*batch(seed=1))
    assert torch.equal(weights(model), weights(other))
    assert all(p.grad is None for p in model.parameters())


def test_a_state_is_saved_at_updates_alone():
    model = built(ib.pairwise(3), accumulate=2)
    model.training_step(*batch())
    with pytest.raises(ValueError, match=r"1 of 2 batches are accumulated, and their gradients are not part"):
        model.training_state_dict()
    model.training_step(*batch())
    state = copy.deepcopy((model.state_dict(), model.training_state_dict()))
    model.training_step(*batch(seed=1))
    model.load_state_dict(state[0])
    model.load_training_state_dict(state[1])  # what had been accumulated is dropped
    other = built(ib.pairwise(3), accumulate=2)
    for _ in range(2):
        other.training_step(*batch())
    for each in (model, other):
        for seed in (2, 3):
            each.training_step(*batch(seed=seed))
    assert torch.equal(weights(model), weights(other))


def test_the_number_is_checked():
    with pytest.raises(ValueError, match="accumulate is 0"):
        model_of(ib.local(2), accumulate=0)
