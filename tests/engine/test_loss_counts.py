"""Losses that are no means over samples: any number of micro-batches gives the gradient of the whole batch."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import interlocking_backprop as ib
from interlocking_backprop.bench.processes import on_ranks
from tests import oracle
from tests.small_nets import Recorder, mlp_components, recorded

WEIGHT = torch.tensor([0.1, 2.0, 0.0, 1.0, 0.5]).double()  # a class of weight 0 counts for nothing
LOSSES = {
    "cross_entropy": F.cross_entropy,
    "other index": partial(F.cross_entropy, ignore_index=3),
    "weighted": partial(F.cross_entropy, weight=WEIGHT),
    "weighted, ignoring": partial(F.cross_entropy, weight=WEIGHT, ignore_index=1),
    "smoothed": partial(F.cross_entropy, label_smoothing=0.2),
    "module": nn.CrossEntropyLoss(weight=WEIGHT + 0.1, ignore_index=0, label_smoothing=0.1),
    "nll": lambda: None,
}


def nll(output, target):
    return F.nll_loss(output.log_softmax(1), target, ignore_index=2)


nll.n_samples = lambda target: (target != 2).sum()
LOSSES["nll"] = nll


def gradients(model, nets) -> list[torch.Tensor]:
    return [recorded(model, p) for net in nets for p in net.parameters()]


def stepped(loss, m: int, x, target, scheme: ib.Scheme):
    """The loss of a step, and all gradients."""
    main_nets, aux_nets = mlp_components(scheme.n_components)
    model = ib.build_model(main_nets, aux_nets, scheme, Recorder, loss, n_microbatches=m, seed=3)
    value = model.training_step(x, target).result()
    return value, gradients(model, (*main_nets, *aux_nets))


@st.composite
def batches(draw):
    """Inputs, and targets of which many are ignored, all of them in some micro-batch."""
    size = draw(st.integers(4, 11))
    classes = st.sampled_from([-100, -100, -100, 0, 1, 2, 3, 4])
    target = draw(st.lists(classes, min_size=size, max_size=size))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    return torch.randn(size, 5, generator=generator).double(), torch.tensor([*target[:-1], 4])


@settings(max_examples=60, deadline=None)
@given(batches(), st.sampled_from(list(LOSSES)), st.integers(2, 4), st.integers(0, 99))
def test_any_loss_that_counts_something_else(batch, name, m, seed):
    """The oracle is plain autograd on the whole batch."""
    x, target = batch
    if name in ("other index", "weighted, ignoring", "module", "nll"):  # their own index of what is ignored
        target = target.where(target >= 0, {"other index": 3, "weighted, ignoring": 1, "module": 0, "nll": 2}[name])
    loss = LOSSES[name]
    k = 3
    scheme = ib.Scheme(np.triu(np.random.default_rng(seed).normal(size=(k, k))))
    main_nets, aux_nets = mlp_components(k)
    expected = oracle.gradients(main_nets, aux_nets, scheme, _plain(loss), [(x, target)], key=(3, 0))
    value, found = stepped(loss, m, x, target, scheme)
    y = x
    for net in main_nets:
        y = net(y)
    torch.testing.assert_close(value, _plain(loss)(y, target).detach(), rtol=1e-12, atol=0)
    flat = [g for grads in (*expected[0], *expected[1]) for g in grads]
    torch.testing.assert_close(found, flat, rtol=0, atol=1e-10)


def _plain(loss):
    return lambda output, target: loss(output, target)


def test_a_batch_in_which_nothing_counts_is_what_pytorch_makes_of_it():
    x, target = torch.randn(4, 5).double(), torch.full((4,), -100)
    for m in (1, 2):
        value, found = stepped(F.cross_entropy, m, x, target, ib.local(2))
        assert value.isnan()
        assert all((g == 0).all() for g in found)


def test_targets_of_several_dimensions_and_probabilities():
    scores, masks = torch.randn(6, 5, 3).double(), torch.randint(5, (6, 3))
    masks[0], masks[4, 1] = -100, -100
    for target in (masks, torch.rand(6, 5, 3).double()):
        seen = []
        for m in (1, 2, 4):
            torch.manual_seed(0)
            net = nn.Conv1d(5, 5, 1).double()
            model = ib.build_e2e_model([net], Recorder, None, F.cross_entropy, n_microbatches=m)
            seen.append([model.training_step(scores, target).result(), *gradients(model, [net])])
        for other in seen[1:]:
            torch.testing.assert_close(other, seen[0], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    "loss",
    [
        nn.CrossEntropyLoss(reduction="sum"),
        partial(F.mse_loss, reduction="none"),
        partial(F.nll_loss, size_average=False),
        nn.KLDivLoss(reduction="sum"),
    ],
)
def test_a_sum_is_refused(loss):
    with pytest.raises(ValueError, match=r"the loss \w+ has reduction='(sum|none)'; expected reduction='mean'"):
        ib.build_e2e_model(mlp_components(1)[0], Recorder, None, loss)


def test_what_n_samples_returns_is_looked_at():
    x, target = torch.randn(4, 5).double(), torch.arange(4)
    for count in ([2], torch.tensor([1, 1]), -1, float("nan")):
        loss = lambda output, target: F.cross_entropy(output, target)  # noqa: E731
        loss.n_samples = lambda target, count=count: count
        with pytest.raises(ValueError, match=r"n_samples\(target\) of the loss .* returned .*; expected a number"):
            stepped(loss, 2, x, target, ib.local(2))


def on_rank(rank: int, size: int) -> list:
    return steps(lambda model: model.enable_model_parallel(), rank)


def steps(prepare, rank: int = 0) -> list:
    x, target = torch.randn(11, 5, generator=torch.Generator().manual_seed(0)).double(), torch.arange(11) % 5
    target[:6] = -100
    loss = partial(F.cross_entropy, weight=WEIGHT)
    heads = [F.cross_entropy, None]
    sgd = lambda p: torch.optim.SGD(p, lr=0.1)  # noqa: E731
    model = ib.build_model(*mlp_components(3), ib.nwise(3, 2), sgd, loss, n_microbatches=4, aux_loss_function=heads)
    prepare(model)
    for _ in range(2):
        model.training_step(*((x, target) if rank == 0 else (None, None)))
    state = dict(model.state_dict())
    model.shutdown()
    return [model.exit_losses, state]


def test_on_ranks_the_same():
    expected_losses, expected = steps(lambda model: None)
    parts = on_ranks(2, on_rank)
    state = {name: value for _, part in parts for name, value in part.items()}
    assert all(torch.equal(expected[name], state[name]) for name in expected)
    for i, loss in enumerate(expected_losses):
        assert loss in [losses[i] for losses, _ in parts]
