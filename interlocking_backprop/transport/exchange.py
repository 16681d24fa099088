"""What one rank does in an operation whose formats are known: its messages, made ready a step ahead."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from interlocking_backprop.engine.executor import Packet, Place
from interlocking_backprop.engine.graph import Gradient, Graph
from interlocking_backprop.engine.tree import Tree, tensors
from interlocking_backprop.schedule.action import Action, Kind
from interlocking_backprop.transport.channels import Arrival, Channels
from interlocking_backprop.transport.packing import Layout, TensorFormat, format_of

Receipt = tuple[int, int, "int | None"]
"""The component, the micro-batch and the stream of an action that receives a message; None for an activation."""

Arrivals = dict["Receipt | Place", Arrival]
"""By the action that waits for it; gradients of shared weights by the components that send and receive them."""


class PacketFormat:
    """What a packet looks like before it is there, and how its tensors travel.

    Args:
        parts: those of the packet, with a `TensorFormat` in the place of every tensor.
    """

    def __init__(self, parts: Packet) -> None:
        self.parts = parts
        self.layout = Layout([f for part in parts for f in _formats(part)])
        self._is_flat = all(part is None or isinstance(part, TensorFormat) for part in parts)

    @classmethod
    def of(cls, packet: Packet) -> PacketFormat:
        return cls(Packet(*map(format_of, packet)))

    def is_of(self, packet: Packet) -> bool:
        """Whether that is what a packet looks like."""
        if self._is_flat:
            pairs = zip(self.parts, packet, strict=True)
            return all(value is None if part is None else part.is_of(value) for part, value in pairs)
        return Packet(*map(format_of, packet)) == self.parts

    def filled(self, values: Iterable[Tensor]) -> Packet:
        """The packet, from its tensors."""
        remaining = iter(values)
        return Packet(*(_filled(part, remaining) for part in self.parts))


@dataclass
class Plan:
    """The messages of one rank in an operation, and what they look like.

    Attributes:
        actions: of the rank, messages included.
        placement: for each component its rank.
        incoming: by component and micro-batch, the format of the packet that it receives.
        outgoing: the same of the packet that it sends.
        credit_in: by component and micro-batch, the layout of the gradient at its output, where that comes from another
            rank.
        credit_out: the same at its input, where that goes to another rank.
        is_known: whether all of these are.
        shared_in: by sender and receiver, the layouts of the gradients of shared weights that come in, those of each
            rank in the order in which it sends them.
        shared_out: the same of those that go out.
    """

    actions: Sequence[Action]
    placement: Sequence[int]
    incoming: dict[Place, PacketFormat] = field(default_factory=dict)
    outgoing: dict[Place, PacketFormat] = field(default_factory=dict)
    credit_in: dict[Place, Layout] = field(default_factory=dict)
    credit_out: dict[Place, Layout] = field(default_factory=dict)
    is_known: bool = False
    shared_in: dict[Place, Layout] = field(default_factory=dict)
    shared_out: dict[Place, Layout] = field(default_factory=dict)

    def post(self, channels: Channels) -> Arrivals:
        """Makes ready to receive all messages of the next time, in the order in which they come.

        As long as formats are not known it is those alone that are known from the start.
        """
        arrivals: Arrivals = {
            (j, i): channels.expect(layout, self.placement[j], shared=True) for (j, i), layout in self.shared_in.items()
        }
        for key, layout, peer in self._expected if self.is_known else ():
            arrivals[key] = channels.expect(layout, peer)
        return arrivals

    @cached_property
    def _expected(self) -> list[tuple[Receipt, Layout, int]]:
        """What comes in, once that is known: who waits for it, what it looks like, and from which rank."""
        expected: list[tuple[Receipt, Layout, int]] = []
        for i, kind, m, stream in self.actions:
            if kind is Kind.RECV_F and m is not None:
                expected.append(((i, m, None), self.incoming[i, m].layout, self.placement[i - 1]))
            elif kind is Kind.RECV_B and m is not None:
                expected.append(((i, m, stream), self.credit_in[i, m], self.placement[i + 1]))
        return expected

    def drain(self, channels: Channels, arrivals: Arrivals) -> None:
        """Gets rid of messages that were made ready for but will not come: every rank sends zeros, and takes them."""
        for (_, j), layout in self.shared_out.items():
            channels.send(layout, _zeros(layout, channels.device), self.placement[j], shared=True)
        for i, kind, m, _ in self.actions:
            if kind is Kind.SEND_F and m is not None:
                layout = self.outgoing[i, m].layout
                channels.send(layout, _zeros(layout, channels.device), self.placement[i + 1])
            elif kind is Kind.SEND_B and m is not None:
                layout = self.credit_out[i, m]
                channels.send(layout, _zeros(layout, channels.device), self.placement[i - 1])
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
        if not self._plan.is_known:
            self._plan.outgoing[i, m] = PacketFormat.of(packet)
            self._channels.send_object(self._plan.outgoing[i, m].parts, peer)
        known = self._plan.outgoing[i, m]
        if not known.is_of(packet):
            raise ValueError(
                f"component {i} returned {_described(format_of(packet.activation))} for micro-batch {m}, and "
                f"{_described(known.parts.activation)} before, for inputs of the same shape; on several ranks the "
                "shapes of activations have to follow from those of the inputs."
            )
        self._channels.send(known.layout, [t for part in packet for t in tensors(part)], peer)

    def receive_packet(self, i: int, m: int) -> Packet:
        if self._plan.is_known:
            arrival = self.arrivals.pop((i, m, None))
        else:
            peer = self._plan.placement[i - 1]
            self._plan.incoming[i, m] = PacketFormat(self._channels.receive_object(peer))
            arrival = self._channels.expect(self._plan.incoming[i, m].layout, peer)
        return self._plan.incoming[i, m].filled(arrival.wait())

    def send_gradient(self, i: int, m: int, stream: int, gradient: Gradient) -> None:
        if not self._plan.is_known:
            self._plan.credit_out[i, m] = Layout([TensorFormat.of(t) for t in gradient])
        self._channels.send(self._plan.credit_out[i, m], gradient, self._plan.placement[i - 1])

    def receive_gradient(self, i: int, m: int, stream: int, graph: Graph) -> Gradient:
        if self._plan.is_known:
            arrival = self.arrivals.pop((i, m, stream))
        else:
            self._plan.credit_in[i, m] = Layout([TensorFormat.of(t) for t in graph.roots])
            arrival = self._channels.expect(self._plan.credit_in[i, m], self._plan.placement[i + 1])
        return arrival.wait()

    def send_shared(self, i: int, j: int, gradients: Gradient) -> None:
        self._channels.send(self._plan.shared_out[i, j], gradients, self._plan.placement[j], shared=True)

    def receive_shared(self, j: int, i: int) -> Gradient:
        return self.arrivals.pop((j, i)).wait()


def _formats(tree: Tree) -> list[TensorFormat]:
    if isinstance(tree, TensorFormat) or tree is None:
        return [] if tree is None else [tree]
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, TensorFormat)]


def _filled(tree: Tree, values: Iterator[Tensor]) -> Tree:
    """The structure with tensors in the place of their formats."""
    if tree is None:
        return None
    if isinstance(tree, TensorFormat):
        value = next(values)
        return value.requires_grad_() if tree.requires_grad else value
    return pytree.tree_map_only(TensorFormat, lambda f: _filled(f, values), tree)


def _zeros(layout: Layout, device: torch.device) -> list[Tensor]:
    return [torch.zeros(f.shape, dtype=f.dtype, device=device) for f in layout.formats]


def _described(tree: Tree) -> Any:
    return pytree.tree_map_only(TensorFormat, lambda f: f"{tuple(f.shape)} {f.dtype}", tree)
