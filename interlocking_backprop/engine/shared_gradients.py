"""Sums the gradients of weights that components share, wherever these are, before the weights are updated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import Parameter

from interlocking_backprop.engine.component import Component
from interlocking_backprop.engine.message import Gradient, Message, Transport
from interlocking_backprop.engine.ties import Tie
from interlocking_backprop.scheme.streams import Workload


class SharedGradients:
    """Hands on the gradients of shared weights.

    Args:
        workload: the scheme and the network.
        ties: the weights that are shared.
        components: those at hand, by index.
        transport: to and from the others.
    """

    def __init__(
        self,
        workload: Workload,
        ties: Sequence[Tie],
        components: Mapping[int, Component],
        transport: Transport | None,
    ) -> None:
        self._components, self._transport = components, transport
        self._sharers = {i: workload.sharers(i) for i in components}
        # Each weight that is trained, with the components that have a gradient for it.
        self._ties = [
            (tie, [i for i in tie.components if workload.gives(i, of_heads=tie.is_of_heads)])
            for tie in ties
            if tie.components in (workload.head_ties if tie.is_of_heads else workload.ties)
        ]

    def give(self, i: int, given: dict[Message, Gradient]) -> None:
        """Hands the gradients that component i has to all that share weights with it."""
        for j in sorted({j for tie, givers in self._ties if i in givers for j in tie.components} - {i}):
            shared = [tie for tie, givers in self._ties if i in givers and j in tie.components]
            gradients = [_gradient(self._weight(i, tie)) for tie in shared]
            if j in self._components:
                given[Message(i, j)] = gradients
            else:
                assert self._transport is not None
                self._transport.sender(Message(i, j))(gradients)

    def take(self, i: int, given: dict[Message, Gradient]) -> None:
        """Adds to the gradients of component i's shared weights what the others have, in the order of components."""
        if not self._sharers[i]:
            return
        received = {j: iter(self._received(j, i, given)) for j in self._sharers[i] if j != i}
        for tie, givers in self._ties:
            if i not in tie.components:
                continue
            weight = self._weight(i, tie)
            terms = [_gradient(weight) if j == i else next(received[j]).to(weight.device) for j in givers]
            if terms:
                weight.grad = sum(terms[1:], start=terms[0].clone())

    def _received(self, j: int, i: int, given: dict[Message, Gradient]) -> Gradient:
        if j in self._components:
            return given.pop(Message(j, i))
        assert self._transport is not None
        gradients: Gradient = self._transport.receiver(Message(j, i))()
        return gradients

    def _weight(self, i: int, tie: Tie) -> Parameter:
        return self._components[i].get_parameter(tie.name_in(i))


def _gradient(weight: Parameter) -> Tensor:
    return torch.zeros_like(weight) if weight.grad is None else weight.grad
