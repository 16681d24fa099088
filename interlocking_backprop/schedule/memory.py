"""What an order keeps alive: the graphs of forward passes until their last use, weight gradients until the update."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from interlocking_backprop.schedule.action import PASSES, Action, Kind
from interlocking_backprop.schedule.costs import Costs

_USES = (Kind.LOSS, *PASSES)


def peak_memory(actions: Sequence[Action], costs: Costs) -> tuple[int, float]:
    """The most that is alive at once on a rank that carries out the actions.

    Returns:
        The most graphs, of a component and a micro-batch each, and the most bytes of saved activations and weight
        gradients together.
    """
    gradients: set[int] = set()
    most_graphs, most_bytes = 0, 0.0
    for action, alive in _alive_graphs(actions):
        i, kind, _, _ = action
        if kind in (Kind.BACKWARD_WEIGHT, Kind.FULL_BACKWARD):
            gradients.add(i)
        most_graphs = max(most_graphs, alive.total())
        saved = sum(n * costs.components[j].saved_bytes for j, n in alive.items())
        most_bytes = max(most_bytes, saved + sum(costs.components[j].gradient_bytes for j in gradients))
        if kind is Kind.UPDATE:
            gradients.discard(i)
    return most_graphs, most_bytes


def peak_graphs(actions: Sequence[Action]) -> int:
    """The most graphs, of a component and a micro-batch each, that are alive at once."""
    return max((alive.total() for _, alive in _alive_graphs(actions)), default=0)


def _alive_graphs(actions: Sequence[Action]) -> Iterator[tuple[Action, Counter[int]]]:
    """For each action how many graphs of each component are alive while it is carried out."""
    uses_left = Counter((a.component, a.microbatch) for a in actions if a.kind in _USES)
    alive: Counter[int] = Counter()
    for action in actions:
        i, kind, m, _ = action
        if kind is Kind.FORWARD and uses_left[i, m]:
            alive[i] += 1
        yield action, alive
        if kind in _USES:
            uses_left[i, m] -= 1
            if uses_left[i, m] == 0:
                alive[i] -= 1
