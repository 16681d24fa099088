"""PyTorch's own hooks in a training step: how often they are called, and what they change."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import interlocking_backprop as ib
from interlocking_backprop.schedule.action import PASSES

SCHEMES = [ib.e2e(4), ib.local(4), ib.pairwise(4), ib.nwise(4, 3), ib.Scheme([[1, 0, 1], [0, 0, 0], [0, 0, 1]])]
WHERE = pytest.mark.parametrize("parallel", [False, True], ids=["one device", "a device each"])


class Net(nn.Module):
    """Two layers; hooks can be put on the tensors between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.tensor_hooks: dict[str, object] = {}

    def forward(self, x):
        linear = self._hooked("linear", self.first(x))
        return torch.tanh(self.second(self._hooked("tanh", torch.tanh(linear))))

    def _hooked(self, name, tensor):
        if name in self.tensor_hooks and tensor.requires_grad:
            tensor.register_hook(self.tensor_hooks[name])
        return tensor


def model_of(scheme: ib.Scheme, m: int, parallel: bool):
    torch.manual_seed(0)
    k = scheme.n_components
    main_nets, heads = [Net().double() for _ in range(k)], [nn.Linear(4, 4).double() for _ in range(k - 1)]
    sgd = lambda p: torch.optim.SGD(p, lr=0.5)  # noqa: E731
    model = ib.build_model(main_nets, heads, scheme, sgd, F.mse_loss, n_microbatches=m, seed=0)
    if parallel:
        model.enable_model_parallel(["cpu"] * k)
    return model, main_nets, heads


def step(model: ib.InterlockingBackpropModel) -> None:
    generator = torch.Generator().manual_seed(1)
    model.training_step(*(torch.randn(6, 4, generator=generator).double() for _ in range(2)))


@WHERE
@pytest.mark.parametrize("m", [1, 3])
@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.name)
@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
def test_how_often_they_are_called(scheme, m, parallel):
    model, main_nets, heads = model_of(scheme, m, parallel)
    counts: Counter = Counter()

    def count(*key):
        return lambda *_: counts.update([key])

    for i, net in enumerate(main_nets):
        for name, module in (("net", net), ("first", net.first), ("second", net.second)):
            module.register_forward_pre_hook(count(i, name, "forward pre"))
            module.register_forward_hook(count(i, name, "forward"))
            module.register_full_backward_pre_hook(count(i, name, "backward pre"))
            module.register_full_backward_hook(count(i, name, "backward"))
        for name, module in (("first", net.first), ("second", net.second)):
            module.weight.register_hook(count(i, name, "gradient"))
            module.weight.register_post_accumulate_grad_hook(count(i, name, "accumulated"))
    for i, head in enumerate(heads):
        head.register_forward_hook(count(i, "head", "forward"))
        head.register_full_backward_hook(count(i, "head", "backward"))
        head.weight.register_hook(count(i, "head", "gradient"))
        head.weight.register_post_accumulate_grad_hook(count(i, "head", "accumulated"))
    for part in (model, *model.components):
        part.register_forward_hook(count("model"))
    for component in model.components:
        for optimizer in component.optimizers:
            optimizer.register_step_pre_hook(count("update"))
    step(model)

    expected: Counter = Counter()
    for i, work in enumerate(ib.Workload.of(scheme, [True] * scheme.n_components).components):
        passes = Counter(p.kind for p in work.passes)
        of_weights, of_inputs = passes["W"] + passes["B"], passes["I"] + passes["B"]
        for name in ("net", "first", "second"):
            expected[i, name, "forward pre"] = expected[i, name, "forward"] = 1
            expected[i, name, "backward pre"] = passes.total()
            # Where no input wants a gradient the hook is called with that of the output.
            every_pass = name == "second" or not work.streams
            expected[i, name, "backward"] = passes.total() if every_pass else of_inputs
        for name in ("first", "second"):
            expected[i, name, "gradient"] = expected[i, name, "accumulated"] = of_weights
        for kind in ("forward", "backward", "gradient", "accumulated") if i < len(heads) else ():
            expected[i, "head", kind] = 1
    expected = Counter({key: m * n for key, n in expected.items()})
    expected["update",] = scheme.n_components
    assert +counts == +expected


@WHERE
@pytest.mark.parametrize("m", [1, 3])
@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.name)
def test_how_often_those_of_tensors_are_called(scheme, m, parallel):
    model, main_nets, _ = model_of(scheme, m, parallel)
    counts: Counter = Counter()
    for i, net in enumerate(main_nets):
        net.tensor_hooks = {name: lambda _, key=(i, name): counts.update([key]) for name in ("linear", "tanh")}
    step(model)
    expected: Counter = Counter()
    for i, work in enumerate(ib.Workload.of(scheme).components):
        expected[i, "tanh"] = m * len(work.passes)
        # A branch leaves for weights right there: both halves of a joint pass go by.
        expected[i, "linear"] = sum(a.component == i and a.kind in PASSES for _, a in model.schedule)
    assert any(counts[i, "linear"] > counts[i, "tanh"] for i in range(4)) == (parallel and scheme.name != "local")
    assert counts == +expected


@WHERE
@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.name)
@pytest.mark.parametrize("where", ["linear", "tanh", "input of a module", "output of a module", "weight"])
def test_what_they_change_they_change_once(where, scheme, parallel):
    """Doubling every gradient at one place of each net, as plain autograd with the same hooks has it."""
    model, main_nets, heads = model_of(scheme, 1, parallel)
    for net in main_nets:
        if where == "weight":
            net.second.weight.register_hook(lambda g: 2 * g)
        elif where == "input of a module":
            net.second.register_full_backward_hook(lambda _, inputs, __: tuple(2 * g for g in inputs))
        elif where == "output of a module":
            net.second.register_full_backward_pre_hook(lambda _, outputs: tuple(2 * g for g in outputs))
        else:
            net.tensor_hooks = {where: lambda g: 2 * g}
    before = [{p: p.detach().clone() for p in net.parameters()} for net in main_nets]
    generator = torch.Generator().manual_seed(1)
    y, target = (torch.randn(6, 4, generator=generator).double() for _ in range(2))
    losses = []
    for net, head in zip(main_nets, [*heads, nn.Identity()], strict=True):
        y = net(y)
        losses.append(F.mse_loss(head(y), target))
    gradients = []
    for i, net in enumerate(main_nets):
        parameters, total = list(net.parameters()), None
        if scheme.matrix[i].any():
            row = sum(float(c) * loss for c, loss in zip(scheme.matrix[i], losses, strict=True) if c)
            total = torch.autograd.grad(row, parameters, retain_graph=True)
        gradients.append(total or [torch.zeros_like(p) for p in parameters])
    step(model)
    for net, old, grads in zip(main_nets, before, gradients, strict=True):
        for p, gradient in zip(net.parameters(), grads, strict=True):
            torch.testing.assert_close(p.detach(), old[p] - 0.5 * gradient, rtol=0, atol=1e-12)
