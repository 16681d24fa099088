"""The order in which one process carries out a step: depth-first, so that little is alive at any time.

Each backward pass runs as soon as the last loss that it needs has been computed, and a component's weights are updated
as soon as the last pass through its graphs is done. For N-wise at most N components' graphs are alive, and with one
micro-batch one component's weight gradients.

3-wise, K = 5, one micro-batch; a row is a component, time goes to the right:

    0  F0                W0 U
    1     F0          I0                    W0 U
    2        F0 L0 I0                  I0.1                        W0 U
    3                         F0 L0 I0                      B0.1 U
    4                                            F0 L0 B0 U
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from interlocking_backprop.schedule.action import Action, Kind
from interlocking_backprop.schedule.dependencies import Dependencies
from interlocking_backprop.schedule.messages import with_messages
from interlocking_backprop.schedule.schedule import Schedule
from interlocking_backprop.scheme.streams import Workload


def depth_first(workload: Workload, n_microbatches: int = 1, placement: Sequence[int] | None = None) -> Schedule:
    """The depth-first schedule.

    Args:
        workload: the scheme and the network.
        n_microbatches: M; micro-batches run one after another.
        placement: for each component its rank; by default one process holds them all. On several ranks each carries
            out its part of the same order, which is right for forward passes alone; for training `list_schedule` finds
            better ones.

    Raises:
        ValueError: if an argument is out of its range.
    """
    placement = (0,) * workload.n_components if placement is None else tuple(placement)
    dependencies = Dependencies(workload, n_microbatches, placement)
    orders: list[list[Action]] = [[] for _ in range(placement[-1] + 1)]
    for m in range(n_microbatches):
        for action in _microbatch(workload, m, is_last=m == n_microbatches - 1):
            orders[placement[action.component]].append(action)
    return Schedule(workload, n_microbatches, placement, with_messages(orders, dependencies))


def _microbatch(workload: Workload, m: int, *, is_last: bool) -> Iterator[Action]:
    components = workload.components
    # A loss that asks for the network's output, and what follows it, waits for the last component. The weight-gradient
    # pass comes last, however early its loss, for it is what the update waits for.
    last = len(components) - 1
    ends = [
        max([last if i in workload.asking else i, *(p.last_loss for p in work.passes)])
        for i, work in enumerate(components)
    ]
    waiting: list[int] = []
    reduced: set[int] = set()
    updates_apart = workload.updates == "apart"
    for front, work in enumerate(components):
        if work.is_idle:
            return
        yield Action(front, Kind.FORWARD, m)
        if work.evaluates_exit:
            yield Action(front, Kind.EXIT, m)
        if work.computes_loss and front not in workload.asking:
            yield Action(front, Kind.LOSS, m)
        for i in range(front, -1, -1):
            if front == last and i in workload.asking:
                yield Action(i, Kind.LOSS, m)
            for p in components[i].passes if front <= ends[i] else ():
                if front == (ends[i] if p.kind == "W" else p.last_loss):
                    yield Action(i, Kind(p.kind), m, p.stream if p.kind != "W" else p.weights or None)
            if not is_last or front != ends[i]:
                continue
            if i in workload.sharers(i):
                yield Action(i, Kind.REDUCE_GRAD)
                reduced.add(i)
            if components[i].updates:
                waiting.append(i)
            # Shared weights are updated when all who share them are done.
            for j in [j for j in waiting if updates_apart and reduced.issuperset(workload.sharers(j))]:
                waiting.remove(j)
                yield Action(j, Kind.UPDATE)
    for j in waiting:
        yield Action(j, Kind.UPDATE)
    if is_last:
        yield from (Action(j, Kind.GIVE) for j in dict.fromkeys(source for source, _ in workload.copies))
        yield from (Action(j, Kind.COPY) for _, j in workload.copies)
