"""What an order keeps alive.

The graphs of forward passes until their last use, weight gradients until their last update, and the weights that a
graph was made with for as long as it outlives their update. And the network's output, where losses ask for it, from
the last forward pass or its arrival until the last of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from interlocking_backprop.schedule.action import PASSES, Action, Kind
from interlocking_backprop.schedule.costs import Costs
from interlocking_backprop.schedule.network_output import output_uses
from interlocking_backprop.scheme.streams import Workload

_USES = (Kind.LOSS, *PASSES)
_WEIGHTS = (Kind.BACKWARD_WEIGHT, Kind.FULL_BACKWARD)


def peak_memory(actions: Sequence[Action], costs: Costs, workload: Workload) -> tuple[int, float]:
    """The most that is alive at once on a rank that carries out the actions, step after step.

    Args:
        actions: of the rank, in their order.
        costs: the sizes.
        workload: what the actions are for.

    Returns:
        The most graphs, of a component and a micro-batch each, and the most bytes of saved activations, weight
        gradients, past weights, and network outputs that losses ask for, together.
    """
    n_components = len(costs.components)
    uses = output_uses(actions, workload.asking, n_components)
    held_for = {(use.holder, action.microbatch) for action, use in uses.items()}
    outputs: set[tuple[int, int | None]] = set()
    # How many steps after its batch the last update comes that the weight gradient of an action is for.
    last_use = {a: _last_use(a, workload) for a in actions if a.kind in _WEIGHTS}
    gradients: dict[tuple[int, int | None, int], int] = {}  # by component, index and batch, with the step of their end
    n_updates: Counter[int] = Counter()
    most_graphs, most_bytes = 0, 0.0
    for step, action, alive in _alive_graphs(actions, max(last_use.values(), default=0)):
        i, kind, m = action.component, action.kind, action.microbatch
        if kind in _WEIGHTS:
            batch = step - action.age
            gradients[i, _weights_of(action, workload), batch] = batch + last_use[action]
        if (i, m) in held_for and kind is (Kind.FORWARD if i == n_components - 1 else Kind.RECV_Y):
            outputs.add((i, m))
        most_graphs = max(most_graphs, alive.total())
        held = sum(n * costs.components[j].saved_bytes for (j, _), n in alive.items())
        held += costs.components[-1].output_bytes * len(outputs)
        held += sum(costs.components[j].gradient_bytes for j, _, _ in gradients)
        # Weights take as many bytes as their gradients.
        held += sum(costs.components[j].gradient_bytes for j, made in alive if made < n_updates[j])
        most_bytes = max(most_bytes, held)
        if action in uses and uses[action].is_last:
            outputs.discard((uses[action].holder, m))
        if kind is Kind.UPDATE:
            n_updates[i] += 1
            gradients = {key: last for key, last in gradients.items() if key[0] != i or last > step}
    return most_graphs, most_bytes


def peak_graphs(actions: Sequence[Action]) -> int:
    """The most graphs, of a component and a micro-batch each, that are alive at once."""
    return max((alive.total() for _, _, alive in _alive_graphs(actions)), default=0)


def _alive_graphs(
    actions: Sequence[Action], most_steps: int = 0
) -> Iterator[tuple[int, Action, Counter[tuple[int, int]]]]:
    """For each step and action how many graphs, by component and batch, are alive while it is carried out.

    Args:
        actions: of a step.
        most_steps: how many steps to go on for at least, after the first.
    """
    n_uses = Counter((a.component, a.microbatch) for a in actions if a.kind in _USES)
    uses_left: dict[tuple[int, int | None, int], int] = {}
    alive: Counter[tuple[int, int]] = Counter()
    for step in range(1 + max([most_steps, *(a.age for a in actions)])):
        for action in actions:
            i, kind, m, _, age = action
            batch = step - age
            if batch < 0:
                continue
            if kind is Kind.FORWARD and n_uses[i, m]:
                alive[i, batch] += 1
                uses_left[i, m, batch] = n_uses[i, m]
            yield step, action, alive
            if kind in _USES:
                uses_left[i, m, batch] -= 1
                if uses_left[i, m, batch] == 0:
                    alive[i, batch] -= 1
                    if not alive[i, batch]:
                        del alive[i, batch]


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
