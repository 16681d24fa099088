"""A copy of a model is a model of its own: it computes with its own weights, and trains them alone."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import interlocking_backprop as ib
from interlocking_backprop.bench.processes import on_ranks
from tests.small_models import batch, model_of, weights

K = 3


def train(model: ib.InterlockingBackpropModel, n_steps: int, first: int = 0) -> None:
    for n in range(first, first + n_steps):
        model.training_step(*batch(seed=n))


def halving(optimizer):
    return torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)


OPTIONS = {
    "plain": {},
    "micro-batches": {"n_microbatches": 2},
    "clipped globally": {"max_grad_norm": 0.1, "clip_by": "global"},
    "accumulating": {"accumulate": 2},
    "with a loss scale": {"grad_scaler": torch.amp.GradScaler("cpu")},
}


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
@pytest.mark.parametrize("n_before", [0, 2])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_copy_is_trained_alone_and_as_the_original(options, n_before, copied):
    model = model_of(ib.pairwise(K), lr_scheduler_constructor=halving, **copy.deepcopy(options))
    train(model, n_before)
    other = copied(model)
    before = weights(model)
    assert torch.equal(weights(other), before)
    train(other, 2, n_before)
    other.lr_scheduler_step()
    train(other, 2, n_before + 2)
    assert torch.equal(weights(model), before)
    train(model, 2, n_before)
    model.lr_scheduler_step()
    train(model, 2, n_before + 2)
    assert not torch.equal(weights(model), before)
    assert torch.equal(weights(other), weights(model))


@pytest.mark.parametrize("devices", [None, ["cpu"] * K])
def test_a_copy_computes_with_its_own_weights(devices):
    model = model_of(ib.pairwise(K))
    if devices:
        model.enable_model_parallel(devices)
    x, _ = batch()
    model.eval()(x)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(2)
    expected = x
    for component in other.components:
        expected = component.main_net(expected)
    assert torch.equal(other(x), expected)
    assert torch.equal(other.forward_exits(x)[-1], expected)
    assert not torch.equal(model(x), expected)


def test_averaged_weights_are_those_that_the_averaged_model_computes_with():
    model = model_of(ib.pairwise(K))
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    for n in range(3):
        train(model, 1, n)
        averaged.update_parameters(model)
    expected = x = batch()[0]
    for component in averaged.eval().module.components:
        expected = component.main_net(expected)
    assert torch.equal(averaged(x), expected)
    assert not torch.equal(model.eval()(x), expected)


def test_no_copy_while_gradients_wait():
    model = model_of(ib.pairwise(K), accumulate=2)
    train(model, 1)
    with pytest.raises(ValueError, match=r"1 of 2 batches are accumulated.* copy it after every 2th"):
        copy.deepcopy(model)
    train(model, 1)
    copy.deepcopy(model)


def copied_on_rank(rank: int, size: int) -> bool:
    model = model_of(ib.pairwise(K))
    model.enable_model_parallel()
    with pytest.raises(ValueError, match=r"on several ranks cannot be copied.*copy the components"):
        copy.deepcopy(model)
    first = model.components[model.local_components[0]]
    own = copy.deepcopy(first)
    model.training_step(*(batch() if rank == 0 else (None, None)))
    model.shutdown()
    return torch.equal(weights(own), weights(first))


def test_on_ranks_components_are_copied_one_by_one():
    assert on_ranks(2, copied_on_rank) == [False, False]
