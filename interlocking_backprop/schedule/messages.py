"""When messages are sent and received, for an order of the actions that compute."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Sequence

from interlocking_backprop.schedule.action import Action, Kind
from interlocking_backprop.schedule.dependencies import Dependencies


def with_messages(orders: Sequence[Sequence[Action]], dependencies: Dependencies) -> tuple[tuple[Action, ...], ...]:
    """Adds the messages to the compute actions of each rank.

    A message is sent as soon as there is something to send, and received where it is needed first, or with a later one
    of the same channel: messages arrive in the order in which they are sent.
    """
    sends = {
        dependencies.prerequisites(action)[0]: action
        for action in dependencies.owed()
        if action.kind in (Kind.SEND_F, Kind.SEND_B)
    }
    receive_of = {
        dependencies.prerequisites(action)[0]: action
        for action in dependencies.owed()
        if action.kind in (Kind.RECV_F, Kind.RECV_B)
    }
    channels: defaultdict[tuple[int, int, Kind], deque[Action]] = defaultdict(deque)
    for order in orders:
        for action in order:
            if action in sends:
                receive = receive_of[sends[action]]
                channels[_channel(receive, dependencies)].append(receive)
    return tuple(tuple(_rank_with_messages(order, dependencies, sends, channels)) for order in orders)


def _rank_with_messages(
    order: Sequence[Action],
    dependencies: Dependencies,
    sends: dict[Action, Action],
    channels: dict[tuple[int, int, Kind], deque[Action]],
) -> Iterator[Action]:
    received: set[Action] = set()
    for action in order:
        for needed in dependencies.prerequisites(action):
            while needed.kind.is_communication and needed not in received:
                earliest = channels[_channel(needed, dependencies)].popleft()
                received.add(earliest)
                yield earliest
        yield action
        if action in sends:
            yield sends[action]


def _channel(receive: Action, dependencies: Dependencies) -> tuple[int, int, Kind]:
    send = dependencies.prerequisites(receive)[0]
    return dependencies.placement[send.component], dependencies.placement[receive.component], receive.kind
