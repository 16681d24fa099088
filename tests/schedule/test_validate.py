"""Every kind of fault is found before anything runs, and the error shows where in the grid it is."""

from __future__ import annotations

import pytest

import interlocking_backprop as ib
from interlocking_backprop.schedule.schedule import Schedule
from interlocking_backprop.scheme.streams import Workload
from tests.schedule.orders import unchecked


def rows(scheme: ib.Scheme, *orders: str, m: int = 1) -> Schedule:
    """A schedule with a component per rank, in the given orders."""
    empty = Schedule(Workload.of(scheme), m, tuple(range(len(orders))), ((),) * len(orders))
    return unchecked(empty, *orders)


def error_of(schedule: Schedule) -> str:
    with pytest.raises(ib.ScheduleError) as error:
        ib.validate(schedule)
    return str(error.value)


def marked(text: str) -> str:
    """The one row of the grid that is marked."""
    (line,) = [line for line in text.splitlines() if "ERROR HERE" in line]
    return line


#   pairwise, K = 3: component 1 has an input-gradient pass for component 0 and a weight-gradient pass of its own
RANK_0 = "0F0 0SEND_F0 0RECV_B0 0W0 0U"
RANK_1 = "1RECV_F0 1F0 1SEND_F0 1L0 1I0 1SEND_B0 1RECV_B0 1W0 1U"
RANK_2 = "2RECV_F0 2F0 2L0 2B0 2SEND_B0 2U"


def pairwise(rank_0: str = RANK_0, rank_1: str = RANK_1, rank_2: str = RANK_2) -> Schedule:
    return rows(ib.pairwise(3), rank_0, rank_1, rank_2)


def test_the_schedule_that_the_faults_are_put_into_is_valid():
    ib.validate(pairwise())


def test_an_input_pass_after_the_update_that_would_invalidate_it():
    text = error_of(pairwise(rank_1="1RECV_F0 1F0 1SEND_F0 1L0 1RECV_B0 1W0 1U 1I0 1SEND_B0"))
    assert text == (
        "the schedule cannot run: 1U waits for ever for 1I0 (rank 1, step 6).\n"
        "step  rank 0    rank 1    rank 2\n"
        "   0  0F0       1RECV_F0  2RECV_F0\n"
        "   1  0SEND_F0  1F0       2F0\n"
        "   2  0RECV_B0  1SEND_F0  2L0\n"
        "   3  0W0       1L0       2B0\n"
        "   4  0U        1RECV_B0  2SEND_B0\n"
        "   5            1W0       2U\n"
        "   6            >1U<  <-- ERROR HERE\n"
        "   7            1I0\n"
        "   8            1SEND_B0"
    )


def test_a_deadlock_across_ranks_none_of_which_is_at_fault_alone():
    rank_0 = "0F0 0SEND_F0 0RECV_B0 0W0 0F1 0SEND_F1 0RECV_B1 0W1 0U"
    rank_1 = "1RECV_F0 1RECV_F1 1F0 1L0 1B0 1SEND_B0 1F1 1L1 1B1 1SEND_B1 1U"
    text = error_of(rows(ib.e2e(2), rank_0, rank_1, m=2))
    assert text == (
        "the schedule cannot run: 0RECV_B0 waits for ever for 1SEND_B0 (rank 0, step 2).\n"
        "step  rank 0      rank 1\n"
        "   0  0F0         1RECV_F0\n"
        "   1  0SEND_F0    1RECV_F1\n"
        "   2  >0RECV_B0<  1F0  <-- ERROR HERE\n"
        "   3  0W0         1L0\n"
        "   4  0F1         1B0\n"
        "   5  0SEND_F1    1SEND_B0\n"
        "   6  0RECV_B1    1F1\n"
        "   7  0W1         1L1\n"
        "   8  0U          1B1\n"
        "   9              1SEND_B1\n"
        "  10              1U"
    )


def test_a_missing_action_is_marked_at_the_end_of_its_rank():
    text = error_of(pairwise(rank_2="2RECV_F0 2F0 2L0 2B0 2SEND_B0"))
    assert text.startswith("the schedule cannot run: rank 2 lacks 2U (rank 2, step 5).\n")
    assert marked(text) == "   5            1SEND_B0  ><  <-- ERROR HERE"


@pytest.mark.parametrize(
    ("orders", "reason", "row"),
    [
        (
            {"rank_1": RANK_1.replace("1I0", "1I0 1I0")},
            "1I0 is not owed, or stands twice (rank 1, step 5)",
            "   5            >1I0<     2U  <-- ERROR HERE",
        ),
        (
            {"rank_0": "0F0 0SEND_F0 0RECV_B0 0B0 0U"},
            "0B0 is not owed, or stands twice (rank 0, step 3)",
            "   3  >0B0<     1L0       2B0  <-- ERROR HERE",
        ),
        (
            {"rank_0": "0F0 0RECV_B0 0W0 0U"},
            "rank 0 lacks 0SEND_F0 (rank 0, step 4)",
            "   4  ><        1I0       2SEND_B0  <-- ERROR HERE",
        ),
        (
            {"rank_1": RANK_1.replace("1RECV_B0 ", "")},
            "rank 1 lacks 1RECV_B0 (rank 1, step 8)",
            "   8            ><  <-- ERROR HERE",
        ),
        (
            {"rank_0": RANK_0 + " 2L0", "rank_2": RANK_2.replace("2L0 ", "")},
            "component 2 is not on rank 0 (rank 0, step 5)",
            "   5  >2L0<     1SEND_B0  <-- ERROR HERE",
        ),
        (
            {"rank_2": "2RECV_F0 2F0 2B0 2SEND_B0 2L0 2U"},
            "2B0 waits for ever for 2L0 (rank 2, step 2)",
            "   2  0RECV_B0  1SEND_F0  >2B0<  <-- ERROR HERE",
        ),
        (
            {"rank_0": "0F0 0SEND_F0 0REDUCE_GRAD 0RECV_B0 0W0 0U"},
            "0REDUCE_GRAD is not owed, or stands twice (rank 0, step 2)",
            "   2  >0REDUCE_GRAD<  1SEND_F0  2L0  <-- ERROR HERE",
        ),
    ],
    ids=["twice", "wrong kind", "no send", "no receive", "wrong rank", "out of order", "not owed"],
)
def test_the_place_of_a_fault_is_marked(orders, reason, row):
    text = error_of(pairwise(**orders))
    assert text.startswith(f"the schedule cannot run: {reason}.\n")
    assert marked(text) == row


def test_messages_in_another_order_than_sent_are_marked_at_the_receiver():
    rank_0 = "0F0 0SEND_F0 0F1 0SEND_F1 0RECV_B1 0W1 0RECV_B0 0W0 0U"
    rank_1 = "1RECV_F0 1F0 1L0 1B0 1SEND_B0 1RECV_F1 1F1 1L1 1B1 1SEND_B1 1U"
    accumulation = error_of(rows(ib.e2e(2), rank_0, rank_1, m=2))
    assert "0W1 accumulates before 0W0 (rank 0, step 5)" in accumulation
    text = error_of(rows(ib.e2e(2), "0F0 0SEND_F0 0F1 0SEND_F1 0RECV_B1 0RECV_B0 0W0 0W1 0U", rank_1, m=2))
    assert "0RECV_B1 comes before 0RECV_B0, which rank 1 sends first (rank 0, step 4)" in text
    assert marked(text) == "   4  >0RECV_B1<  1SEND_B0  <-- ERROR HERE"


def test_losses_accumulate_in_the_order_of_micro_batches_too():
    rank_0 = "0F0 0SEND_F0 0F1 0SEND_F1 0RECV_B0 0W0 0RECV_B1 0W1 0U"
    rank_1 = "1RECV_F0 1F0 1RECV_F1 1F1 1L1 1L0 1B0 1SEND_B0 1B1 1SEND_B1 1U"
    text = error_of(rows(ib.e2e(2), rank_0, rank_1, m=2))
    assert "1L1 accumulates before 1L0 (rank 1, step 4)" in text
    assert marked(text) == "   4  0RECV_B0  >1L1<  <-- ERROR HERE"


def test_two_halves_of_a_joint_pass_may_stand_apart_but_not_alone():
    ib.validate(pairwise(rank_2="2RECV_F0 2F0 2L0 2I0 2SEND_B0 2W0 2U"))
    text = error_of(pairwise(rank_2="2RECV_F0 2F0 2L0 2W0 2SEND_B0 2U"))
    assert "rank 2 lacks 2I0 (rank 2, step 6)" in text
    text = error_of(pairwise(rank_2="2RECV_F0 2F0 2L0 2I0 2SEND_B0 2U"))
    assert "2I0 is not owed" in text  # by a joint pass, which is what is owed without a 2W0
