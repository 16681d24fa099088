"""What the recipes have done: their training steps, and what these should have applied, by plain autograd."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import interlocking_backprop as ib


class Step(NamedTuple):
    """One call of `training_step`."""

    nets: list[nn.Module]  # as they were before it
    heads: list[nn.Module | None]
    scheme: ib.Scheme
    inputs: Tensor
    targets: Tensor
    gradients: dict[int, list[Tensor]]  # before clipping; empty without an update
    before: list[list[Tensor]]  # weights of the main nets
    after: list[list[Tensor]]


def recorded(monkeypatch: pytest.MonkeyPatch) -> list[Step]:
    """A list that gets every training step of every model from now on."""
    made: list[Step] = []
    train = ib.InterlockingBackpropModel.training_step

    def training_step(model, inputs, targets):
        gradients: dict[int, list[Tensor]] = {}
        nets, heads = copy.deepcopy([[c.main_net for c in model.components], [c.aux_net for c in model.components]])
        handle = model.on_gradients(lambda i, ps: gradients.update({i: [p.grad.clone() for p in ps]}))
        future = train(model, inputs, targets)
        handle.remove()
        step = Step(nets, heads, model.scheme, inputs, targets, gradients, weights(nets), weights(main_nets_of(model)))
        made.append(step)
        return future

    monkeypatch.setattr(ib.InterlockingBackpropModel, "training_step", training_step)
    return made


def main_nets_of(model) -> list[nn.Module]:
    return [component.main_net for component in model.components]


def weights(nets) -> list[list[Tensor]]:
    return [[p.detach().clone() for p in net.parameters()] for net in nets]


def flat(rows: list[list[Tensor]]) -> list[Tensor]:
    return [tensor for row in rows for tensor in row]


def of_definition(
    step: Step, loss: Callable[[int, Any, Tensor], Tensor] | None = None, **other
) -> dict[int, list[Tensor]]:
    """The gradients that each component and its head are to follow, by autograd on the plain undetached graph.

    Args:
        step: whose weights, scheme and batch count.
        loss: of the component, the output at its exit and the targets; by default cross-entropy.
        other: what counts in place of the step's own.
    """
    nets, heads, scheme, x, target = copy.deepcopy(step._replace(**other)[:5])
    losses = []
    for i, (net, head) in enumerate(zip(nets, heads, strict=True)):
        x = net(x)
        output = x if head is None else head(x)
        losses.append(F.cross_entropy(output, target) if loss is None else loss(i, output, target))
    found = {}
    for i, (net, head) in enumerate(zip(nets, heads, strict=True)):
        wanted = sum(float(scheme.matrix[i, j]) * losses[j] for j in range(i, len(nets)))
        found[i] = list(torch.autograd.grad(wanted, list(net.parameters()), retain_graph=True))
        trained = [p for p in head.parameters() if p.requires_grad] if head is not None else []
        if trained:
            found[i] += torch.autograd.grad(losses[i], trained, retain_graph=True)
    return found


def of_halves(step: Step, scheme: ib.Scheme) -> dict[int, list[Tensor]]:
    """The same for a step of two micro-batches of the same size."""
    halves = zip(step.inputs.chunk(2), step.targets.chunk(2), strict=True)
    first, second = (of_definition(step, inputs=x, targets=y, scheme=scheme) for x, y in halves)
    return {i: [(a + b) / 2 for a, b in zip(first[i], second[i], strict=True)] for i in first}


def assert_gradients(found: dict[int, list[Tensor]], expected: dict[int, list[Tensor]]) -> None:
    assert sorted(found) == sorted(expected)
    for i, gradients in expected.items():
        # Those that sum to nothing, as of a bias before a batch normalisation, are noise of rounding.
        scale = max(float(g.abs().max()) for g in gradients)
        torch.testing.assert_close(found[i], gradients, rtol=1e-3, atol=1e-4 * scale)
