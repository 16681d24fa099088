"""The published methods do what their papers say, by plain autograd."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn import functional as F

import interlocking_backprop as ib
from tests.recipes.registry import checks
from tests.recipes.steps import assert_gradients, of_definition, of_halves, weights


@checks("DGL")
def _(names, steps):
    (step,) = steps
    # Of component 0 by its own loss alone, without the scheme and without what is above.
    net, head = copy.deepcopy((step.nets[0], step.heads[0]))
    loss = F.cross_entropy(head(net(step.inputs)), step.targets)
    expected = torch.autograd.grad(loss, [*net.parameters(), *head.parameters()])
    assert_gradients({0: step.gradients[0]}, {0: list(expected)})
    assert_gradients(step.gradients, of_definition(step, scheme=ib.local(4)))
    assert {str(action.kind) for action in names["model"].schedule.actions[0]}.isdisjoint("IB")
    assert [sum(isinstance(m, nn.Conv2d) for m in head.modules()) for head in names["heads"]] == [3] * 3


@checks("PredSim")
def _(names, steps):
    (step,) = steps

    def cosines(x):
        x = x - x.mean(dim=1, keepdim=True)
        x = x / x.norm(dim=1, keepdim=True)
        return x @ x.T

    def loss(i, output, target):
        if i == 3:
            return F.cross_entropy(output, target)
        difference = cosines(output["features"].flatten(2).std(dim=2)) - cosines(torch.eye(10)[target])
        return 0.01 * F.cross_entropy(output["scores"], target) + 0.99 * difference.square().mean()

    assert_gradients(step.gradients, of_definition(step, loss, scheme=ib.local(4)))


@checks("InfoPro with weights per depth")
def _(names, steps):
    (step,) = steps

    def loss(i, output, target):
        if i == 3:
            return F.cross_entropy(output, target)
        of_image, of_scores = [(5.0, 0.5), (2.5, 0.75), (0.0, 1.0)][i]
        image = F.binary_cross_entropy(output["image"].sigmoid(), step.inputs)
        return of_image * image + of_scores * F.cross_entropy(output["scores"], target)

    assert_gradients(step.gradients, of_definition(step, loss, scheme=ib.local(4)))


@checks("AugLocal")
def _(names, steps):
    (step,) = steps
    assert_gradients(step.gradients, of_definition(step, scheme=ib.local(4)))
    blocks, n_above = names["blocks"], [len(names["main_nets"][i]) for i in range(4)]
    for i, (head, n_chosen) in enumerate(zip(step.heads[:3], (3, 2, 1), strict=True)):
        above = blocks[sum(n_above[: i + 1]) : -3]
        assert len(head) == min(n_chosen, len(above)) + 3
        assert [str(block) for block in head] == [str(block) for block in [*above[: len(head) - 3], *blocks[-3:]]]
        own, of_network = head[0][0].weight, {id(p): p for block in blocks for p in block.parameters()}
        assert not {id(p) for p in names["heads"][i].parameters()} & set(of_network)
        assert not any(torch.equal(own, p) for net in step.nets for p in net.parameters())


@checks("Momentum heads")
def _(names, steps):
    assert len(steps) == 4
    averages = [copy.deepcopy(net).requires_grad_(False) for net in steps[0].nets[1:]]
    start = weights(averages)
    for step in steps:
        heads = [*map(nn.Sequential, averages, [step.heads[0][1], step.heads[1][1], nn.Identity()]), None]
        assert_gradients(step.gradients, of_definition(step, scheme=ib.local(4), heads=heads))
        for average, after in zip(averages, step.after[1:], strict=True):
            for p, new in zip(average.parameters(), after, strict=True):
                p.data = 0.995 * p + 0.005 * new
    found = [head_copy.module for head_copy in names["averages"]]
    torch.testing.assert_close(weights(found), weights(averages), rtol=1e-6, atol=1e-7)
    assert not any(torch.equal(a[0], b[0]) for a, b in zip(weights(found), start, strict=True))
    for average, net in zip(found, names["main_nets"][1:], strict=True):
        assert all(map(torch.equal, average.buffers(), net.buffers()))


@checks("A stale shared readout")
def _(names, steps):
    assert len(steps) == 4
    for t, step in enumerate(steps):
        readout = copy.deepcopy(steps[t - t % 2].nets[3][-1]).requires_grad_(False)  # of the beginning, or the second
        heads = [*(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), readout) for _ in range(3)), None]
        assert_gradients(step.gradients, of_definition(step, scheme=ib.local(4), heads=heads))
    model = names["model"]
    assert not torch.equal(readout.weight, steps[3].nets[3][-1].weight)  # it was stale
    assert torch.equal(model.components[0].aux_net[2].module.weight, names["readout"].weight)  # after the fourth
    held = {p for c in model.components for o in c.optimizers for group in o.param_groups for p in group["params"]}
    assert held == {p for net in names["main_nets"] for p in net.parameters()}
    assert sum(torch.equal(names["readout"].weight, tensor) for tensor in model.state_dict().values()) == 4


@checks("Distillation")
def _(names, steps):
    (step,) = steps
    y = step.inputs
    with torch.no_grad():
        for net in copy.deepcopy(step.nets):
            y = net(y)

    def loss(i, output, target):
        if i == 3:
            return F.cross_entropy(output, target)
        student, teacher = (output / 3).log_softmax(1), (y / 3).log_softmax(1)
        divergence = (teacher.exp() * (teacher - student)).sum(1).mean()
        return 0.7 * F.cross_entropy(output, target) + 0.3 * 9 * divergence

    assert_gradients(step.gradients, of_definition(step, loss, scheme=ib.local(4)))


@checks("HPFF's cascade")
def _(names, steps):
    (step,) = steps
    nets, heads = copy.deepcopy(([step.nets[i] for i in (0, 1, 3, 5)], [step.heads[i] for i in (0, 1, 3)]))
    of_pairs = [*copy.deepcopy([step.heads[2], step.heads[4]]), nn.Identity()]
    heads.append(nn.Identity())
    x = step.inputs
    for k, net in enumerate(nets):
        x = x.detach()
        loss = F.cross_entropy(heads[k](net(x)), step.targets)  # its own head
        if k == 3:
            loss = 0 * loss  # the network's loss is that of the last pair as well, and counts once
        if k > 0:  # the pair that it ends
            loss = loss + F.cross_entropy(of_pairs[k - 1](net(x)), step.targets)
        if k < 3:  # the pair that it begins
            loss = loss + F.cross_entropy(of_pairs[k](nets[k + 1](net(x))), step.targets)
        expected = torch.autograd.grad(loss, list(net.parameters()))
        place = (0, 1, 3, 5)[k]
        assert_gradients({k: step.gradients[place][: len(expected)]}, {k: list(expected)})
        x = net(x)


@checks("Two views")
def _(names, steps):
    (step,) = steps
    halves = torch.cat([names["images"], names["images"].flip(-1)])  # the views one after the other
    nets = [step.nets[0][1], *step.nets[1:]]

    def loss(i, output, _):
        first, second = (half / half.norm(dim=1, keepdim=True) for half in output.chunk(2))
        return -((first @ second.T) / 0.1).log_softmax(dim=1).diagonal().mean()

    assert step.inputs.shape == (64, 2, 1, 16, 16)
    assert_gradients(step.gradients, of_definition(step, loss, nets=nets, inputs=halves, scheme=ib.nwise(4, 2, "sum")))


@checks("Late credit")
def _(names, steps):
    assert len(steps) == 4
    near, far = ([of_halves(step, scheme) for step in steps] for scheme in (ib.pairwise(4), ib.e2e(4)))
    for t, step in enumerate(steps):
        for i, delay in enumerate((1, 1, 1, 0)):  # 2 (3 - i) units of the way in a step of 6, rounded up
            n, rate = len(step.before[i]), 0.05 / (1 + delay) ** 0.5
            expected = [0.5 * g for g in near[t][i][:n]]
            if t >= delay:
                expected = [e + 0.5 * g for e, g in zip(expected, far[t - delay][i], strict=False)]
            # The gradients, none of the head's late, and what became of them.
            assert_gradients({i: step.gradients[i]}, {i: [*expected, *near[t][i][n:]]})
            moved = [before - rate * g for before, g in zip(step.before[i], expected, strict=True)]
            torch.testing.assert_close(step.after[i], moved, rtol=1e-6, atol=1e-6)
