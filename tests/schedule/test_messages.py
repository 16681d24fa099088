"""Messages between the actions that compute, as whole grids."""

from __future__ import annotations

from textwrap import indent

import interlocking_backprop as ib
from interlocking_backprop.schedule import messages
from interlocking_backprop.schedule.action import Action
from interlocking_backprop.schedule.dependencies import Dependencies
from interlocking_backprop.schedule.messages import with_messages


def schedule(scheme: ib.Scheme, *orders: str) -> ib.Schedule:
    """One micro-batch, a component for each rank, from the orders of the actions that compute."""
    workload, placement = ib.Workload.of(scheme), tuple(range(scheme.n_components))
    computing = [[Action.from_str(text) for text in order.split()] for order in orders]
    found = ib.Schedule(workload, 1, placement, with_messages(computing, Dependencies(workload, 1, placement)))
    ib.validate(found)
    return found


def test_sent_at_once_and_received_where_needed():
    grid = """\
step  rank 0    rank 1    rank 2
   0  0F0       1RECV_F0  2RECV_F0
   1  0SEND_F0  1F0       2F0
   2  0RECV_B0  1SEND_F0  2L0
   3  0W0       1L0       2B0
   4  0U        1I0       2SEND_B0
   5            1SEND_B0  2U
   6            1RECV_B0
   7            1W0
   8            1U"""
    assert str(schedule(ib.pairwise(3), "0F0 0W0 0U", "1F0 1L0 1I0 1W0 1U", "2F0 2L0 2B0 2U")) == grid
    assert indent(grid, " " * 4) in messages.__doc__


def test_messages_are_received_in_the_order_in_which_they_are_sent():
    """Rank 2 sends stream 0 first, so rank 1 receives it before stream 1, though it computes with stream 1 first."""
    found = schedule(ib.nwise(4, 3), "0F0 0W0 0U", "1F0 1W0 1I0 1U", "2F0 2L0 2I0 2B0.1 2U", "3F0 3L0 3B0 3U")
    assert " ".join(map(str, found.actions[1])) == "1RECV_F0 1F0 1SEND_F0 1RECV_B0 1RECV_B0.1 1W0 1I0 1SEND_B0 1U"
    assert " ".join(map(str, found.actions[2])) == (
        "2RECV_F0 2F0 2SEND_F0 2L0 2I0 2SEND_B0 2RECV_B0 2B0.1 2SEND_B0.1 2U"
    )
