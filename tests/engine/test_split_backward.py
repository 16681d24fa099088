"""A joint backward pass in two halves gives the numbers of the whole one, to the bit, at the cost of the whole one."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from interlocking_backprop.engine.split_backward import SplitBackward


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8)
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x):
        q, k, v = (t.unflatten(-1, (2, 4)).transpose(1, 2) for t in self.qkv(self.norm(x)).chunk(3, -1))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return x + self.out(y.transpose(1, 2).flatten(2))


class SharedWeight(nn.Module):
    """The same weight twice on the way to the input: the halves cannot be told apart."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x):
        return self.layer(torch.tanh(self.layer(x)))


class WeightNormed(nn.Module):
    """A branch with nodes of its own between the spine and the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.v, self.g = nn.Parameter(torch.randn(8, 8)), nn.Parameter(torch.ones(8, 1))

    def forward(self, x):
        return x @ (self.v / self.v.norm(dim=1, keepdim=True) * self.g).T


class TwoOutputs(nn.Module):
    """The second output does not depend on the input."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.position = nn.Linear(8, 8), nn.Parameter(torch.randn(8))

    def forward(self, x):
        return self.layer(x), torch.sin(self.position).expand(x.shape[0], -1)


class InnerOutput(nn.Module):
    """The first output is on the way to the second one."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        y = self.first(x)
        return y, self.second(torch.tanh(y))


class Hooked(nn.Module):
    """A hook on the tensor at which a branch leaves for the weights changes the gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x):
        y = self.layer(x)
        y.register_hook(lambda g: 3 * g)
        return torch.tanh(y)


NETS = {
    "mlp": lambda: nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8), nn.GELU()),
    "batch norm": lambda: nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU(inplace=True), nn.Linear(8, 3)),
    "attention": lambda: nn.Sequential(Attention(), Attention()),
    "convolution": lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3, groups=2)
    ),
    "shared weight": SharedWeight,
    "weight norm": lambda: nn.Sequential(WeightNormed(), nn.Tanh(), WeightNormed()),
    "two outputs": TwoOutputs,
    "inner output": InnerOutput,
    "hook": lambda: nn.Sequential(Hooked(), Hooked()),
    "identity": nn.Identity,
    "weights unused": lambda: nn.Sequential(nn.Linear(8, 8).requires_grad_(False), nn.Linear(8, 8)),
}
INPUTS = {"attention": (3, 5, 8), "convolution": (3, 2, 6, 6)}


@pytest.mark.parametrize("name", NETS)
def test_the_halves_give_what_the_whole_gives(name):
    torch.manual_seed(0)
    net = NETS[name]()
    parameters = [p for p in net.parameters() if p.requires_grad]
    x = torch.randn(INPUTS.get(name, (6, 8)), requires_grad=True)

    def outputs():
        y = net(x)
        return list(y) if isinstance(y, tuple) else [y]

    whole = outputs()
    gradient = [torch.randn_like(y) for y in whole]
    torch.autograd.backward(whole, gradient, inputs=[*parameters, x])
    expected = [x.grad, *(p.grad for p in parameters)]
    x.grad = None
    net.zero_grad()

    split = SplitBackward(outputs(), [x], parameters)
    (input_gradient,) = split.inputs(gradient)
    assert all(p.grad is None for p in parameters)
    split.weights(keep_graph=False)
    for wanted, got in zip(expected, [input_gradient, *(p.grad for p in parameters)], strict=True):
        assert torch.equal(wanted, got)


def test_the_second_half_accumulates():
    net = NETS["mlp"]()
    x = torch.randn(6, 8, requires_grad=True)
    for factor in (1, 2):
        split = SplitBackward([net(x)], [x], list(net.parameters()))
        split.inputs([torch.ones(6, 8)])
        split.weights(keep_graph=False)
        grads = [p.grad.clone() for p in net.parameters()]
        if factor == 1:
            first = grads
    for once, twice in zip(first, grads, strict=True):
        torch.testing.assert_close(2 * once, twice)


def test_every_node_runs_once():
    """The second half does not walk through the component again."""
    counts: Counter = Counter()

    class Layer(nn.Module):
        def __init__(self, index):
            super().__init__()
            self.weight, self.index = nn.Parameter(torch.randn(4, 4)), index

        def forward(self, x):
            x_once, weight_once = x * 1, self.weight * 1
            for name, t in (("input", x_once), ("weight", weight_once)):
                t.grad_fn.register_hook(lambda *_, name=name: counts.update([(self.index, name)]))
            return torch.tanh(x_once @ weight_once)

    net = nn.Sequential(*map(Layer, range(4)))
    x = torch.randn(3, 4, requires_grad=True)
    split = SplitBackward([net(x)], [x], list(net.parameters()))
    split.inputs([torch.ones(3, 4)])
    assert counts == {(i, "input"): 1 for i in range(4)}
    split.weights(keep_graph=False)
    assert counts == {(i, name): 1 for i in range(4) for name in ("input", "weight")}


def test_saved_tensors_are_freed_by_the_second_half():
    kept = []

    class Saved:
        def __init__(self, tensor):
            self.tensor = tensor.detach()  # an output itself would keep its own graph alive
            kept.append(1)

        def __del__(self):
            kept.pop()

    x = torch.randn(3, 4, requires_grad=True)
    net = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
    with torch.autograd.graph.saved_tensors_hooks(Saved, lambda saved: saved.tensor):
        outputs = [net(x)]
    split = SplitBackward(outputs, [x], list(net.parameters()))
    split.inputs([torch.ones(3, 4)])
    assert kept
    split.weights(keep_graph=False)
    del split, outputs
    assert not kept
