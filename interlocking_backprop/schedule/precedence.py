"""The actions of a step as numbers: what each waits for, on whom, and for how long.

A search plays thousands of actions again and again, and a number is found faster than an action. Messages are no
actions here: they are the time between the end of one action and the beginning of another on a different rank.

End-to-end, K = 2, one micro-batch, messages that take 0.5:

    number    0      1      2      3      4      5      6      7        8
    action    0F0    0W0    0U     1F0    1L0    1B0    1U     0 done   1 done
    waits for        5+0.5  7      0+0.5  3      4      8      0, 1     3, 4, 5
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

from interlocking_backprop.schedule.action import Action, Kind
from interlocking_backprop.schedule.clock import Entry, place
from interlocking_backprop.schedule.costs import Costs
from interlocking_backprop.schedule.dependencies import Dependencies

_ACCUMULATE = (Kind.LOSS, Kind.BACKWARD_WEIGHT, Kind.FULL_BACKWARD)


class Wait(NamedTuple):
    """That an action waits for another.

    Attributes:
        source: the number of the other.
        steps_back: of which step: 0 is the same step, 1 the one before.
        transfer: how long the message from there keeps its link; None if there is no message.
    """

    source: int
    steps_back: int
    transfer: float | None


class Precedence:
    """The actions of a step that compute, numbered, and what each of them waits for.

    Behind the actions come the *joins*, one for each component: a join takes no time, and has happened when all that
    its component computes has. Updates wait for joins, so that where every update waits for all components the waits
    are not counted by the million.

    Not among the waits: a rank begins a step when it has ended the one before.

    Args:
        dependencies: what must precede what.
        costs: how long everything takes.

    Attributes:
        dependencies: the same.
        actions: the actions by their numbers.
        rank: the rank of each action and join.
        duration: how long each takes.
        waits: what each waits for.
        followers: for each, those that wait for it in the same step, and how much later it is there for them, if its
            message has the link for itself.
        n_awaited: for how many in the same step each waits.
        across: for each wait for an earlier step the number that waits, that of its source, how many steps earlier,
            and how much later it is there.
    """

    def __init__(self, dependencies: Dependencies, costs: Costs) -> None:
        self.dependencies, self._costs = dependencies, costs
        placement, split = dependencies.placement, dependencies.split
        self.actions = [a for a in dependencies.owed() if not a.kind.is_communication]
        self._numbers = {action: n for n, action in enumerate(self.actions)}
        self.rank = [placement[a.component] for a in self.actions] + list(placement)
        self.duration = [costs.duration(a, follows_split=a.component in split) for a in self.actions]
        self.duration += [0.0] * len(placement)
        # For each action that sends: the kind of its link, and how long its messages keep it.
        self._sent: dict[int, tuple[Kind, float]] = {}
        self.waits = [list(self._waits(action)) for action in self.actions] + [[] for _ in placement]
        for n, action in enumerate(self.actions):
            if action.microbatch is not None:
                self.waits[self._join(action.component)].append(Wait(n, 0, None))
        self.followers: list[list[tuple[int, float]]] = [[] for _ in self.waits]
        self.n_awaited = [0] * len(self.waits)
        self.across: list[tuple[int, int, int, float]] = []
        for n, waits in enumerate(self.waits):
            for source, steps_back, transfer in waits:
                delay = 0.0 if transfer is None else transfer + costs.latency
                if steps_back:
                    self.across.append((n, source, steps_back, delay))
                else:
                    self.followers[source].append((n, delay))
                    self.n_awaited[n] += 1

    @property
    def n_ranks(self) -> int:
        """How many ranks there are."""
        return self.rank[-1] + 1

    @cached_property
    def graph(self) -> list[int]:
        """For each action the number of the graph, of a component and a micro-batch, that it is about."""
        m = self.dependencies.n_microbatches
        return [a.component * m + (a.microbatch or 0) for a in self.actions]

    @cached_property
    def entries(self) -> list[Entry]:
        """What a clock is told of each action and join."""
        size, latency = len(self.rank), self._costs.latency
        queues = any(transfer for _, transfer in self._sent.values())
        links: dict[tuple[int, Kind], int] = {}
        entries = []
        for n, rank in enumerate(self.rank):
            awaited = []
            for source, steps_back, transfer in self.waits[n]:
                if self.rank[source] != rank:  # what comes from the same rank is there by the order
                    is_message = transfer is not None
                    where = place(source, size, steps_back=steps_back, message=queues and is_message)
                    awaited.append((where, latency if is_message else 0.0))
            link, transfer = None, 0.0
            if queues and n in self._sent:
                kind, transfer = self._sent[n]
                link = links.setdefault((rank, kind), len(links))
            entries.append(Entry(n, rank, self.duration[n], awaited, link, transfer))
        return entries

    def _join(self, i: int) -> int:
        return len(self.actions) + i

    def _waits(self, action: Action) -> Iterator[Wait]:
        i, kind, m = action.component, action.kind, action.microbatch
        dependencies = self.dependencies
        if kind is Kind.UPDATE:
            for j in dependencies.awaited(i):
                yield Wait(self._join(j), 0, None)
            needs = dependencies.reductions(i)
        else:
            needs = dependencies.prerequisites(action)
        for needed in needs:
            send = source = needed
            if needed.kind.is_communication:
                send = dependencies.other_end(needed)
                (source,) = dependencies.prerequisites(send)
            n, before = self._numbers[source], dependencies.steps_before(action, source)
            if self.rank[n] != dependencies.placement[i] and dependencies.n_messages(send):
                occupancy = self._costs.occupancy(send)
                n_sent = dependencies.n_messages(send)
                if send.kind is Kind.SEND_Y:  # one for each rank; here all of them arrive with the last
                    n_sent = len(dependencies.output_receivers)
                self._sent[n] = (send.kind, n_sent * occupancy)
                yield Wait(n, before, occupancy)
            else:
                yield Wait(n, before, None)
        # Gradients accumulate in the order of the micro-batches.
        if kind in _ACCUMULATE and m:
            yield Wait(self._numbers[action._replace(microbatch=m - 1)], 0, None)
