"""Takes weights from the components that have them to the heads that copy them, wherever these are."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from interlocking_backprop.engine.component import Component
from interlocking_backprop.engine.head_copy import Copying, copy_in, tensors_of
from interlocking_backprop.engine.message import Message, Transport
from interlocking_backprop.scheme.streams import Workload


class CopiedHeads:
    """Refreshes copies.

    Args:
        workload: says which copies are due.
        components: those at hand, by index.
        transport: to and from the others.
    """

    def __init__(self, workload: Workload, components: Mapping[int, Component], transport: Transport | None) -> None:
        self._components, self._transport = components, transport
        self._sources = {target: source for source, target in workload.copies}

    def give(self, i: int, given: dict[Message, list[Tensor]]) -> None:
        """Hands on the weights of component i that heads copy in this step."""
        for copying in self._components[i].copied_by:
            if self._sources.get(copying.target) != i:
                continue
            values = [t.detach() for t in tensors_of(self._components[i].get_submodule(copying.name))]
            message = _message(copying)
            if copying.target in self._components:
                # Nothing changes them before the end of the step, by which they have been taken.
                given[message] = values
            else:
                assert self._transport is not None
                # The message may leave after the next update.
                self._transport.sender(message)([t.clone() for t in values])

    def take(self, i: int, given: dict[Message, list[Tensor]]) -> None:
        """Refreshes the copy in the head of component i."""
        source = self._sources[i]
        message = Message(source, i, is_copy=True)
        if source in self._components:
            values = given.pop(message)
        else:
            assert self._transport is not None
            values = self._transport.receiver(message)()
        head_copy = copy_in(self._components[i].aux_net)
        assert head_copy is not None
        head_copy.take(values)


def _message(copying: Copying) -> Message:
    return Message(copying.source, copying.target, is_copy=True)
