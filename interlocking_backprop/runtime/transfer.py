"""Messages between the devices of one process: copies that hold up neither, on streams of their own, ordered by events.

An ordinary ``tensor.to(device)`` between two GPUs runs on the current streams of both, so the sender would wait until
the receiver has done all that it has been given, and the other way round.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from functools import cache, partial

import torch
from torch import Tensor

from interlocking_backprop.engine.message import Message
from interlocking_backprop.engine.tree import Tree, map_tensors, tensors, to_device


class DeviceTransport:
    """Copies, begun where they are sent and waited for where they are used; a `Transport`.

    Args:
        devices: of each component.
    """

    def __init__(self, devices: Sequence[torch.device]) -> None:
        self._devices = devices
        # A message of a later batch may be sent before that of an earlier one is needed.
        self._on_the_way: defaultdict[Message, deque[Transfer]] = defaultdict(deque)

    def clear(self) -> None:
        """Drops what is on its way: the step has failed, and nobody takes it."""
        self._on_the_way.clear()

    def sender(self, message: Message) -> Callable[[Tree], None]:
        return partial(self._send, message)

    def receiver(self, message: Message) -> Callable[[], Tree]:
        return partial(self._receive, message)

    def _send(self, message: Message, value: Tree) -> None:
        self._on_the_way[message].append(Transfer(value, self._devices[message.target]))

    def _receive(self, message: Message) -> Tree:
        return self._on_the_way[message].popleft().result()


class Transfer:
    """A structure of tensors on its way to a device.

    Args:
        tree: the tensors; the copy begins when what computes them is done.
        device: where to.
    """

    def __init__(self, tree: Tree, device: torch.device) -> None:
        self._device = device
        self._streams: set[torch.cuda.Stream] = set()
        crosses = any(t.device.type == device.type == "cuda" and t.device != device for t in tensors(tree))
        self._tree = map_tensors(self._copy, tree) if crosses else to_device(tree, device)

    def result(self) -> Tree:
        """The copies. The device's current stream, not the host, waits for them."""
        current = torch.cuda.current_stream(self._device) if self._streams else None
        for stream in self._streams:
            assert current is not None
            current.wait_stream(stream)
        if current is not None:
            for t in tensors(self._tree):
                t.record_stream(current)
        return self._tree

    def _copy(self, tensor: Tensor) -> Tensor:
        if tensor.device == self._device or tensor.device.type != "cuda":
            moved: Tensor = to_device(tensor, self._device)
            return moved
        source, target = _side_stream(tensor.device), _side_stream(self._device)
        source.wait_stream(torch.cuda.current_stream(tensor.device))
        with torch.cuda.stream(target), torch.cuda.stream(source):
            copy: Tensor = to_device(tensor, self._device)
        tensor.record_stream(source)
        self._streams.add(target)
        return copy


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
