"""What an order keeps alive: the graphs of forward passes until their last use, weight gradients until the update."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from interlocking_backprop.schedule.action import PASSES, Action, Kind
from interlocking_backprop.schedule.costs import Costs

_USES = (Kind.LOSS, *PASSES)


def peak_memory(actions: Sequence[Action], costs: Costs) -> tuple[int, float]:
    """The most that is alive at once on a rank that carries out the actions.

    Returns:
        The most graphs, of a component and a micro-batch each, and the most bytes of saved activations and weight
        gradients together.
    """
    uses_left = Counter((a.component, a.microbatch) for a in actions if a.kind in _USES)
    graphs: set[tuple[int, int | None]] = set()
    gradients: set[int] = set()
    most_graphs, most_bytes = 0, 0.0
    for i, kind, m, _ in actions:
        if kind is Kind.FORWARD and uses_left[i, m]:
            graphs.add((i, m))
        if kind in (Kind.BACKWARD_WEIGHT, Kind.FULL_BACKWARD):
            gradients.add(i)
        most_graphs = max(most_graphs, len(graphs))
        saved = sum(costs.components[j].saved_bytes for j, _ in graphs)
        most_bytes = max(most_bytes, saved + sum(costs.components[j].gradient_bytes for j in gradients))
        if kind in _USES:
            uses_left[i, m] -= 1
            if uses_left[i, m] == 0:
                graphs.discard((i, m))
        if kind is Kind.UPDATE:
            gradients.discard(i)
    return most_graphs, most_bytes
