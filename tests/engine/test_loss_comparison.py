"""A loss that nobody knows is compared once: the first batch as a whole with its micro-batches."""

from __future__ import annotations

import warnings
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import interlocking_backprop as ib
from interlocking_backprop.bench.processes import on_ranks
from tests.small_models import sgd, weights
from tests.small_nets import mlp_components

X = torch.randn(8, 5, generator=torch.Generator().manual_seed(1)).double()
TARGET = torch.tensor([0, 1, 2, 3, 4, 0, 0, 0])


def ignoring(output, target):
    return F.cross_entropy(output, target, ignore_index=0)


def weighted(output, target):
    return F.cross_entropy(output, target, weight=torch.arange(1, 6).double())


def contrastive(output, target):
    """Two views of each sample, as the two halves of the batch."""
    a, b = F.normalize(output).chunk(2)
    return F.cross_entropy(a @ b.T, torch.arange(len(a)))


def mean_of_samples(output, target, component_input, network_input):
    return (output - component_input).square().sum(1).mean() + (output - network_input).abs().sum(1).mean()


def of_the_output(output, target, network_output):
    return (output - network_output).square().sum(1).mean()


def of_the_outputs_mean(output, target, network_output):
    return (output - network_output.mean(0)).square().sum(1).mean()


def model_of(loss, m: int = 2, **options) -> ib.InterlockingBackpropModel:
    return ib.build_model(*mlp_components(3), ib.local(3), sgd, loss, n_microbatches=m, **options)


def said(model, n_steps: int = 1, x=X, target=TARGET) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(n_steps):
            model.training_step(x, target)
    return [str(w.message) for w in caught if "first batch" in str(w.message)]


@pytest.mark.parametrize(("loss", "m"), [(ignoring, 2), (ignoring, 3), (weighted, 3), (contrastive, 2)])
def test_a_loss_that_is_no_mean_over_samples_is_named_once(loss, m):
    (message,) = said(model_of(loss, m), 3)
    assert f"the loss {loss.__name__} of component 0" in message
    assert "n_samples(target)" in message
    assert "put what belongs together into one sample" in message


def test_both_values_are_named():
    model = model_of(ignoring, aux_loss_function=F.cross_entropy)
    output = model(X)
    whole = ignoring(output, TARGET).item()
    parts = (ignoring(output[:4], TARGET[:4]) + ignoring(output[4:], TARGET[4:])).item() / 2
    (message,) = said(model)
    assert f"of component 2 gives {whole:.6g} for the first batch, but {parts:.6g} for its 2 micro-batches" in message


def test_the_gradient_is_compared_too():
    """A last layer of zeros gives every sample the same loss, whatever the mean is over."""
    nets, _ = mlp_components(1)
    for p in nets[0][-2].parameters():
        nn.init.zeros_(p)
    model = ib.build_e2e_model(nets, sgd, None, weighted, n_microbatches=2)
    (message,) = said(model)
    assert "gradients at its output that differ by" in message


@pytest.mark.parametrize(
    "loss", [mean_of_samples, of_the_output, lambda o, t: F.mse_loss(o, o.detach() ** 2), F.cross_entropy]
)
@pytest.mark.parametrize("m", [1, 2, 3, 8])
def test_nothing_is_said_of_means_over_samples(loss, m):
    assert said(model_of(lambda o, t: o.square().mean(), m, aux_loss_function=loss)) == []


def test_the_networks_output_is_part_of_the_comparison():
    (message,) = said(model_of(F.cross_entropy, aux_loss_function=of_the_outputs_mean))
    assert "of_the_outputs_mean of component 1 gives" in message


def test_nothing_is_said_if_the_loss_counts_itself():
    counting = partial(ignoring)
    counting.n_samples = lambda target: (target != 0).sum()
    assert said(model_of(counting)) == []
    assert said(model_of(partial(F.cross_entropy, ignore_index=0))) == []


def test_pairs_within_a_sample_are_not_cut_apart():
    def pairs(output, target):
        return (output[:, 0] - output[:, 1]).square().sum(1).mean()

    assert said(model_of(pairs), x=torch.stack([X, X + 1], 1)) == []


def test_two_views_as_one_sample():
    """The layout of docs/schemes.md: (B, 2, …) in, and rows pair by pair from the first component on."""
    seen = []
    for m in (1, 2, 3):
        nets, _ = mlp_components(2)
        nets[0] = nn.Sequential(nn.Flatten(0, 1), nets[0])

        def agreement(output, target):
            return (output[0::2] - output[1::2]).square().sum(1).mean()

        model = ib.build_e2e_model(nets, sgd, None, agreement, n_microbatches=m)
        assert said(model, x=torch.stack([X, X + 1], 1)) == []
        seen.append(weights(model))
    for other in seen[1:]:
        torch.testing.assert_close(other, seen[0], rtol=0, atol=1e-12)


def test_few_digits_are_no_difference():
    """Under autocast a batch of another size is rounded otherwise, though the loss itself is float32."""

    def mean(output, target):
        return output.mean().float()

    model = ib.build_e2e_model([nn.Linear(5, 5)], sgd, None, mean, n_microbatches=3)
    with torch.autocast("cpu", torch.bfloat16):
        assert said(model, x=torch.randn(999, 5), target=torch.zeros(999)) == []


def test_random_losses_and_those_that_remember_are_left_alone():
    class Remembering(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("n_calls", torch.zeros(()))

        def forward(self, output, target):
            self.n_calls += 1
            return output.square().mean() * self.n_calls

    loss = Remembering()
    assert said(model_of(loss, aux_loss_function=F.cross_entropy)) == []
    assert loss.n_calls == 2  # what is compared is a copy
    assert said(model_of(lambda o, t: (o * torch.rand_like(o)).mean())) == []


def test_a_loss_that_cannot_take_the_whole_batch_is_named():
    def of_four(output, target):
        return output.view(4, 5).square().mean()

    (message,) = said(model_of(of_four), 2)
    assert "of_four of component 0 could not be called with the first batch as a whole" in message


def test_training_is_the_same():
    silent, compared = model_of(mean_of_samples), model_of(mean_of_samples)
    for loss in silent.losses:
        loss.settle()
    for model in (silent, compared):
        assert said(model, 2) == []
    assert torch.equal(weights(silent), weights(compared))


def on_rank(rank: int, size: int) -> list[str]:
    model = model_of(ignoring)
    model.enable_model_parallel()
    messages = said(model, 2, *((X, TARGET) if rank == 0 else (None, None)))
    model.shutdown()
    return messages


def test_on_ranks_each_says_it_of_its_own_components():
    of_ranks = on_ranks(2, on_rank)
    assert [len(messages) for messages in of_ranks] == [1, 1]
    assert "of component 0" in of_ranks[0][0]
