"""Faults in orders with credit of earlier batches: each is found before anything runs, with its place in the grid."""

from __future__ import annotations

import pytest

import interlocking_backprop as ib
from interlocking_backprop.schedule.schedule import Schedule
from interlocking_backprop.scheme.streams import Workload
from tests.schedule.test_validate import error_of, marked, rows

#   e2e, K = 3, delays 2, 1, 0: a stream is a step under way from component 2 to 1, and another one to 0
LATE = ib.e2e(3).delay([2, 1, 0])
RANK_0 = "0F0 0SEND_F0 0RECV_B0~2 0W0~2 0U"
RANK_1 = "1RECV_F0 1F0 1SEND_F0 1RECV_B0~1 1I0~1 1SEND_B0~1 1W0~1 1U"
RANK_2 = "2RECV_F0 2F0 2L0 2I0 2SEND_B0 2W0 2U"


def late(rank_0: str = RANK_0, rank_1: str = RANK_1, rank_2: str = RANK_2) -> Schedule:
    return rows(LATE, rank_0, rank_1, rank_2)


def test_the_schedule_that_the_faults_are_put_into_is_valid():
    ib.validate(late())
    # Credit of earlier batches is there in whatever order a rank goes through its step.
    ib.validate(late(rank_0="0RECV_B0~2 0W0~2 0F0 0SEND_F0 0U"))
    # What is due two steps later may be carried out earlier, with the credit of the step before.
    ib.validate(late(rank_0=RANK_0.replace("~2", "~1")))


def test_a_weight_pass_after_the_update_that_it_is_for():
    text = error_of(late(rank_0=RANK_0.replace("~2", "~3")))
    assert text == (
        "the schedule cannot run: 0W0~3 comes after the update of age 2 that it is for (rank 0, step 3).\n"
        "step  rank 0      rank 1      rank 2\n"
        "   0  0F0         1RECV_F0    2RECV_F0\n"
        "   1  0SEND_F0    1F0         2F0\n"
        "   2  0RECV_B0~3  1SEND_F0    2L0\n"
        "   3  >0W0~3<     1RECV_B0~1  2I0  <-- ERROR HERE\n"
        "   4  0U          1I0~1       2SEND_B0\n"
        "   5              1SEND_B0~1  2W0\n"
        "   6              1W0~1       2U\n"
        "   7              1U"
    )


def test_the_first_of_several_updates_is_the_one_that_counts():
    scheme = ib.e2e(1).delay(1) + ib.e2e(1).delay(3)
    ib.validate(rows(scheme, "0F0 0L0 0W0~1 0U"))
    assert "0W0~2 comes after the update of age 1 that it is for" in error_of(rows(scheme, "0F0 0L0 0W0~2 0U"))


def test_a_joint_pass_is_for_an_update_as_well():
    ib.validate(late(rank_1=RANK_1.replace("1I0", "1B0").replace("1W0~1 ", "")))
    text = error_of(late(rank_1="1RECV_F0 1F0 1SEND_F0 1RECV_B0~2 1B0~2 1SEND_B0~2 1U"))
    assert "1B0~2 comes after the update of age 1 that it is for (rank 1, step 4)" in text


@pytest.mark.parametrize(
    ("orders", "reason", "row"),
    [
        (
            {"rank_0": "0F0 0SEND_F0 0RECV_B0 0W0 0U"},
            "0RECV_B0 needs 1SEND_B0~1, which is of a later step (rank 0, step 2)",
            "   2  >0RECV_B0<  1SEND_F0    2L0  <-- ERROR HERE",
        ),
        (
            {"rank_2": RANK_2.replace("2I0", "2I0~2").replace("2SEND_B0", "2SEND_B0~2")},
            "1RECV_B0~1 needs 2SEND_B0~2, which is of a later step (rank 1, step 3)",
            "   3  0W0~2       >1RECV_B0~1<  2I0~2  <-- ERROR HERE",
        ),
    ],
    ids=["the stream comes later", "the one above is put off"],
)
def test_what_is_needed_from_a_later_step(orders, reason, row):
    text = error_of(late(**orders))
    assert text.startswith(f"the schedule cannot run: {reason}.\n")
    assert marked(text) == row


def test_what_a_neighbour_on_the_same_rank_computes_in_a_later_step():
    empty = Schedule(Workload.of(ib.e2e(2).delay(1)), 1, (0, 0), ((),))
    with pytest.raises(ib.ScheduleError) as error:
        empty.with_order("0F0,1F0,1L0,0W0,1I0~1,1W0~1,1U,0U")
    text = str(error.value)
    assert "0W0 needs 1I0~1, which is of a later step (rank 0, step 3)" in text
    assert marked(text) == "   3  >0W0<  <-- ERROR HERE"


@pytest.mark.parametrize(
    ("orders", "reason", "row"),
    [
        (
            {"rank_1": RANK_1.replace(" 1SEND_B0~1", "")},
            "rank 1 lacks 1SEND_B0~1 (rank 1, step 7)",
            "   7              ><  <-- ERROR HERE",
        ),
        (
            {"rank_0": RANK_0.replace("0W0~2", "0W0~2 0W0~2")},
            "0W0~2 is not owed, or stands twice (rank 0, step 4)",
            "   4  >0W0~2<     1I0~1       2SEND_B0  <-- ERROR HERE",
        ),
        (
            {"rank_1": RANK_1.replace("1SEND_B0~1", "1SEND_B0")},
            "1SEND_B0 is not owed, or stands twice (rank 1, step 5)",
            "   5              >1SEND_B0<  2W0  <-- ERROR HERE",
        ),
        (
            {"rank_0": RANK_0.replace("0RECV_B0~2", "0RECV_B0~1")},
            "0RECV_B0~1 is not owed, or stands twice (rank 0, step 2)",
            "   2  >0RECV_B0~1<  1SEND_F0    2L0  <-- ERROR HERE",
        ),
        (
            {"rank_2": RANK_2.replace("2L0", "2L0~1")},
            "2L0~1 is not owed, or stands twice (rank 2, step 2)",
            "   2  0RECV_B0~2  1SEND_F0    >2L0~1<  <-- ERROR HERE",
        ),
        (
            {"rank_2": "2RECV_F0 2F0 2I0 2SEND_B0 2L0 2W0 2U"},
            "2I0 waits for ever for 2L0 (rank 2, step 2)",
            "   2  0RECV_B0~2  1SEND_F0    >2I0<  <-- ERROR HERE",
        ),
        (
            {"rank_0": "0F0 0SEND_F0 0RECV_B0~2 0U 0W0~2"},
            "0U waits for ever for 0W0~2 (rank 0, step 3)",
            "   3  >0U<        1RECV_B0~1  2I0  <-- ERROR HERE",
        ),
    ],
    ids=[
        "no send",
        "twice",
        "another age sent",
        "another age received",
        "a late loss",
        "no loss before",
        "updated early",
    ],
)
def test_the_place_of_a_fault_is_marked(orders, reason, row):
    text = error_of(late(**orders))
    assert text.startswith(f"the schedule cannot run: {reason}.\n")
    assert marked(text) == row


def test_micro_batches_of_different_ages():
    """Those of a batch go into one update, so they have one age."""
    schedule = ib.list_schedule(Workload.of(ib.e2e(2).delay(1)), 2, range(2))
    with pytest.raises(ib.ScheduleError, match="0W0 is not owed") as error:
        schedule.with_order(schedule.to_csv().replace("0W0~1", "0W0"))
    assert marked(str(error.value)).startswith("   5  >0W0<")
