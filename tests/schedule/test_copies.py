"""Weights on their way to heads that copy them: in which order, after what, and at what price."""

from __future__ import annotations

from dataclasses import replace

import pytest

import interlocking_backprop as ib
from interlocking_backprop.schedule.list_scheduling import list_schedule
from interlocking_backprop.schedule.order import depth_first
from interlocking_backprop.schedule.schedule import Schedule
from interlocking_backprop.scheme.streams import Workload


def workload(scheme=None, copies=((2, 0),), **options) -> Workload:
    return replace(Workload.of(scheme or ib.local(3)), copies=copies, **options)


def lines(schedule: Schedule) -> list[str]:
    return schedule.to_csv().replace(",", " ").splitlines()


def test_one_process_copies_after_all_updates():
    assert lines(depth_first(workload())) == ["0F0 0L0 0W0 0U 1F0 1L0 1W0 1U 2F0 2L0 2W0 2U 2GIVE 0COPY"]
    two = workload(copies=((2, 0), (2, 1)))
    assert lines(depth_first(two, 2))[0].endswith("2W1 2U 2GIVE 0COPY 1COPY")


def test_ranks_give_after_their_update_and_copy_after_their_loss():
    schedule = list_schedule(workload(), 1, range(3))
    ib.validate(schedule)
    assert lines(schedule) == [
        "0F0 0SEND_F0 0L0 0W0 0U 0COPY",
        "1RECV_F0 1F0 1SEND_F0 1L0 1W0 1U",
        "2RECV_F0 2F0 2L0 2W0 2U 2GIVE",
    ]


def test_a_source_that_is_not_updated_gives_what_it_has_when_it_is_done():
    frozen = workload(ib.Scheme([[1, 0, 0], [0, 1, 0], [0, 0, 0]]))
    assert lines(depth_first(frozen))[0].endswith("2F0 2L0 2GIVE 0COPY")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("2U,2GIVE", "2GIVE,2U", "2GIVE waits for ever for 2U"),
        ("0L0,0W0,0U,0COPY", "0COPY,0L0,0W0,0U", "0COPY waits for ever for 2GIVE, 0L0|waits for ever for 0L0"),
        (",0COPY", "", "rank 0 lacks 0COPY"),
        (",2GIVE", "", "rank 2 lacks 2GIVE"),
        ("2GIVE", "1GIVE", "1GIVE is not owed"),
    ],
)
def test_a_wrong_order_is_seen(old, new, message):
    schedule = list_schedule(workload(), 1, range(3))
    text = schedule.to_csv()
    assert old in text
    with pytest.raises(ib.ScheduleError, match=message):
        ib.validate(schedule.with_order(text.replace(old, new)))


def test_the_message_and_the_wait_are_simulated():
    """Rank 0 waits in each such step for the update of rank 2, and for the weights on their way.

    time      0    1    2    3    4    5
    rank 0    F0   W0   W0   .    .    F0 …
    rank 1    .    F0   W0   W0   .    .    F0 …
    rank 2    .    .    F0   W0   W0   .    .    F0 …
    """
    schedule = list_schedule(workload(), 1, range(3))
    components = [ib.ComponentCosts(output_bytes=10, copied_bytes=3)] * 3
    simulation = ib.simulate(schedule, ib.Costs(components))
    assert simulation.step_time == 5
    assert simulation.n_messages == (1, 1, 1)
    assert simulation.message_bytes == (10, 10, 3)
    assert ib.simulate(schedule, ib.Costs([ib.ComponentCosts(copied_bytes=3)] * 3, bandwidth=1)).step_time == 8
    assert ib.simulate(list_schedule(workload(copies=()), 1, range(3)), ib.Costs(components)).step_time == 3


def test_on_one_rank_there_is_no_message():
    schedule = list_schedule(workload(copies=((1, 0),)), 1, (0, 0, 1))
    assert schedule.dependencies.n_messages(ib.Action.from_str("1GIVE")) == 0
    schedule = list_schedule(workload(copies=((2, 0), (2, 1))), 1, (0, 0, 1))
    assert schedule.dependencies.n_messages(ib.Action.from_str("2GIVE")) == 2


def test_as_json():
    schedule = list_schedule(workload(head_ties=((0, 1),)), 2, range(3))
    assert Schedule.from_json(schedule.to_json()) == schedule
