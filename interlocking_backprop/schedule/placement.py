"""Which component goes to which rank."""

from __future__ import annotations

from interlocking_backprop.common.checks import check_whole
from interlocking_backprop.schedule.costs import Costs
from interlocking_backprop.schedule.cuts import balanced_cuts


def balanced_placement(n_components: int, n_ranks: int, costs: Costs | None = None) -> tuple[int, ...]:
    """Spreads the components over the ranks as evenly as can be; neighbours share a rank.

    Args:
        n_components: K.
        n_ranks: the number of ranks, at most K.
        costs: what the components cost; by default all the same.

    Returns:
        For each component its rank.

    Raises:
        ValueError: if there are more ranks than components.
    """
    check_whole("n_ranks", n_ranks)
    if n_ranks > n_components:
        raise ValueError(
            f"{n_ranks} ranks for {n_components} components; expected at most one rank for each component. Start fewer "
            f"processes, or cut the network into at least {n_ranks} components."
        )
    busy = [1.0] * n_components
    if costs is not None:
        busy = [c.forward + c.loss + c.backward_weight + c.update for c in costs.components]
    counts = balanced_cuts(busy, n_ranks)
    return tuple(rank for rank, count in enumerate(counts) for _ in range(count))
