"""What travels between components, and who takes it there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from interlocking_backprop.engine.tree import Tree, to_device

Gradient = list[Tensor]
"""The gradient of an activation: one tensor for each of its tensors that wants one, in the order of `tensors`."""


class Packet(NamedTuple):
    """What travels up from component to component with each micro-batch.

    Attributes:
        activation: the input of the next component.
        target: what the losses above compare with.
        network_input: x_0, where a loss above asks for it; else None.
    """

    activation: Tree
    target: Tree
    network_input: Tree

    def to(self, device: torch.device) -> Packet:
        """The packet on a device."""
        activation, target, network_input = self
        return Packet(to_device(activation, device), to_device(target, device), to_device(network_input, device))


class Message(NamedTuple):
    """From one component to another: a packet, a stream's gradient, or gradients of the weights that the two share; or
    weights that the head of the second copies.

    A packet goes up to the next component; or from the last one down, with the network's output alone.

    Attributes:
        source: the component that sends.
        target: the component that receives.
        microbatch: that it belongs to; None for gradients of shared weights, which are sums over micro-batches.
        stream: at the input of the source, for a gradient on its way down; else None.
        is_copy: whether these are weights, for a head that copies them.
    """

    source: int
    target: int
    microbatch: int | None = None
    stream: int | None = None
    is_copy: bool = False


class Transport(Protocol):
    """Takes messages to components that are elsewhere, and brings theirs."""

    def sender(self, message: Message) -> Callable[[Any], None]:
        """What sends a `Packet`, or a `Gradient`, without waiting."""

    def receiver(self, message: Message) -> Callable[[], Any]:
        """What waits for it on the other side."""
