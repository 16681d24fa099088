"""What an order keeps alive: graphs until their last use, weight gradients until the update.

And the network's output, where losses ask for it, from the last forward pass or its arrival until the last of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from interlocking_backprop.schedule.action import PASSES, Action, Kind
from interlocking_backprop.schedule.costs import Costs
from interlocking_backprop.schedule.network_output import output_uses

_USES = (Kind.LOSS, *PASSES)


def peak_memory(actions: Sequence[Action], costs: Costs, asking: Sequence[int] = ()) -> tuple[int, float]:
    """The most that is alive at once on a rank that carries out the actions.

    Args:
        actions: of the rank, in their order.
        costs: the sizes.
        asking: the losses that ask for the network's output.

    Returns:
        The most graphs, of a component and a micro-batch each, and the most bytes of saved activations and weight
        gradients, and of network outputs that losses ask for, together.
    """
    n_components = len(costs.components)
    output_bytes = costs.components[-1].output_bytes
    uses = output_uses(actions, asking, n_components)
    held = {(use.holder, action.microbatch) for action, use in uses.items()}
    outputs: set[tuple[int, int | None]] = set()
    uses_left = Counter((a.component, a.microbatch) for a in actions if a.kind in _USES)
    graphs: set[tuple[int, int | None]] = set()
    gradients: set[int] = set()
    most_graphs, most_bytes = 0, 0.0
    for action in actions:
        i, kind, m, _ = action
        if kind is Kind.FORWARD and uses_left[i, m]:
            graphs.add((i, m))
        if kind in (Kind.BACKWARD_WEIGHT, Kind.FULL_BACKWARD):
            gradients.add(i)
        if (i, m) in held and kind is (Kind.FORWARD if i == n_components - 1 else Kind.RECV_Y):
            outputs.add((i, m))
        most_graphs = max(most_graphs, len(graphs))
        saved = sum(costs.components[j].saved_bytes for j, _ in graphs) + output_bytes * len(outputs)
        most_bytes = max(most_bytes, saved + sum(costs.components[j].gradient_bytes for j in gradients))
        if kind in _USES:
            uses_left[i, m] -= 1
            if uses_left[i, m] == 0:
                graphs.discard((i, m))
        if action in uses and uses[action].is_last:
            outputs.discard((uses[action].holder, m))
        if kind is Kind.UPDATE:
            gradients.discard(i)
    return most_graphs, most_bytes
