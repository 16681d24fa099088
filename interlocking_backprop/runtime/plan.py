"""What one rank does in an operation whose formats are known: its messages, made ready a step ahead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from interlocking_backprop.runtime.channels import Arrival, Channels
from interlocking_backprop.runtime.executor import Packet
from interlocking_backprop.runtime.graph import Gradient
from interlocking_backprop.runtime.packing import TensorFormat, format_of
from interlocking_backprop.schedule.action import Action, Kind
from interlocking_backprop.tree import Tree, tensors

Place = tuple[int, int]

Arrivals = dict["Action | Place", Arrival]
"""By the action that waits for it; gradients of shared weights by the components that send and receive them."""


@dataclass
class Plan:
    """The messages of one rank in an operation, and what they look like.

    Attributes:
        actions: of the rank, messages included.
        placement: for each component its rank.
        incoming: by component and micro-batch, the format of the packet that it receives.
        outgoing: the same of the packet that it sends.
        gradients: by component and micro-batch, the formats of the gradient at its output.
        is_known: whether all of these are.
        shared_in: by sender and receiver, the formats of the gradients of shared weights that come in, those of each
            rank in the order in which it sends them.
        shared_out: the same of those that go out.
    """

    actions: Sequence[Action]
    placement: Sequence[int]
    incoming: dict[Place, Packet] = field(default_factory=dict)
    outgoing: dict[Place, Packet] = field(default_factory=dict)
    gradients: dict[Place, list[TensorFormat]] = field(default_factory=dict)
    is_known: bool = False
    shared_in: dict[Place, list[TensorFormat]] = field(default_factory=dict)
    shared_out: dict[Place, list[TensorFormat]] = field(default_factory=dict)

    def post(self, channels: Channels) -> Arrivals:
        """Makes ready to receive all messages of the next time, in the order in which they come.

        As long as formats are not known it is those alone that are known from the start.
        """
        arrivals: Arrivals = {
            (j, i): channels.expect(formats, self.placement[j], shared=True)
            for (j, i), formats in self.shared_in.items()
        }
        for action in self.actions if self.is_known else ():
            i, kind, m, _ = action
            assert m is not None or not kind.is_communication
            if kind is Kind.RECV_F and m is not None:
                arrivals[action] = channels.expect(_formats(self.incoming[i, m]), self.placement[i - 1])
            elif kind is Kind.RECV_B and m is not None:
                arrivals[action] = channels.expect(self.gradients[i, m], self.placement[i + 1])
        return arrivals

    def drain(self, channels: Channels, arrivals: Arrivals) -> None:
        """Gets rid of messages that were made ready for but will not come: every rank sends zeros, and takes them."""
        for (_, j), formats in self.shared_out.items():
            channels.send(_zeros(formats), self.placement[j], shared=True)
        for i, kind, m, _ in self.actions:
            if kind is Kind.SEND_F and m is not None:
                channels.send(_zeros(_formats(self.outgoing[i, m])), self.placement[i + 1])
            elif kind is Kind.SEND_B and m is not None:
                activation = _formats(self.incoming[i, m].activation)
                channels.send(_zeros([f for f in activation if f.requires_grad]), self.placement[i - 1])
        for arrival in arrivals.values():
            arrival.wait()
        channels.flush()


class RankTransport:
    """The messages of a plan, for the executor.

    Args:
        plan: whose messages.
        channels: through which they go.
    """

    def __init__(self, plan: Plan, channels: Channels) -> None:
        self._plan, self._channels = plan, channels
        self.arrivals: Arrivals = {}

    def send_packet(self, i: int, m: int, packet: Packet) -> None:
        peer = self._plan.placement[i + 1]
        now = Packet(*map(format_of, packet))
        if not self._plan.is_known:
            self._plan.outgoing[i, m] = now
            self._channels.send_object(now, peer)
        elif now != self._plan.outgoing[i, m]:
            raise ValueError(
                f"component {i} returned {_described(now.activation)} for micro-batch {m}, and "
                f"{_described(self._plan.outgoing[i, m].activation)} before, for inputs of the same shape; on "
                "several ranks the shapes of activations have to follow from those of the inputs."
            )
        self._channels.send([t for part in packet for t in tensors(part)], peer)

    def receive_packet(self, i: int, m: int) -> Packet:
        if self._plan.is_known:
            arrival = self.arrivals.pop(Action(i, Kind.RECV_F, m))
        else:
            peer = self._plan.placement[i - 1]
            self._plan.incoming[i, m] = self._channels.receive_object(peer)
            arrival = self._channels.expect(_formats(self._plan.incoming[i, m]), peer)
        values = iter(arrival.wait())
        return Packet(*(_filled(part, values) for part in self._plan.incoming[i, m]))

    def send_gradient(self, i: int, m: int, stream: int, gradient: Gradient) -> None:
        self._channels.send(gradient, self._plan.placement[i - 1])

    def receive_gradient(self, i: int, m: int, stream: int, like: Sequence[Tensor]) -> Gradient:
        if self._plan.is_known:
            arrival = self.arrivals.pop(Action(i, Kind.RECV_B, m, stream))
        else:
            self._plan.gradients[i, m] = [TensorFormat.of(t) for t in like]
            arrival = self._channels.expect(self._plan.gradients[i, m], self._plan.placement[i + 1])
        return arrival.wait()

    def send_shared(self, i: int, j: int, gradients: Gradient) -> None:
        self._channels.send(gradients, self._plan.placement[j], shared=True)

    def receive_shared(self, j: int, i: int) -> Gradient:
        return self.arrivals.pop((j, i)).wait()


def _formats(tree: Tree) -> list[TensorFormat]:
    if isinstance(tree, TensorFormat) or tree is None:
        return [] if tree is None else [tree]
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, TensorFormat)]


def _filled(tree: Tree, values: Iterator[Tensor]) -> Tree:
    """The structure with tensors in the place of their formats."""

    def fill(f: TensorFormat) -> Tensor:
        value = next(values)
        return value.requires_grad_() if f.requires_grad else value

    if isinstance(tree, TensorFormat) or tree is None:
        return None if tree is None else fill(tree)
    return pytree.tree_map_only(TensorFormat, fill, tree)


def _zeros(formats: Sequence[TensorFormat]) -> list[Tensor]:
    return [torch.zeros(f.shape, dtype=f.dtype) for f in formats]


def _described(tree: Tree) -> Any:
    return pytree.tree_map_only(TensorFormat, lambda f: f"{tuple(f.shape)} {f.dtype}", tree)
