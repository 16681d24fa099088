"""When messages are sent and received, for an order of the actions that compute.

A message is sent as soon as there is something to send, and received where it is needed first, or with a later one of
the same channel: messages arrive in the order in which they are sent. (Where there is credit of earlier batches, just
where it is needed first.)

Pairwise, K = 3, one micro-batch; rank 1 computes ``1F0 1L0 1I0 1W0 1U``:

    step  rank 0    rank 1    rank 2
       0  0F0       1RECV_F0  2RECV_F0
       1  0SEND_F0  1F0       2F0
       2  0RECV_B0  1SEND_F0  2L0
       3  0W0       1L0       2B0
       4  0U        1I0       2SEND_B0
       5            1SEND_B0  2U
       6            1RECV_B0
       7            1W0
       8            1U
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Sequence

from interlocking_backprop.schedule.action import SENDS, Action, Kind
from interlocking_backprop.schedule.dependencies import Dependencies


def with_messages(orders: Sequence[Sequence[Action]], dependencies: Dependencies) -> tuple[tuple[Action, ...], ...]:
    """Adds the messages to the compute actions of each rank; a rank alone has none."""
    if len(orders) == 1:
        return (tuple(orders[0]),)
    sends: defaultdict[Action, list[Action]] = defaultdict(list)
    for action in dependencies.owed():
        if action.kind in SENDS:
            sends[dependencies.prerequisites(action)[0]].append(action)
    under_way: defaultdict[tuple[int, int, Kind], deque[Action]] = defaultdict(deque)
    for order in orders:
        for action in order:
            for send in sends.get(action, ()):
                receive = dependencies.other_end(send)
                under_way[dependencies.channel(receive)].append(receive)

    def rank_with_messages(order: Sequence[Action]) -> Iterator[Action]:
        received: set[Action] = set()
        for action in order:
            for needed in dependencies.prerequisites(action):
                if not needed.kind.is_communication or dependencies.steps_before(action, needed):
                    continue
                if dependencies.ages:  # those of earlier batches are sent in other steps
                    if needed not in received:
                        received.add(needed)
                        yield needed
                    continue
                while needed not in received:
                    earliest = under_way[dependencies.channel(needed)].popleft()
                    received.add(earliest)
                    yield earliest
            yield action
            yield from sends.get(action, ())

    return tuple(tuple(rank_with_messages(order)) for order in orders)
