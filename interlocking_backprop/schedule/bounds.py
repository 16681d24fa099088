"""A time that no order can do a step in less than: it tells a search when to stop, and what not to try."""

from __future__ import annotations

import math
from dataclasses import replace
from graphlib import TopologicalSorter

from interlocking_backprop.schedule.costs import Costs
from interlocking_backprop.schedule.dependencies import Dependencies
from interlocking_backprop.schedule.precedence import Precedence


def least_step_time(dependencies: Dependencies, costs: Costs) -> float:
    """The greatest of what can be said of each rank alone, for steps that follow one another without a flush.

    A rank can begin an action of a step only so long after it has begun the step as the way takes that leads to the
    action from others of its own: up to the loss and back. All that it cannot begin before a time it carries out after
    that time. For e2e, K equal components and M micro-batches rank 0 has 2K - 1 units from its first forward pass to
    the first gradient that comes back, and 2M of weight gradients then, in place of 3M of work.

    Args:
        dependencies: what must precede what.
        costs: how long everything takes.
    """
    m = dependencies.n_microbatches
    # A micro-batch waits for no other but to accumulate in order, so one of them shows the ways.
    one = Precedence(replace(dependencies, n_microbatches=1), costs)
    sources: dict[int, list[tuple[int, float]]] = {n: [] for n in range(len(one.rank))}
    for source, followers in enumerate(one.followers):
        for n, delay in followers:
            sources[n].append((source, one.duration[source] + delay))
    order = list(TopologicalSorter({n: [s for s, _ in found] for n, found in sources.items()}).static_order())
    times = [0.0] * len(order)
    for n, action in enumerate(one.actions):
        times[n] = one.duration[n] * (1 if action.microbatch is None else m)
    best = 0.0
    for rank in range(one.n_ranks):
        earliest = [-math.inf] * len(order)  # behind the rank's beginning of the step
        for n in order:
            ways = [earliest[source] + length for source, length in sources[n]]
            earliest[n] = max(ways, default=-math.inf)
            if one.rank[n] == rank:
                earliest[n] = max(earliest[n], 0.0)
        own = sorted((n for n in order if one.rank[n] == rank), key=earliest.__getitem__, reverse=True)
        to_do = 0.0
        for n in own:
            to_do += times[n]
            best = max(best, earliest[n] + to_do)
    return best
