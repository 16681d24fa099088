"""A training step as one reads it aloud: what the engine computes, to the bit, without the engine.

Each action is a few lines of autograd on the graph of one component and one micro-batch. The graph is cut at both ends:
its input is a leaf of its own, and the gradient at its output comes from outside, from the component's own loss and in
streams from the component above. The scheme says which streams there are, the schedule which action comes next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from interlocking_backprop.schedule.action import Kind
from interlocking_backprop.schedule.order import depth_first
from interlocking_backprop.scheme.coefficients import Scheme
from interlocking_backprop.scheme.streams import Workload


def training_step(
    main_nets: Sequence[nn.Module],
    heads: Sequence[nn.Module],
    scheme: Scheme,
    loss_function: Callable[[Tensor, Tensor], Tensor],
    optimizers: Sequence[Optimizer],
    inputs: Tensor,
    targets: Tensor,
    n_microbatches: int,
) -> Tensor:
    """Trains every component on one batch, and returns the loss of the network."""
    exits = [*heads, nn.Identity()]  # at the last component the network's own output comes out
    workload = Workload.of(scheme, heads=[True] * len(exits))
    target = targets.tensor_split(n_microbatches)

    # By component and micro-batch: inputs, outputs, losses and their gradients; streams by their number as well.
    x = {(0, m): part for m, part in enumerate(inputs.tensor_split(n_microbatches))}
    y, loss, loss_gradient, streams = {}, {}, {}, {}

    for i, kind, m, stream, _ in depth_first(workload, n_microbatches).actions[0]:
        if kind is Kind.FORWARD:
            y[i, m] = main_nets[i](x[i, m])
            x[i + 1, m] = y[i, m].detach().requires_grad_()

        elif kind is Kind.LOSS:  # trains the head and ends at the output of the component
            share = len(target[m]) / len(targets)
            loss[i, m] = loss_function(exits[i](x[i + 1, m]), target[m]) * share
            loss_gradient[i, m] = backward(loss[i, m], None, exits[i].parameters(), x[i + 1, m])

        elif kind is Kind.UPDATE:
            optimizers[i].step()
            optimizers[i].zero_grad()

        else:  # a backward pass: I makes a stream for the component below, W trains the weights, B does both
            work = workload.components[i]
            source = (work.weight_passes[0] if stream is None else work.input_pass(stream)).source
            gradient = loss_gradient[i, m] * source.loss
            for s, coefficient in source.streams:
                gradient = gradient.add(streams[i + 1, m, s], alpha=coefficient)
            weights = [] if kind is Kind.BACKWARD_INPUT else main_nets[i].parameters()
            leaf = None if kind is Kind.BACKWARD_WEIGHT else x[i, m]
            streams[i, m, stream] = backward(y[i, m], gradient, weights, leaf)

    return sum(loss[len(heads), m].detach() for m in range(n_microbatches))


def backward(y: Tensor, gradient: Tensor | None, weights: Iterable[nn.Parameter], leaf: Tensor | None) -> Tensor | None:
    """Adds to the gradients of the weights, and returns that of the leaf."""
    weights = list(weights)
    leaves = [] if leaf is None else [leaf]
    found = torch.autograd.grad(y, [*weights, *leaves], gradient, retain_graph=True)
    for weight, more in zip(weights, found, strict=False):
        weight.grad = more if weight.grad is None else weight.grad + more
    return found[-1]
