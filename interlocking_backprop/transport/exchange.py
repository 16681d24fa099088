"""The messages of one program on one rank, made ready a step ahead.

What a message looks like is not known before it has been sent once, so the first time its format travels ahead of it.
From then on both ends know, messages are bare bytes, and the receives of a step are posted at the end of the step
before, in the order in which the messages will arrive: a message finds its buffer waiting.

Where credit of earlier batches crosses a boundary, receives are posted at the beginning of a step: then it is known
which of these batches there are. They are posted in the order in which the messages are sent, and waited for as needed.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable
from typing import NamedTuple

import torch.distributed as dist
from torch import Tensor

from interlocking_backprop.engine.message import Gradient, Message, Packet
from interlocking_backprop.schedule.action import Kind
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
        coming: what is to come by that road.
        channels: of this rank.
    """

    def __init__(self, road: Road, coming: Coming, channels: Channels) -> None:
        self._road, self._coming, self._channels = road, coming, channels
        self._format: Format | None = None
        # The tensors that will be filled, and what to wait for; of this time, and of the next if that is posted too.
        self._posted: deque[tuple[list[Tensor], list[dist.Work]]] = deque()

    @property
    def is_known(self) -> bool:
        """Whether it is known what the message looks like."""
        return self._format is not None

    @property
    def is_posted(self) -> bool:
        """Whether all is ready to receive it."""
        return bool(self._posted)

    def post(self) -> None:
        """Makes ready to receive the message once; the first time waits for its format."""
        if self._format is None:
            self._format = Format(self._channels.receive_object(*self._road))
        buffers, parts = self._format.receive(self._channels.device)
        self._posted.append((buffers, [self._channels.receive(data, *self._road) for data in parts]))

    def receive(self) -> Packet | Gradient:
        """Waits for the message."""
        if not self._posted:
            self._coming.post_until(self)
        assert self._format is not None
        buffers, works = self._posted.popleft()
        for work in works:
            self._channels.wait(work, self._road.peer)
        return self._format.filled(buffers)


class Coming:
    """What is to come by a road and is not posted yet, in the order in which it is sent."""

    def __init__(self) -> None:
        self._messages: deque[Incoming] = deque()

    def expect(self, messages: Iterable[Incoming]) -> None:
        """Notes messages behind those that are to come; posts what can be posted without waiting."""
        self._messages.extend(messages)
        while self._messages and self._messages[0].is_known:
            self._messages.popleft().post()

    def post_until(self, message: Incoming) -> None:
        """Posts what comes up to a message, formats that are on the way being waited for."""
        while not message.is_posted:
            self._messages.popleft().post()
        self.expect(())


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
        coming: defaultdict[Road, Coming] = defaultdict(Coming)
        self._incoming = {message: Incoming(road, coming[road], channels) for message, road in incoming.items()}
        self._outgoing = {message: Outgoing(message, road, channels) for message, road in outgoing.items()}
        sends = (action for _, action in schedule if action.kind is Kind.SEND_B)
        ages = {Message(a.component, a.component - 1, a.microbatch, a.stream): a.age for a in sends}
        late = _late_roads(schedule)
        self._ahead = [self._incoming[message] for message in incoming if not late(message)]
        self._sent_ahead = [self._outgoing[message] for message in outgoing if not late(message)]
        # For each road by which credit of earlier batches comes: the ages at which it is sent.
        self._late: defaultdict[Coming, list[tuple[int, Incoming]]] = defaultdict(list)
        for message, road in incoming.items():
            if late(message):
                self._late[coming[road]].append((ages.get(message, 0), self._incoming[message]))
        for road, some in coming.items():
            some.expect(self._incoming[m] for m, other in incoming.items() if other == road and not late(m))
        self._is_known = False
        self._n_ahead = 1 if repeats else 0
        self._n_posted = 0

    def sender(self, message: Message) -> Callable[[Packet | Gradient], None]:
        return self._outgoing[message].send

    def receiver(self, message: Message) -> Callable[[], Packet | Gradient]:
        return self._incoming[message].receive

    def begin(self, ages: Collection[int]) -> None:
        """Makes ready to receive, this time's messages and, if there is likely to be a next time, its messages too.

        Args:
            ages: how many steps ago the batches were that there are; 0 among them if there is one in this step.
        """
        if self._is_known and 0 in ages:
            self._post(1 + self._n_ahead)
        for coming, messages in self._late.items():
            coming.expect(incoming for age, incoming in messages if age in ages)

    def end(self, ages: Collection[int]) -> None:
        """All messages of this time have been received, and all sends begun; by now formats are known.

        Args:
            ages: see `begin`.
        """
        if 0 in ages:
            self._n_posted -= self._is_known
            self._is_known = True
            self._post(self._n_ahead)

    def drain(self) -> None:
        """Gets rid of what was posted for a next time that does not come: every rank sends zeros, and takes them."""
        for _ in range(self._n_posted):
            for outgoing in self._sent_ahead:
                outgoing.send_zeros()
            for incoming in self._ahead:
                incoming.receive()
            self._channels.flush()
        self._n_posted = 0

    def _post(self, n_times: int) -> None:
        for _ in range(self._n_posted, n_times):
            for incoming in self._ahead:
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
        self._ages: Collection[int] = ()

    def begin(self, exchange: Exchange, ages: Collection[int]) -> None:
        """Makes ready for a program's messages; what was made ready for another one is drained.

        Args:
            exchange: of the program.
            ages: how many steps ago the batches were that there are.
        """
        if exchange is not self._latest:
            self.drain()
            self._latest = exchange
        exchange.begin(ages)
        self._ages = ages

    def end(self) -> None:
        """The program that was begun has been carried out."""
        assert self._latest is not None
        self._latest.end(self._ages)
        self._channels.next_step()

    def drain(self) -> None:
        """Gets rid of what has been made ready."""
        if self._latest is not None:
            self._latest.drain()
            self._latest = None


def _roads(schedule: Schedule, rank: int, groups: Groups) -> tuple[dict[Message, Road], dict[Message, Road]]:
    """The messages that a rank receives, and those that it sends, in the order in which they are sent."""
    placement = schedule.placement
    incoming: dict[Message, Road] = {}
    outgoing: dict[Message, Road] = {}
    for sender, action in schedule:
        i, m, stream = action.component, action.microbatch, action.stream
        sent: list[tuple[Message, dist.ProcessGroup]] = []
        if action.kind is Kind.SEND_F:
            sent = [(Message(i, i + 1, m), groups.up)]
        elif action.kind is Kind.SEND_B:
            sent = [(Message(i, i - 1, m, stream), groups.down)]
        elif action.kind is Kind.SEND_Y:
            assert stream is not None
            sent = [(Message(i, stream, m), groups.down)]
        elif action.kind is Kind.REDUCE_GRAD:
            sent = [(Message(i, j), groups.shared) for j in schedule.dependencies.receivers(i)]
        elif action.kind is Kind.GIVE:
            sent = [(Message(i, j, is_copy=True), groups.shared) for j in schedule.dependencies.copiers(i)]
        for message, group in sent:
            if sender == rank:
                outgoing[message] = Road(placement[message.target], group)
            elif placement[message.target] == rank:
                incoming[message] = Road(sender, group)
    return incoming, outgoing


def _late_roads(schedule: Schedule) -> Callable[[Message], bool]:
    """Says of a message whether it goes down by a road by which credit of earlier batches goes."""
    placement = schedule.placement
    late = {placement[a.component] for _, a in schedule if a.kind is Kind.RECV_B and a.age}

    def is_late(message: Message) -> bool:
        source, target = placement[message.source], placement[message.target]
        # Streams come from the next rank; the network's output goes down in the same group.
        return message.microbatch is not None and source == target + 1 and target in late

    return is_late
