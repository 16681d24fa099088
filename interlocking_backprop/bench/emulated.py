"""Components that take a known time and no computing: they show the engine, not the host.

A component has ten layers. The forward pass of a layer, the gradient of its input and that of its weight each sleep a
tenth of the unit. So in units a forward pass takes 1, an input-gradient pass 1, a joint backward pass 2, and a
weight-gradient pass of its own 1.9, for it leaves out the gradient of the first layer's input.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor, nn

from interlocking_backprop.schedule.costs import ComponentCosts, Costs

LAYERS = 10


class _Spine(torch.autograd.Function):
    """The way of the activation through a layer."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, seconds: float) -> Tensor:
        ctx.seconds = seconds
        time.sleep(seconds)
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        time.sleep(ctx.seconds)
        return gradient, None


class _Weight(torch.autograd.Function):
    """The way of the weight into a layer."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, seconds: float) -> Tensor:
        ctx.seconds = seconds
        return weight.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        time.sleep(ctx.seconds)
        return gradient, None


class EmulatedLayer(nn.Module):
    """A layer that sleeps.

    Args:
        width: of the activations.
        seconds: for each of its three passes.
    """

    def __init__(self, width: int, seconds: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))
        self.seconds = seconds

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = _Spine.apply(x, self.seconds) + _Weight.apply(self.weight, self.seconds)  # type: ignore[no-untyped-call]
        return y


def emulated_component(unit: float, width: int = 8) -> nn.Sequential:
    """A component whose forward pass takes ``unit`` seconds."""
    return nn.Sequential(*(EmulatedLayer(width, unit / LAYERS) for _ in range(LAYERS)))


def emulated_costs(n_components: int, unit: float = 1.0) -> Costs:
    """What such components cost, heads and messages being free."""
    own_weights = (2 * LAYERS - 1) / LAYERS * unit
    component = ComponentCosts(
        forward=unit, backward_input=unit, backward_weight=own_weights, full_backward=2 * unit, split_weight=unit
    )
    return Costs([component] * n_components)
