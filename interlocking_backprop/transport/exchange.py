"""The messages of one program on one rank, made ready a step ahead.

What a message looks like is not known before it has been sent once, so the first time its format travels ahead of it.
From then on both ends know, messages are bare bytes, and the receives of a step are posted at the end of the step
before, in the order in which the messages will arrive: a message finds its buffer waiting.
"""

from __future__ import annotations

from collections import defaultdict, deque
from typing import NamedTuple

import torch.distributed as dist

from interlocking_backprop.engine.message import Gradient, Message, Packet
from interlocking_backprop.schedule.action import Kind
from interlocking_backprop.schedule.dependencies import Dependencies
from interlocking_backprop.schedule.schedule import Schedule
from interlocking_backprop.transport.channels import Arrival, Channels
from interlocking_backprop.transport.packing import Format
from interlocking_backprop.transport.process_groups import Groups


class Road(NamedTuple):
    """The rank at the other end of a message, and the group that it goes through. Messages of one road keep order."""

    peer: int
    group: dist.ProcessGroup


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
        self._incoming, self._outgoing = _roads(schedule, rank, channels.groups)
        self._formats: dict[Message, Format] = {}
        self._is_known = False
        # What is posted, for this time and, from the second time on, for the next.
        self._posted: deque[dict[Message, Arrival]] = deque()
        self._n_times = 2 if repeats else 1
        # The first time: what has not come yet, by road in the order in which it comes.
        self._awaited: defaultdict[Road, deque[Message]] = defaultdict(deque)

    def begin(self) -> None:
        """Makes ready to receive, this time's messages and, if there is likely to be a next time, its messages too."""
        if self._is_known:
            self._post(self._n_times)
            return
        self._posted.append({})
        for message, road in self._incoming.items():
            self._awaited[road].append(message)

    def end(self) -> None:
        """All messages of this time have been received, and all sends begun."""
        self._posted.popleft()
        if not self._is_known:
            self._is_known = True
            self._post(self._n_times - 1)

    def drain(self) -> None:
        """Gets rid of what was posted for a next time that does not come: every rank sends zeros, and takes them."""
        while self._posted:
            for message, road in self._outgoing.items():
                zeros = self._formats[message].zeros(self._channels.device)
                self._channels.send(self._formats[message], zeros, *road)
            for arrival in self._posted.popleft().values():
                arrival.wait()
            self._channels.flush()

    def send(self, message: Message, value: Packet | Gradient) -> None:
        """Sends a message without waiting.

        Raises:
            ValueError: if a packet does not look as it did before.
        """
        road = self._outgoing[message]
        if not self._is_known:
            self._formats[message] = Format.of(value)
            self._channels.send_object(self._formats[message].tree, *road)
        known = self._formats[message]
        # A gradient looks like the activation that it is for.
        if message.stream is None and not known.is_of(value):
            raise ValueError(
                f"component {message.source} returned {Format.of(value)} for micro-batch {message.microbatch}, and "
                f"{known} before, for inputs of the same shape; on several ranks the shapes of activations have to "
                "follow from those of the inputs."
            )
        self._channels.send(known, value, *road)

    def receive(self, message: Message) -> Packet | Gradient:
        """Waits for a message."""
        if not self._is_known:
            self._find_out(message)
        return self._posted[0].pop(message).wait()

    def _post(self, n_times: int) -> None:
        formats, expect = self._formats, self._channels.expect
        while len(self._posted) < n_times:
            self._posted.append({message: expect(formats[message], *road) for message, road in self._incoming.items()})

    def _find_out(self, message: Message) -> None:
        """Waits for the formats of all that comes by the same road, up to a message."""
        road, arrivals = self._incoming[message], self._posted[0]
        while message not in arrivals:
            earliest = self._awaited[road].popleft()
            self._formats[earliest] = Format(self._channels.receive_object(*road))
            arrivals[earliest] = self._channels.expect(self._formats[earliest], *road)


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
    return incoming, outgoing
