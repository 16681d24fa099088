"""Components that take a known time and no computing: they show the engine, not the host.

A component has ten layers. The forward pass of a layer, the gradient of its input and that of its weight each take a
tenth of the unit, asleep. So in units a forward pass takes 1, an input-gradient pass 1, a joint backward pass 2, and a
weight-gradient pass of its own 1.9, for it leaves out the gradient of the first layer's input.

Like an accelerator, a component keeps its own time within a pass: a layer ends a tenth after the one before it, however
late the host was woken in between. Between passes it waits for the host, so that whatever the engine takes is seen.
"""

from __future__ import annotations

import ctypes
import sys
import time
from typing import Any

import torch
from torch import Tensor, nn

from interlocking_backprop.schedule.costs import ComponentCosts, Costs

LAYERS = 10
_PR_SET_TIMERSLACK = 29


class _Clock:
    """The time that a component has come to."""

    def __init__(self) -> None:
        self._now = 0.0

    def begin(self) -> None:
        """A pass begins."""
        self._now = time.perf_counter()

    def work(self, seconds: float) -> None:
        """Takes that long."""
        self._now += seconds
        rest = self._now - time.perf_counter()
        if rest > 0:
            time.sleep(rest)


class _Spine(torch.autograd.Function):
    """The way of the activation through a layer."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, clock: _Clock, seconds: float) -> Tensor:
        ctx.clock, ctx.seconds = clock, seconds
        clock.work(seconds)
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        ctx.clock.work(ctx.seconds)
        return gradient, None, None


class _Weight(torch.autograd.Function):
    """The way of the weight into a layer."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, clock: _Clock, seconds: float) -> Tensor:
        ctx.clock, ctx.seconds = clock, seconds
        return weight.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        ctx.clock.work(ctx.seconds)
        return gradient, None, None


class EmulatedComponent(nn.Module):
    """A component whose forward pass takes a unit.

    Args:
        unit: seconds.
        width: of the activations.
    """

    def __init__(self, unit: float, width: int = 8) -> None:
        super().__init__()
        self.weights = nn.ParameterList(torch.zeros(width) for _ in range(LAYERS))
        self._seconds = unit / LAYERS

    def forward(self, x: Tensor) -> Tensor:
        clock = _Clock()
        clock.begin()
        for weight in self.weights:
            spine: Tensor = _Spine.apply(x, clock, self._seconds)  # type: ignore[no-untyped-call]
            x = spine + _Weight.apply(weight, clock, self._seconds)  # type: ignore[no-untyped-call]
        if x.requires_grad:
            x.register_hook(lambda _: clock.begin())  # type: ignore[no-untyped-call]  # a backward pass begins
        return x


def wake_on_time() -> None:
    """Asks Linux to end sleeps within a microsecond of their time, in place of 50: devices are punctual."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1000, 0, 0, 0)


def emulated_costs(n_components: int, unit: float = 1.0) -> Costs:
    """What such components cost, heads and messages being free."""
    own_weights = (2 * LAYERS - 1) / LAYERS * unit
    component = ComponentCosts(
        forward=unit, backward_input=unit, backward_weight=own_weights, full_backward=2 * unit, split_weight=unit
    )
    return Costs([component] * n_components)
