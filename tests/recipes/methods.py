"""The published methods do what their papers say, by plain autograd."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn import functional as F

import interlocking_backprop as ib
from tests.recipes.registry import checks
from tests.recipes.steps import assert_gradients, of_definition


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
