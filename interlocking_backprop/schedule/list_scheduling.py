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

import math
from collections.abc import Sequence
from typing import NamedTuple

from interlocking_backprop.schedule.action import Action
from interlocking_backprop.schedule.ages import PassAges, Slack, pass_ages
from interlocking_backprop.schedule.bounds import least_step_time
from interlocking_backprop.schedule.clock import Clock, steady_step_time
from interlocking_backprop.schedule.costs import Costs
from interlocking_backprop.schedule.dependencies import Dependencies
from interlocking_backprop.schedule.greedy import GreedyScheduler, GreedyStep
from interlocking_backprop.schedule.memory import peak_graphs
from interlocking_backprop.schedule.messages import with_messages
from interlocking_backprop.schedule.precedence import Precedence
from interlocking_backprop.schedule.rules import RULES, Rule
from interlocking_backprop.schedule.schedule import Schedule
from interlocking_backprop.scheme.streams import Workload

_AS_SHORT = 1e-3  # steps that differ by less are as short as one another
# By when in a step late credit is used. The later, the fewer graphs are kept, and the sooner a rank waits. Last of all
# passes are put off until they are due: where delays are long beside a step, nobody waits then.
_SLACKS = [Slack(inputs, weights) for inputs in (5 / 6, 2 / 3, 1 / 2, 1 / 3, 0.0) for weights in (1 / 3, 0.0)]
_SLACKS += [Slack(-1.0, -1.0), Slack(-math.inf, -math.inf)]
# The earlier passes are than their credit could be there, the longer a rank waits, and the fewer graphs it keeps.
_LEANER = [Slack(steps, steps) for steps in (1.0, 2.0, 4.0, 8.0, math.inf)]

_Kind = tuple[frozenset[int], tuple[PassAges, ...]]
"""Of orders: the components whose joint passes are in two, and the ages of the passes."""


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
        max_graphs: the most graphs, of a component and a micro-batch each, that a rank may keep alive. Where credit is
            late those of earlier batches count as well; if there are too many of them, passes are less late than the
            scheme allows, or not at all, and the ranks wait for one another.
        rules: the rules to try.

    Returns:
        The schedule with the shortest step; of those as short (to 0.1 %) the one with the fewest graphs alive.

    Raises:
        ValueError: if no order keeps so few graphs alive, or an argument is out of its range.
    """
    placement = tuple(placement)
    costs = costs or Costs.uniform(workload.n_components, split_weight=1.0)
    splits = {rule: workload.joint if rule.split else frozenset() for rule in rules}
    slacks = _SLACKS if max_graphs is None else _SLACKS + _LEANER
    kinds = {
        split: dict.fromkeys(pass_ages(workload, n_microbatches, placement, costs, split, slack) for slack in slacks)
        for split in splits.values()
    }
    choices = [(rule, (split, ages)) for rule, split in splits.items() for ages in kinds[split]]
    owed = {kind: Dependencies(workload, n_microbatches, placement, *kind) for _, kind in choices}
    limits = {kind: least_step_time(dependencies, costs) for kind, dependencies in owed.items()}
    numbered: dict[_Kind, Precedence] = {}
    settled: set[tuple[str, bool, _Kind]] = set()  # the choices that no longer hang on the bound on graphs
    best: _Found | None = None
    leanest: int | None = None
    for rule, kind in choices:
        choice = rule.order, rule.by_microbatch, kind
        if choice in settled or (best is not None and limits[kind] > best.time * (1 + _AS_SHORT)):
            continue
        if kind not in numbered:
            numbered[kind] = Precedence(owed[kind], costs)
        scheduler = GreedyScheduler(numbered[kind], rule)
        step = scheduler.run(n_steps=6 + 3 * workload.max_delay)
        if not scheduler.was_held_up:
            settled.add(choice)
        time = _step_time(numbered[kind], step, limits[kind])
        if best is not None and time > best.time * (1 + _AS_SHORT):
            continue
        orders = _orders(numbered[kind], step)
        found = _Found(time, max(map(peak_graphs, orders)), orders, owed[kind])
        leanest = found.peak if leanest is None else min(leanest, found.peak)
        if max_graphs is not None and found.peak > max_graphs:
            continue
        if best is None or time < best.time * (1 - _AS_SHORT) or found.peak < best.peak:
            best = found
        if time <= min(limits.values()) * (1 + _AS_SHORT):
            break
    if best is None:
        raise ValueError(
            f"max_graphs is {max_graphs}, but scheme {workload.scheme.name!r} with {n_microbatches} micro-batches "
            f"keeps at least {leanest} graphs alive on a rank; allow so many, or use a shorter horizon."
        )
    actions = with_messages(best.orders, best.dependencies)
    return Schedule(workload, n_microbatches, placement, actions)


class _Found(NamedTuple):
    """What a rule has led to.

    Attributes:
        time: of a step, once the steps follow one another steadily.
        peak: the most graphs alive on a rank.
        orders: for each rank the actions that compute.
        dependencies: of these actions.
    """

    time: float
    peak: int
    orders: list[list[Action]]
    dependencies: Dependencies


def _step_time(precedence: Precedence, step: GreedyStep, limit: float) -> float:
    """The time of a step in an order that is settled, with links that messages share.

    Args:
        precedence: what waits for what.
        step: in which the order was chosen; the clock goes on from its end.
        limit: a time that no step can do with less than.
    """
    clock = Clock([precedence.entries[n] for n in step.order], precedence.n_ranks, start=step.ends)
    return steady_step_time(clock, limit)


def _orders(precedence: Precedence, step: GreedyStep) -> list[list[Action]]:
    """For each rank the actions that compute, in the order of a step."""
    orders: list[list[Action]] = [[] for _ in range(precedence.n_ranks)]
    for n in step.order:
        if n < len(precedence.actions):  # no join
            orders[precedence.rank[n]].append(precedence.actions[n])
    return orders
