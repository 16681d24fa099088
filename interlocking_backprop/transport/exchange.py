"""The messages of one program on one rank, made ready a step ahead.

What a message looks like is not known before it has been sent once, so the first time its format travels ahead of it.
From then on both ends know, messages are bare bytes, and the receives of a step are posted at the end of the step
before, in the order in which the messages will arrive: a message finds its buffer waiting.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable
from typing import NamedTuple

import torch.distributed as dist
from torch import Tensor

from interlocking_backprop.engine.message import Gradient, Message, Packet
from interlocking_backprop.schedule.action import Kind
from interlocking_backprop.schedule.dependencies import Dependencies
from interlocking_backprop.schedule.schedule import Schedule
from interlocking_backprop.transport.channels import Channels
from interlocking_backprop.transport.packing import Format
from interlocking_backprop.transport.process_groups import Groups


class Road(NamedTuple):
    """The rank at the other end of a message, and the group that it goes through. Messages of one road keep order."""

    peer: int
    group: dist.ProcessGroup


class Outgoing:
    """A message that this rank sends whenever the program is carried out."""

    def __init__(self, message: Message, road: Road, channels: Channels) -> None:
        self._message, self._road, self._channels = message, road, channels
        self._format: Format | None = None

    def send(self, value: Packet | Gradient) -> None:
        """Sends the message without waiting, the first time with its format ahead of it.

        Raises:
            ValueError: if a packet does not look as it did before.
        """
        if self._format is None:
            self._format = Format.of(value)
            self._channels.send_object(self._format.tree, *self._road)
        # A gradient looks like the activation that it is for.
        elif self._message.stream is None and not self._format.is_of(value):
            raise ValueError(
                f"component {self._message.source} returned {Format.of(value)} for micro-batch "
                f"{self._message.microbatch}, and {self._format} before, for inputs of the same shape; on several "
                "ranks the shapes of activations have to follow from those of the inputs."
            )
        for data in self._format.pack(value):
            self._channels.send(data, *self._road)

    def send_zeros(self) -> None:
        """Sends what looks like the message."""
        assert self._format is not None
        self.send(self._format.zeros(self._channels.device))


class Incoming:
    """A message that this rank receives whenever the program is carried out.

    Args:
        road: by which it comes.
        awaited: the first time: what has not come by this road yet, this message included, in the order in which it
            comes.
        channels: of this rank.
    """

    def __init__(self, road: Road, awaited: deque[Incoming], channels: Channels) -> None:
        self._road, self._awaited, self._channels = road, awaited, channels
        self._format: Format | None = None
        # The tensors that will be filled, and what to wait for; of this time, and of the next if that is posted too.
        self._posted: deque[tuple[list[Tensor], list[dist.Work]]] = deque()
        awaited.append(self)

    def post(self) -> None:
        """Makes ready to receive the message once."""
        assert self._format is not None
        buffers, parts = self._format.receive(self._channels.device)
        self._posted.append((buffers, [self._channels.receive(data, *self._road) for data in parts]))

    def receive(self) -> Packet | Gradient:
        """Waits for the message."""
        while self._format is None:
            self._awaited.popleft()._find_out()
        buffers, works = self._posted.popleft()
        for work in works:
            self._channels.wait(work, self._road.peer)
        return self._format.filled(buffers)

    def _find_out(self) -> None:
        """Waits for the format of the message."""
        self._format = Format(self._channels.receive_object(*self._road))
        self.post()


class Exchange:
    """The messages of a program, for its executor; a `Transport`.

    Args:
        schedule: of all ranks.
        rank: of this process.
        channels: through which the messages go.
        repeats: whether the program is likely to be carried out again at once, so that its receives are posted ahead.
    """

    def __init__(self, schedule: Schedule, rank: int, channels: Channels, *, repeats: bool) -> None:
        self._channels = channels
        incoming, outgoing = _roads(schedule, rank, channels.groups)
        awaited: defaultdict[Road, deque[Incoming]] = defaultdict(deque)
        self._incoming = {message: Incoming(road, awaited[road], channels) for message, road in incoming.items()}
        self._outgoing = {message: Outgoing(message, road, channels) for message, road in outgoing.items()}
        self._is_known = False
        self._n_ahead = 1 if repeats else 0
        self._n_posted = 0

    def sender(self, message: Message) -> Callable[[Packet | Gradient], None]:
        return self._outgoing[message].send

    def receiver(self, message: Message) -> Callable[[], Packet | Gradient]:
        return self._incoming[message].receive

    def begin(self) -> None:
        """Makes ready to receive, this time's messages and, if there is likely to be a next time, its messages too."""
        if self._is_known:
            self._post(1 + self._n_ahead)

    def end(self) -> None:
        """All messages of this time have been received, and all sends begun; by now all formats are known."""
        self._n_posted -= self._is_known
        self._is_known = True
        self._post(self._n_ahead)

    def drain(self) -> None:
        """Gets rid of what was posted for a next time that does not come: every rank sends zeros, and takes them."""
        for _ in range(self._n_posted):
            for outgoing in self._outgoing.values():
                outgoing.send_zeros()
            for incoming in self._incoming.values():
                incoming.receive()
            self._channels.flush()
        self._n_posted = 0

    def _post(self, n_times: int) -> None:
        for _ in range(self._n_posted, n_times):
            for incoming in self._incoming.values():
                incoming.post()
        self._n_posted = n_times


class Session:
    """Programs follow one another on a rank; here is what is made ready for the next one.

    Args:
        channels: of the rank.
    """

    def __init__(self, channels: Channels) -> None:
        self._channels = channels
        self._latest: Exchange | None = None

    def begin(self, exchange: Exchange) -> None:
        """Makes ready for a program's messages; what was made ready for another one is drained."""
        if exchange is not self._latest:
            self.drain()
            self._latest = exchange
        exchange.begin()

    def end(self) -> None:
        """The program that was begun has been carried out."""
        assert self._latest is not None
        self._latest.end()
        self._channels.next_step()

    def drain(self) -> None:
        """Gets rid of what has been made ready."""
        if self._latest is not None:
            self._latest.drain()
            self._latest = None


def _roads(schedule: Schedule, rank: int, groups: Groups) -> tuple[dict[Message, Road], dict[Message, Road]]:
    """The messages that a rank receives, and those that it sends, in the order in which they go."""
    placement = schedule.placement
    dependencies = Dependencies(schedule.workload, schedule.n_microbatches, placement)
    incoming: dict[Message, Road] = {}
    outgoing: dict[Message, Road] = {}
    for i, kind, m, stream in schedule.actions[rank]:
        if kind is Kind.SEND_F:
            outgoing[Message(i, i + 1, m)] = Road(placement[i + 1], groups.up)
        elif kind is Kind.RECV_F:
            incoming[Message(i - 1, i, m)] = Road(placement[i - 1], groups.up)
        elif kind is Kind.SEND_B:
            outgoing[Message(i, i - 1, m, stream)] = Road(placement[i - 1], groups.down)
        elif kind is Kind.RECV_B:
            incoming[Message(i + 1, i, m, stream)] = Road(placement[i + 1], groups.down)
    for sender, (i, kind, _, _) in schedule:
        for j in dependencies.receivers(i) if kind is Kind.REDUCE_GRAD else ():
            if sender == rank:
                outgoing[Message(i, j)] = Road(placement[j], groups.shared)
            elif placement[j] == rank:
                incoming[Message(i, j)] = Road(sender, groups.shared)
        for j in dependencies.copiers(i) if kind is Kind.GIVE else ():
            if sender == rank:
                outgoing[Message(i, j, is_copy=True)] = Road(placement[j], groups.shared)
            elif placement[j] == rank:
                incoming[Message(i, j, is_copy=True)] = Road(sender, groups.shared)
    return incoming, outgoing
