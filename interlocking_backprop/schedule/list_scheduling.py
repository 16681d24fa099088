"""The order for several ranks: a static list for each, found by list scheduling on the cost model.

Ranks that choose greedily by a rule are simulated for several steps in a row, which gives an order for each. No rule is
best for every scheme, depth and latency, so a few are tried, each with the joint backward pass whole or in two and with
more or fewer graphs alive at a time, and the order that the simulator likes best is kept.

The steady state for K = 4 equal components and two micro-batches, as `format_timeline` shows it: a row is a rank, time
goes to the right, the next step is in small letters, and losses and messages take no time.

Pairwise; ranks 1 and 2 are never idle, and more ranks would add rows but no time:

            0              5              10             15
    rank 0  F0 F1 ......W0--- W1--- f0 f1 ......w0--- w1---
    rank 1     F0 F1 I0 I1 W0--- W1--- f0 f1 i0 i1 w0--- w1---
    rank 2        F0 F1 I0 I1 W0--- W1--- f0 f1 i0 i1 w0--- w1---
    rank 3           F0 F1 I0 I1 W0 W1 ......f0 f1 i0 i1 w0 w1

e2e backward first, as 1F1B does it; every rank waits for all those above it:

            0              5              10             15             20             25             30
    rank 0  F0 F1 ........................W0--- ...W1--- f0 f1 ........................w0--- ...w1---
    rank 1     F0 F1 ...............B0--- ...B1--- .........f0 f1 ...............b0--- ...b1---
    rank 2        F0 F1 ......B0--- ...B1--- ..................f0 f1 ......b0--- ...b1---
    rank 3           F0 B0--- F1 B1--- ...........................f0 b0--- f1 b1---

e2e in the order that is kept; the joint backward passes are in two, so that the ranks below go on earlier:

            0              5              10             15             20
    rank 0  F0 F1 ...............W0--- W1--- f0 f1 ...............w0--- w1---
    rank 1     F0 F1 .........I0 W0 I1 W1 ......f0 f1 .........i0 w0 i1 w1
    rank 2        F0 F1 ...I0 W0 I1 W1 ............f0 f1 ...i0 w0 i1 w1
    rank 3           F0 I0 F1 I1 W0 W1 ...............f0 i0 f1 i1 w0 w1
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from interlocking_backprop.schedule.ages import pass_ages
from interlocking_backprop.schedule.costs import Costs
from interlocking_backprop.schedule.dependencies import Dependencies
from interlocking_backprop.schedule.greedy import GreedyScheduler
from interlocking_backprop.schedule.messages import with_messages
from interlocking_backprop.schedule.rules import RULES, Rule
from interlocking_backprop.schedule.schedule import Schedule
from interlocking_backprop.schedule.simulate import simulate
from interlocking_backprop.scheme.streams import Workload


def list_schedule(
    workload: Workload,
    n_microbatches: int,
    placement: Sequence[int],
    costs: Costs | None = None,
    max_graphs: int | None = None,
    rules: Sequence[Rule] = RULES,
) -> Schedule:
    """The best order found for a workload on several ranks.

    Args:
        workload: the scheme and the network.
        n_microbatches: M.
        placement: for each component its rank.
        costs: what the components cost; by default all the same, 1 for ``F`` and ``I``, 2 for ``W`` and ``B``.
        max_graphs: the most graphs, of a component and a micro-batch each, that a rank may keep alive.
        rules: the rules to try.

    Returns:
        The schedule with the shortest step; of those as short (to 0.1 %) the one with the fewest graphs alive.

    Raises:
        ValueError: if no order keeps so few graphs alive, or an argument is out of its range.
    """
    placement = tuple(placement)
    costs = costs or Costs.uniform(workload.n_components, split_weight=1.0)
    busy: defaultdict[int, float] = defaultdict(float)
    for action in Dependencies(workload, n_microbatches, placement).owed():
        busy[placement[action.component]] += costs.duration(action)
    best: tuple[float, int, Schedule] | None = None
    leanest: int | None = None
    different: dict[tuple[str, bool, bool, int], Rule] = {}
    for rule in rules:
        most_graphs = rule.most_graphs(workload, n_microbatches)
        different.setdefault((rule.order, rule.by_microbatch, rule.split, most_graphs), rule)
    for rule in different.values():
        schedule = _order(workload, n_microbatches, placement, costs, rule)
        simulation = simulate(schedule, costs, timeline_steps=0)
        time, peak = simulation.step_time, max(simulation.peak_graphs)
        leanest = peak if leanest is None else min(leanest, peak)
        if max_graphs is not None and peak > max_graphs:
            continue
        if best is None or time < best[0] * 0.999 or (time <= best[0] * 1.001 and peak < best[1]):
            best = (time, peak, schedule)
        if time <= max(busy.values()) * 1.001:
            break  # the rank that has the most to do is never idle
    if best is None:
        raise ValueError(
            f"max_graphs is {max_graphs}, but scheme {workload.scheme.name!r} with {n_microbatches} micro-batches "
            f"keeps at least {leanest} graphs alive on a rank; allow so many, or use a shorter horizon."
        )
    return best[2]


def _order(workload: Workload, n_microbatches: int, placement: tuple[int, ...], costs: Costs, rule: Rule) -> Schedule:
    """The order that a rule leads to, once the steps follow one another steadily."""
    split = workload.joint if rule.split else frozenset()
    ages = pass_ages(workload, n_microbatches, placement, costs, 0.0)
    dependencies = Dependencies(workload, n_microbatches, placement, split, ages)
    orders = GreedyScheduler(dependencies, costs, rule).orders(n_steps=6)
    return Schedule(workload, n_microbatches, placement, with_messages(orders, dependencies))
