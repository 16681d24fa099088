"""Schedules as data: strings, files, and the validator's errors with the place marked."""

from __future__ import annotations

import numpy as np
import pytest

import interlocking_backprop as ib
from interlocking_backprop.schedule.action import Action, Kind
from interlocking_backprop.schedule.order import depth_first
from interlocking_backprop.schedule.schedule import Schedule
from interlocking_backprop.scheme.streams import Workload
from tests.schedule.orders import unchecked


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("2F0", Action(2, Kind.FORWARD, 0)),
        ("12L3", Action(12, Kind.LOSS, 3)),
        ("2I0", Action(2, Kind.BACKWARD_INPUT, 0, 0)),
        ("2I0.1", Action(2, Kind.BACKWARD_INPUT, 0, 1)),
        ("0W7", Action(0, Kind.BACKWARD_WEIGHT, 7)),
        ("3B1.2", Action(3, Kind.FULL_BACKWARD, 1, 2)),
        ("1SEND_F0", Action(1, Kind.SEND_F, 0)),
        ("3SEND_Y1", Action(3, Kind.SEND_Y, 1, 0)),
        ("1RECV_Y0.3", Action(1, Kind.RECV_Y, 0, 3)),
        ("1RECV_B0.1", Action(1, Kind.RECV_B, 0, 1)),
        ("2U", Action(2, Kind.UPDATE)),
        ("2REDUCE_GRAD", Action(2, Kind.REDUCE_GRAD)),
        ("3GIVE", Action(3, Kind.GIVE)),
        ("0COPY", Action(0, Kind.COPY)),
    ],
)
def test_action_strings(text, action):
    assert Action.from_str(text) == action
    assert str(action) == text


@pytest.mark.parametrize("text", ["", "F0", "2F", "2X0", "2U0", "2F0.1", "2W0.0", "2F0 3", "-1F0", "2GIVE0", "2COPY.1"])
def test_what_is_no_action_is_rejected(text):
    with pytest.raises(ValueError, match="is not an action; expected"):
        Action.from_str(text)


def test_strings_are_those_of_pytorch():
    torch_schedules = pytest.importorskip("torch.distributed.pipelining.schedules")
    for text in ("2F0", "1I3", "0W1", "5B2", "1SEND_F0", "2RECV_B1"):
        theirs = torch_schedules._Action.from_str(text)
        ours = Action.from_str(text)
        assert str(theirs) == str(ours)
        assert (theirs.stage_index, theirs.computation_type.value, theirs.microbatch_index) == ours[:3]


def schedule(scheme: ib.Scheme, m: int = 1) -> Schedule:
    return depth_first(Workload.of(scheme), m)


def two_ranks(rank_0: str, rank_1: str, m: int = 1) -> Schedule:
    """e2e on two components, in the given order."""
    empty = Schedule(Workload.of(ib.e2e(2)), m, (0, 1), ((), ()))
    return unchecked(empty, rank_0, rank_1)


RANK_0 = "0F0 0SEND_F0 0RECV_B0 0W0 0U"
RANK_1 = "1RECV_F0 1F0 1L0 1B0 1SEND_B0 1U"


def test_json_keeps_everything(tmp_path):
    original = schedule(ib.nwise(4, 3, "mean"), 2)
    original.save(tmp_path / "s.json")
    loaded = Schedule.load(tmp_path / "s.json")
    assert loaded == original
    assert loaded.workload.scheme.name == "3wise-mean"


def test_json_takes_the_whole_numbers_of_numpy():
    placement = ib.balanced_placement(4, np.int64(2))
    original = ib.list_schedule(ib.Workload.of(ib.local(np.int64(4))), np.int64(2), np.array(placement))
    assert Schedule.from_json(original.to_json()) == original


def test_csv_keeps_the_order(tmp_path):
    original = two_ranks(RANK_0, RANK_1)
    original.save(tmp_path / "s.csv")
    text = (tmp_path / "s.csv").read_text()
    assert text.splitlines()[0] == "0F0,0SEND_F0,0RECV_B0,0W0,0U"
    assert original.with_order(text) == original


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has 0 lists of actions; expected one for each of 2 ranks"),
        ("0F0", "has 1 lists of actions"),
        (
            "0F0,0W0,0SEND_F0,0RECV_B0,0U\n1RECV_F0,1F0,1L0,1B0,1SEND_B0,1U",
            r"0W0 waits for ever for 0RECV_B0 \(rank 0, ",
        ),
        ("0F0,0SEND_F0,0RECV_B0,0W0,0U\n1RECV_F0,1F0,1L0,1B0,1SEND_B0", "rank 1 lacks 1U"),
        ("0F0,0SEND_F0,0RECV_B0,0W0,0U,9B7.3\n1RECV_F0,1F0,1L0,1B0,1SEND_B0,1U", "9B7.3 is not owed"),
        ("0F0,0SEND_F0,0RECV_B0,0W0,1U\n1RECV_F0,1F0,1L0,1B0,1SEND_B0,0U", "component 1 is not on rank 0"),
    ],
)
def test_an_order_that_cannot_run_is_refused_where_it_is_read(text, message):
    with pytest.raises(ib.ScheduleError, match=message):
        two_ranks(RANK_0, RANK_1).with_order(text)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 99}', '{"format": 1, "scheme": {}}'])
def test_what_is_no_schedule_is_rejected(text):
    with pytest.raises(ValueError, match=r"not a schedule|reads format 1"):
        Schedule.from_json(text)


def test_it_prints_as_a_grid():
    assert str(two_ranks(RANK_0, RANK_1)) == (
        "step  rank 0    rank 1\n"
        "   0  0F0       1RECV_F0\n"
        "   1  0SEND_F0  1F0\n"
        "   2  0RECV_B0  1L0\n"
        "   3  0W0       1B0\n"
        "   4  0U        1SEND_B0\n"
        "   5            1U"
    )


def test_a_valid_schedule_on_two_ranks():
    ib.validate(two_ranks(RANK_0, RANK_1))
    ib.validate(two_ranks(RANK_0, "1RECV_F0 1F0 1L0 1I0 1SEND_B0 1W0 1U"))  # the joint pass in two


def test_the_error_marks_the_place():
    with pytest.raises(ib.ScheduleError) as error:
        ib.validate(two_ranks(RANK_0, "1RECV_F0 1L0 1F0 1B0 1SEND_B0 1U"))
    assert "1L0 waits for ever for 1F0 (rank 1, step 1)" in str(error.value)
    marked = next(line for line in str(error.value).splitlines() if "ERROR HERE" in line)
    assert marked == "   1  0SEND_F0  >1L0<  <-- ERROR HERE"


@pytest.mark.parametrize(
    ("rank_0", "rank_1", "message"),
    [
        ("0F0 0SEND_F0 0RECV_B0 0W0", RANK_1, "rank 0 lacks 0U"),
        ("0F0 0SEND_F0 0RECV_B0 0W0 0W0 0U", RANK_1, "0W0 is not owed, or stands twice"),
        ("0F0 0SEND_F0 0RECV_B0 0W0 0U 1U", "1RECV_F0 1F0 1L0 1B0 1SEND_B0", "component 1 is not on rank 0"),
        ("0RECV_B0 0F0 0SEND_F0 0W0 0U", RANK_1, "0RECV_B0 waits for ever for 1SEND_B0"),
        (RANK_0, "1RECV_F0 1F0 1L0 1U 1B0 1SEND_B0", "1U waits for ever for 1B0"),
        ("0F0 0SEND_F0 0W0 0RECV_B0 0U", RANK_1, "0W0 waits for ever for 0RECV_B0"),
    ],
)
def test_what_cannot_run_is_rejected(rank_0, rank_1, message):
    with pytest.raises(ib.ScheduleError, match=message):
        ib.validate(two_ranks(rank_0, rank_1))


def test_messages_arrive_in_the_order_in_which_they_are_sent():
    rank_0 = "0F0 0SEND_F0 0F1 0SEND_F1 0RECV_B0 0W0 0RECV_B1 0W1 0U"
    rank_1 = "1RECV_F1 1RECV_F0 1F0 1L0 1B0 1SEND_B0 1F1 1L1 1B1 1SEND_B1 1U"
    with pytest.raises(ib.ScheduleError, match="1RECV_F1 comes before 1RECV_F0, which rank 0 sends first"):
        ib.validate(two_ranks(rank_0, rank_1, m=2))


def test_gradients_accumulate_in_the_order_of_micro_batches():
    text = "0F0,0F1,1F0,1F1,1L0,1L1,1B1,1B0,1U,0W0,0W1,0U"
    with pytest.raises(ib.ScheduleError, match="1B1 accumulates before 1B0"):
        ib.validate(unchecked(schedule(ib.e2e(2), 2), text))


def test_a_placement_holds_neighbours_together():
    original = schedule(ib.local(3))
    for placement, message in (
        ((0, 1, 0), "neighbouring"),
        ((0, 0), "names 2 components"),
        ((0, 0, 2), "neighbouring"),
    ):
        bad = Schedule(original.workload, 1, placement, original.actions)
        with pytest.raises(ib.ScheduleError, match=message):
            ib.validate(bad)
    with pytest.raises(ib.ScheduleError, match="has 1 lists of actions; expected one for each of 3 ranks"):
        ib.validate(Schedule(original.workload, 1, (0, 1, 2), original.actions))
