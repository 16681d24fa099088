"""Gradients in hand, and functions of `on_gradients`, where updates wait for one another or batches accumulate."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

import interlocking_backprop as ib
from tests.small_models import batch, weights
from tests.small_nets import mlp_components

OPTIONS = {
    "clipped globally": {"max_grad_norm": 1e-3, "clip_by": "global"},
    "scaled": {"grad_scaler": True},
    "accumulated": {"accumulate": 2},
    "all": {"max_grad_norm": 1e-3, "clip_by": "global", "grad_scaler": True, "accumulate": 2},
}


def built(options: dict) -> ib.InterlockingBackpropModel:
    options = dict(options)
    if options.pop("grad_scaler", False):
        options["grad_scaler"] = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    sgd = lambda p: torch.optim.SGD(p, lr=0.1)  # noqa: E731
    return ib.build_model(*mlp_components(3), ib.pairwise(3), sgd, F.mse_loss, n_microbatches=2, seed=0, **options)


def flat(found) -> torch.Tensor:
    return torch.cat([g.flatten() for each in found for part in each[:2] for g in part.values()])


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_gradients_are_those_of_the_batch_alone_and_change_nothing(options):
    model, plain, undisturbed = built(options), built({}), built(options)
    for each in (model, undisturbed):
        each.training_step(*batch(8, seed=1))
    plain.load_state_dict(model.state_dict())
    scales = [c.grad_scaler and c.grad_scaler.get_scale() for c in model.components]
    assert torch.equal(flat(model.gradients(*batch(8))), flat(plain.gradients(*batch(8))))
    assert [c.grad_scaler and c.grad_scaler.get_scale() for c in model.components] == scales
    for each in (model, undisturbed):
        each.training_step(*batch(8, seed=2))
    assert torch.equal(weights(model), weights(undisturbed))


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_functions_see_them_once_an_update_unscaled_and_unclipped(options):
    model, plain = built(options), built({})
    n = options.get("accumulate", 1)
    expected = sum(flat(plain.gradients(*batch(8, seed=k))) for k in range(n)) / n
    seen = []
    model.on_gradients(lambda component, parameters: seen.append((component, [p.grad.clone() for p in parameters])))
    for k in range(n):
        model.training_step(*batch(8, seed=k))
    assert sorted(component for component, _ in seen) == [0, 1, 2]
    found = torch.cat([g.flatten() for _, grads in sorted(seen, key=lambda s: s[0]) for g in grads])
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-15)


def test_functions_are_not_called_where_an_overflow_skips_the_updates():
    overflowing = lambda o, t: F.mse_loss(o, t) * 1e300  # noqa: E731
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**100)
    sgd = lambda p: torch.optim.SGD(p, lr=0.1)  # noqa: E731
    model = ib.build_model(*mlp_components(3), ib.pairwise(3), sgd, overflowing, grad_scaler=scaler)
    seen = []
    model.on_gradients(lambda component, parameters: seen.append(component))
    before = weights(model)
    model.training_step(*batch(8))
    assert torch.equal(weights(model), before)
    assert scaler.get_scale() == 2.0**99
    assert seen == []
