"""What an order keeps alive.

The graphs of forward passes until their last use, weight gradients until their last update, and the weights that a
graph was made with for as long as it outlives their update.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from interlocking_backprop.schedule.action import PASSES, Action, Kind
from interlocking_backprop.schedule.costs import Costs
from interlocking_backprop.scheme.streams import Workload

_USES = (Kind.LOSS, *PASSES)
_WEIGHTS = (Kind.BACKWARD_WEIGHT, Kind.FULL_BACKWARD)


def peak_memory(actions: Sequence[Action], costs: Costs, workload: Workload) -> tuple[int, float]:
    """The most that is alive at once on a rank that carries out the actions, step after step.

    Returns:
        The most graphs, of a component and a micro-batch each, and the most bytes of saved activations, weight
        gradients and past weights together.
    """
    n_uses = Counter((a.component, a.microbatch) for a in actions if a.kind in _USES)
    # For how many steps, from that of its batch, the weight gradients that are computed in an action are needed.
    last_use = {a: _last_use(a, workload) for a in actions if a.kind in _WEIGHTS}
    ages = [a.age for a in actions]
    n_steps = max(ages + list(last_use.values()), default=0) + 1
    uses_left: dict[tuple[int, int | None, int], int] = {}  # by component, micro-batch and batch
    gradients: dict[tuple[int, int | None, int], int] = {}  # by component, weight gradient and batch: its last step
    n_updates: Counter[int] = Counter()
    most_graphs, most_bytes = 0, 0.0
    for step in range(n_steps):
        for action in actions:
            i, kind, m, _, age = action
            batch = step - age
            if batch < 0:
                continue
            if kind is Kind.FORWARD and n_uses[i, m]:
                uses_left[i, m, batch] = n_uses[i, m]
            if kind in _WEIGHTS:
                gradients[i, _weights_of(action, workload), batch] = batch + last_use[action]
            most_graphs = max(most_graphs, len(uses_left))
            held = sum(costs.components[j].saved_bytes for j, _, _ in uses_left)
            held += sum(costs.components[j].gradient_bytes for j, _, _ in gradients)
            past = {(j, made) for j, _, made in uses_left if made < n_updates[j]}
            held += sum(costs.components[j].gradient_bytes for j, _ in past)
            most_bytes = max(most_bytes, held)
            if kind in _USES:
                uses_left[i, m, batch] -= 1
                if uses_left[i, m, batch] == 0:
                    del uses_left[i, m, batch]
            if kind is Kind.UPDATE:
                n_updates[i] += 1
                gradients = {key: last for key, last in gradients.items() if key[0] != i or last > step}
    return most_graphs, most_bytes


def _weights_of(action: Action, workload: Workload) -> int | None:
    """Which of its component's weight gradients an action computes."""
    if action.kind is Kind.BACKWARD_WEIGHT:
        return action.stream or 0
    assert action.stream is not None
    return workload.components[action.component].input_pass(action.stream).weights


def _last_use(action: Action, workload: Workload) -> int:
    weights = _weights_of(action, workload)
    found = workload.components[action.component].weight_passes[weights or 0]
    return max((age for age, _ in found.uses), default=0)
