"""Nets side by side, as heads with several outputs."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import interlocking_backprop as ib


def test_each_net_gets_the_whole_input():
    first, second = nn.Linear(3, 2), nn.Sequential(nn.Linear(3, 4), nn.Tanh())
    branches, x = ib.Branches({"first": first, "second": second}), torch.randn(5, 3)
    assert list(branches(x)) == ["first", "second"]
    assert torch.equal(branches(x)["first"], first(x))
    assert torch.equal(branches(x)["second"], second(x))
    assert [name for name, _ in branches.named_parameters()] == [
        *(f"first.{name}" for name in ("weight", "bias")),
        *(f"second.0.{name}" for name in ("weight", "bias")),
    ]


def test_a_head_of_branches_is_trained_by_a_loss_that_looks_at_all_of_them():
    torch.manual_seed(0)
    net, head = nn.Linear(3, 3), ib.Branches({"sum": nn.Linear(3, 1), "difference": nn.Linear(3, 1)})

    def loss(output, target):
        return F.mse_loss(output["sum"], target) + 2 * output["difference"].square().mean()

    def sgd(params):
        return torch.optim.SGD(params, lr=0.1)

    x, y = torch.randn(4, 3), torch.randn(4, 1)
    expected = torch.autograd.grad(loss(head(net(x)), y), [*net.parameters(), *head.parameters()])
    nets = [net, nn.Linear(3, 1)]
    model = ib.build_model(nets, [head], ib.local(2), sgd, F.mse_loss, aux_loss_function=loss, n_microbatches=2)
    found = model.gradients(x, y)[0]
    torch.testing.assert_close([*found.main.values(), *found.head.values()], list(expected))


@pytest.mark.parametrize("nets", [{}, [nn.Linear(1, 1)], {"scores": nn.Linear(1, 1), "image": None}])
def test_what_is_not_a_net_by_name_is_refused(nets):
    with pytest.raises(ValueError, match=r"nets is .*; expected at least one net|the branch 'image' is None; expected"):
        ib.Branches(nets)
