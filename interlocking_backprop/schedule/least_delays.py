"""How late the credit of each component must be for every device to be busy all the time: a formula, nothing measured.

Busy all the time, a step takes as long as the component that owes most: M times its passes, and its update. The loss
that trains component i is computed further on, at j; after i's forward pass of a micro-batch its credit is under way:

    component j        F  I           up:   a forward pass and a message for each component i+1 … j, and the loss
                     F      I         down: an input-gradient pass and a message for each component j … i+1
    component i    F          W  U

In the meantime i has other work, if it owes any: input-gradient passes for those below it, or nothing at all where it
owes less than others. A step has M times as much of that as a micro-batch. What is left of the way is waiting, unless
the credit enters a later update; each step of delay covers as much of it as a step takes.
"""

from __future__ import annotations

from math import ceil

import numpy as np

from interlocking_backprop.common.checks import check_whole
from interlocking_backprop.schedule.costs import ComponentCosts, Costs
from interlocking_backprop.scheme.coefficients import Scheme
from interlocking_backprop.scheme.streams import ComponentWork, Workload


def least_delays(scheme: Scheme, n_microbatches: int, costs: Costs | None = None) -> tuple[int, ...]:
    """The least delays with which a step takes no longer than the component that owes most, a component per device.

    For e2e in units of a forward pass component i needs ``ceil(2 (K - 1 - i) / 3 M)``; local needs none, and N-wise
    with a horizon that is short beside K none from M = 2 on.

    Args:
        scheme: whose rows are to be delayed. What is late already needs so much less.
        n_microbatches: M.
        costs: of the components and messages; by default those of `Costs.uniform`.

    Returns:
        A delay for each component, in steps: what `Scheme.delay` takes.

    Raises:
        ValueError: if there are no micro-batches, or the costs are for another number of components.
    """
    check_whole("n_microbatches", n_microbatches)
    m, k = int(n_microbatches), scheme.n_components
    costs = Costs.uniform(k) if costs is None else costs
    if len(costs.components) != k:
        raise ValueError(f"there are costs of {len(costs.components)} components; the scheme has {k}.")
    works = Workload.of(scheme).components
    updates = [cost.update * work.updates for work, cost in zip(works, costs.components, strict=True)]
    owed = [m * _busy(works[i], costs.components[i]) + updates[i] for i in range(k)]
    step = max(owed)
    delays = []
    for i in range(k):
        other = step - m * _own(works[i], costs.components[i]) - updates[i]
        needed = [
            _steps(_way(costs, i, int(np.flatnonzero(row)[-1])) - other, step) - age
            for age, row in ((age, scheme.coefficients(age)[i]) for age in (0, *scheme.delayed))
            if row.any()
        ]
        delays.append(max([0, *needed]))
    return tuple(delays)


def _busy(work: ComponentWork, cost: ComponentCosts) -> float:
    """How long a component is busy for a micro-batch."""
    nearer = sum(p.kind == "I" for p in work.passes) * cost.backward_input
    return _own(work, cost) + nearer + cost.loss * work.computes_loss


def _own(work: ComponentWork, cost: ComponentCosts) -> float:
    """That part of it which stands in the way of the component's own credit: what is before and after the wait."""
    durations = {"I": 0.0, "W": cost.backward_weight, "B": cost.full_backward}
    return cost.forward + sum(durations[p.kind] for p in work.passes)


def _way(costs: Costs, i: int, j: int) -> float:
    """How long the credit of loss j is under way to component i, if it never waits."""
    hops = sum(
        costs.components[n].forward
        + costs.components[n].backward_input
        + 2 * (costs.latency + costs.components[n - 1].output_bytes / costs.bandwidth)
        for n in range(i + 1, j + 1)
    )
    return hops + costs.components[j].loss


def _steps(time: float, step: float) -> int:
    """How many steps cover a time, up to the rounding of sums of costs."""
    return ceil(time / step - 1e-9) if step else 0
