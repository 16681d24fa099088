"""Where the losses that ask for the network's output find it, and which of them is the last to use it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from interlocking_backprop.schedule.action import Action, Kind


class Use(NamedTuple):
    """Of the network's output for a micro-batch, by a loss or a message.

    Attributes:
        holder: the component that it is held for: the last one, or one that receives it.
        is_last: whether nothing in the same process uses it later.
    """

    holder: int
    is_last: bool


def output_uses(actions: Sequence[Action], asking: Sequence[int], n_components: int) -> dict[Action, Use]:
    """The uses of the network's output among the actions of a process.

    Args:
        actions: of one step, in their order.
        asking: the losses that ask for it.
        n_components: K.
    """
    receivers = [action.component for action in actions if action.kind is Kind.RECV_Y]
    uses: dict[Action, Use] = {}
    used: set[tuple[int, int | None]] = set()
    for action in reversed(actions):
        i, kind, m = action.component, action.kind, action.microbatch
        if kind is Kind.SEND_Y or (kind is Kind.LOSS and i in asking):
            # The first of those on a rank that ask receives it for them all.
            holder = max((r for r in receivers if r <= i), default=n_components - 1) if kind is Kind.LOSS else i
            uses[action] = Use(holder, (holder, m) not in used)
            used.add((holder, m))
    return uses
