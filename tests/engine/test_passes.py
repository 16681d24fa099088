"""The passes that run are those that the scheme needs: counted with hooks on the autograd graph."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import interlocking_backprop as ib


class Counted(nn.Module):
    """A nonlinear component that counts the backward passes through it.

    An ``x * 1`` at its input runs backward only where the gradient of the input is asked for, a ``weight * 1`` only for
    that of the weights, and the nonlinearity at the output in every pass.
    """

    def __init__(self, index: int, counts: Counter) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 4))
        self.index, self.counts = index, counts

    def forward(self, x):
        x_once, weight_once = x * 1, self.weight * 1
        y = torch.tanh(x_once @ weight_once)
        for name, tensor in (("input", x_once), ("weight", weight_once), ("pass", y)):
            if tensor.grad_fn is not None:
                tensor.grad_fn.register_hook(lambda *_, name=name: self.counts.update([(self.index, name)]))
        return y


def passes_run(scheme: ib.Scheme, m: int = 1) -> list[tuple[int, int, int]]:
    """For each component the numbers of (all passes, input-gradient passes, weight-gradient passes)."""
    counts: Counter = Counter()
    k = scheme.n_components
    main_nets = [Counted(i, counts) for i in range(k)]
    heads = [nn.Linear(4, 4) for _ in range(k - 1)]
    model = ib.build_model(main_nets, heads, scheme, lambda p: torch.optim.SGD(p, lr=0.1), F.mse_loss, n_microbatches=m)
    model.training_step(torch.randn(6, 4), torch.randn(6, 4))
    return [tuple(counts[i, name] for name in ("pass", "input", "weight")) for i in range(k)]


def test_e2e_runs_one_joint_pass_per_component():
    assert passes_run(ib.e2e(4)) == [(1, 0, 1), (1, 1, 1), (1, 1, 1), (1, 1, 1)]


def test_deep_supervision_runs_one_joint_pass_per_component():
    assert passes_run(ib.deep_supervision(4)) == [(1, 0, 1), (1, 1, 1), (1, 1, 1), (1, 1, 1)]


def test_local_runs_one_weight_pass_per_component():
    assert passes_run(ib.local(4)) == [(1, 0, 1)] * 4


@pytest.mark.parametrize("reduction", ["furthest", "sum", "mean"])
@pytest.mark.parametrize("n", [2, 3, 4])
def test_nwise_runs_n_minus_1_input_passes_and_one_weight_pass(n, reduction):
    k = 9
    counted = passes_run(ib.nwise(k, n, reduction))
    assert counted[0] == (1, 0, 1)
    assert all(counted[i] == (n, n - 1, 1) for i in range(n - 1, k - n + 1))
    # The last loss trains the last N components: there the weight pass and an input pass are one.
    assert all(counted[i] == (k - i, k - i, 1) for i in range(k - n + 1, k))


def test_every_micro_batch_runs_the_same_passes():
    assert passes_run(ib.nwise(5, 3), m=3) == [tuple(3 * c for c in counts) for counts in passes_run(ib.nwise(5, 3))]


def test_a_frozen_component_passes_gradients_on_and_has_none_itself():
    assert passes_run(ib.Scheme([[0, 0, 1], [0, 0, 0], [0, 0, 1]])) == [(1, 0, 1), (1, 1, 0), (1, 1, 1)]


def test_nothing_runs_below_the_lowest_trained_component():
    assert passes_run(ib.Scheme([[0, 0, 0], [0, 0, 0], [0, 0, 1]])) == [(0, 0, 0), (0, 0, 0), (1, 0, 1)]


def test_components_without_weights_to_train_count_as_frozen():
    counts: Counter = Counter()
    main_nets = [Counted(i, counts) for i in range(3)]
    model = ib.build_e2e_model(main_nets, lambda p: torch.optim.SGD(p, lr=0.1), None, F.mse_loss)
    main_nets[0].requires_grad_(False)  # after the model was built
    model.training_step(torch.randn(6, 4), torch.randn(6, 4))
    assert counts == {(1, "pass"): 1, (1, "weight"): 1, (2, "pass"): 1, (2, "input"): 1, (2, "weight"): 1}
