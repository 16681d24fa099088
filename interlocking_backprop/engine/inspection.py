"""Gradients in hand: those that a training step would apply, as plain data, and how two of them compare.

The executor carries out an ordinary step; where a component would be updated, its gradients are taken. What a step
leaves behind beside them (gradients of somebody else's that it would add to, running averages) is put back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from interlocking_backprop.engine.component import Component


class ComponentGradients(NamedTuple):
    """The gradients of one component.

    A parameter that gets none is left out, for an optimizer would not touch it: one that is frozen or that the forward
    pass does not use; and all of the main net if the component's row of the scheme is zero, but for weights that it
    shares with components whose row is not.

    Attributes:
        main: of the main net's parameters, by their names in it; shaped like the parameters, as all that follow.
        head: of the head's parameters, by their names in it, which follow the head's own loss (those that heads share
            the sum of the losses of their exits); empty without a head, and for one that is a copy.
        by_loss: on request, for each loss that contributes to ``main``, by its index, its contribution: the gradient of
            ``scheme.matrix[i, j] * loss_j`` for component i and loss j (for shared weights the sum of these over all
            components that share them). The contributions sum to ``main``, up to rounding.
    """

    main: dict[str, Tensor]
    head: dict[str, Tensor]
    by_loss: dict[int, dict[str, Tensor]]


class Alignment(NamedTuple):
    """How the gradient that a component's main net follows lies to the end-to-end gradient.

    Attributes:
        cosine: of the angle between the two, all parameters of the main net as one vector; nan if one of them is zero.
        norm_ratio: the norm of the first over that of the second; 0 for a component that the scheme freezes, inf or nan
            if the end-to-end gradient is zero.
    """

    cosine: float
    norm_ratio: float


def gradients_of(component: Component) -> ComponentGradients:
    """The gradients that a component has, not copied."""
    head = component.aux_net
    return ComponentGradients(_gradients(component.main_net), {} if head is None else _gradients(head), {})


def alignment_of(net: nn.Module, gradient: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> Alignment:
    """How a gradient lies to another one.

    Args:
        net: whose gradients they are; at least one parameter wants one.
        gradient: by parameter; one that is left out is zero.
        other: likewise.
    """
    wanted = {name: p for name, p in net.named_parameters() if p.requires_grad}
    a, b = (
        torch.cat([found.get(name, torch.zeros_like(p)).to_dense().flatten().double() for name, p in wanted.items()])
        for found in (gradient, other)
    )
    a_norm, b_norm = torch.linalg.vector_norm(a), torch.linalg.vector_norm(b)
    cosine = torch.dot(a / a_norm, b / b_norm).clamp(-1, 1)  # rounding may lead beyond 1
    return Alignment(cosine.item(), (a_norm / b_norm).item())


@contextmanager
def undisturbed_gradients(components: Iterable[Component]) -> Iterator[None]:
    """Puts the gradients that components have aside, and back in the end."""
    parameters = [parameter for component in components for parameter in component.parameters()]
    gradients = [parameter.grad for parameter in parameters]
    for parameter in parameters:
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient


@contextmanager
def undisturbed_buffers(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Leaves buffers, such as BatchNorm's running averages, as they were."""
    parts = list({part: None for module in modules for part in module.modules()})
    saved = [
        (part, name, buffer, buffer.clone()) for part in parts for name, buffer in part.named_buffers(recurse=False)
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            for part, name, buffer, value in saved:
                setattr(part, name, buffer.copy_(value))


def _gradients(net: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad for name, p in net.named_parameters() if p.grad is not None}
