"""How a free rank chooses among the actions that could run. No rule is best for every scheme, depth and latency.

- forward first (``L F I W``) feeds the ranks above early; input gradients come next, because others wait for them, and
  weight gradients fill the gaps. With two micro-batches it reaches the limit for N-wise schemes of any depth;
- input gradients first (``L I F W``) serves the ranks below early, as zero-bubble schedules do;
- backward first (``L I W F``) keeps as few graphs alive as possible, as 1F1B does.
"""

from __future__ import annotations

from dataclasses import dataclass

from interlocking_backprop.schedule.action import Action, Kind
from interlocking_backprop.schedule.dependencies import Dependencies
from interlocking_backprop.scheme.streams import Workload


@dataclass(frozen=True)
class Rule:
    """What a free rank prefers.

    Attributes:
        order: the kinds, the one to prefer first. ``B`` counts as ``I`` where a rank below waits for its stream, else
            as ``W``.
        by_microbatch: whether an earlier micro-batch counts for more than a better kind.
        split: whether a joint backward pass is carried out in two: the input gradient early, the weight gradient later.
        window: bounds the graphs that a component keeps alive, as a multiple of the scheme's reach; 0 for no bound. In
            e2e, 1 is what 1F1B and ZB-H1 keep at most, 2 what ZB-H2 does (Qi et al., ICLR 2024).
    """

    order: str
    by_microbatch: bool
    split: bool
    window: int

    def most_graphs(self, workload: Workload, n_microbatches: int) -> int:
        """The most graphs that a component may keep alive: with so many it begins no further forward pass.

        Raises:
            ValueError: if the workload is an evaluation, which keeps none and needs no rule.
        """
        if workload.is_evaluation:
            raise ValueError(
                "the workload is an evaluation, whose forward passes leave nothing to choose among; expected that of a "
                "training step. depth_first(workload, n_microbatches, placement) is the order of an evaluation, on any "
                "number of ranks."
            )
        reaches = [p.last_loss - i + 1 for i, work in enumerate(workload.components) for p in work.passes]
        bound = self.window * max(reaches, default=1)
        return min(bound, n_microbatches) if bound else n_microbatches

    def priority(self, action: Action, dependencies: Dependencies) -> tuple[int, ...]:
        """A key to compare actions by: the one with the least key is carried out first."""
        if action.kind in (Kind.REDUCE_GRAD, Kind.GIVE, Kind.COPY):
            return (-1, action.component)  # takes no time, and others wait for it
        kind = action.kind.value
        if kind == "B":
            kind = "I" if action.component > 0 and dependencies.crosses(action.component - 1) else "W"
        m = -1 if action.microbatch is None else action.microbatch
        place = self.order.index(kind)
        # On a rank with several components the upper one goes first backward, for the lower waits for its stream.
        depth = action.component if kind in "FL" else -action.component
        first = (m, place) if self.by_microbatch else (place, m)
        return (*first, depth, action.stream or 0)


# In the order of the memory that they need, so that a search ends with the leanest of those that reach the limit.
RULES = [
    Rule(order, by_microbatch, split, window)
    for window, by_microbatch in ((1, False), (1, True), (2, False), (0, False))
    for order in ("LFIWU", "LIFWU", "LIWFU")
    for split in (True, False)
]
