"""Orders in which losses wait for the network's output."""

from __future__ import annotations

from dataclasses import replace

import pytest

import interlocking_backprop as ib
from interlocking_backprop.schedule.list_scheduling import list_schedule
from interlocking_backprop.schedule.order import depth_first
from interlocking_backprop.schedule.simulate import simulate
from interlocking_backprop.schedule.validate import ScheduleError, validate
from interlocking_backprop.scheme.streams import Workload

LOCAL = replace(Workload.of(ib.local(3)), asking=(0, 1))


def rows(schedule: ib.Schedule) -> list[str]:
    return [" ".join(map(str, actions)) for actions in schedule.actions]


def test_on_one_device_they_wait_for_the_last_forward_pass():
    found = depth_first(LOCAL)
    validate(found)
    assert rows(found) == ["0F0 1F0 2F0 2L0 2W0 2U 1L0 1W0 1U 0L0 0W0 0U"]
    one = depth_first(replace(LOCAL, asking=(1,)))
    validate(one)
    assert rows(one) == ["0F0 0L0 0W0 0U 1F0 2F0 2L0 2W0 2U 1L0 1W0 1U"]


def test_passes_wait_for_those_of_their_losses_that_do():
    workload = replace(Workload.of(ib.pairwise(4)), asking=(1,))
    found = depth_first(workload)
    validate(found)
    assert rows(found) == ["0F0 1F0 2F0 2L0 2I0 3F0 3L0 3B0 3U 2W0 2U 1L0 1I0 1W0 1U 0W0 0U"]


def test_on_ranks_the_output_is_sent_to_those_that_ask():
    found = list_schedule(LOCAL, 1, (0, 1, 2))
    validate(found)
    assert rows(found) == [
        "0F0 0SEND_F0 0RECV_Y0.2 0L0 0W0 0U",
        "1RECV_F0 1F0 1SEND_F0 1RECV_Y0.2 1L0 1W0 1U",
        "2RECV_F0 2F0 2SEND_Y0 2SEND_Y0.1 2L0 2W0 2U",
    ]
    one = list_schedule(replace(LOCAL, asking=(0,)), 1, (0, 1, 2))
    assert rows(one)[1:] == ["1RECV_F0 1F0 1SEND_F0 1L0 1W0 1U", "2RECV_F0 2F0 2SEND_Y0 2L0 2W0 2U"]


def test_a_rank_receives_it_once_and_the_last_one_has_it():
    workload = replace(Workload.of(ib.local(4)), asking=(0, 1, 2))
    found = list_schedule(workload, 1, (0, 0, 1, 1))
    validate(found)
    messages = [str(action) for _, action in found if action.kind.value.endswith("_Y")]
    assert messages == ["0RECV_Y0.3", "3SEND_Y0"]
    assert list_schedule(workload, 1, (0, 0, 0, 0)).dependencies.output_receivers == {}


def test_as_text_and_back():
    schedule = list_schedule(LOCAL, 2, (0, 1, 2))
    assert ib.Schedule.from_json(schedule.to_json()) == schedule
    assert schedule.with_order(schedule.to_csv()) == schedule


@pytest.mark.parametrize(
    ("rank_0", "message"),
    [
        ("0F0 0SEND_F0 0L0 0RECV_Y0.2 0W0 0U", "0L0 waits for ever for 0RECV_Y0.2"),
        ("0F0 0RECV_Y0.2 0SEND_F0 0L0 0W0 0U", "0RECV_Y0.2 waits for ever for 2SEND_Y0"),
        ("0F0 0SEND_F0 0L0 0W0 0U", "rank 0 lacks 0RECV_Y0.2"),
        ("0F0 0SEND_F0 0RECV_Y0.1 0L0 0W0 0U", "0RECV_Y0.1 is not owed, or stands twice"),
    ],
)
def test_what_cannot_run_is_refused(rank_0, message):
    schedule = list_schedule(LOCAL, 1, (0, 1, 2))
    others = schedule.to_csv().splitlines()[1:]
    with pytest.raises(ScheduleError, match=message):
        validate(schedule.with_order("\n".join([rank_0.replace(" ", ","), *others])))


def test_outputs_arrive_in_the_order_in_which_they_are_sent():
    schedule = list_schedule(LOCAL, 2, (0, 1, 2))
    text = schedule.to_csv().replace("0RECV_Y0.2", "x").replace("0RECV_Y1.2", "0RECV_Y0.2").replace("x", "0RECV_Y1.2")
    with pytest.raises(ScheduleError, match=r"0RECV_Y1\.2 comes before 0RECV_Y0\.2, which rank 2 sends first"):
        validate(schedule.with_order(text))


def test_it_takes_time_and_messages():
    """The loop of a component that asks is that of e2e without the way down; the message is as large as the output."""
    components = [ib.ComponentCosts(output_bytes=size) for size in (7.0, 7.0, 3.0)]
    schedule = list_schedule(LOCAL, 1, (0, 1, 2), ib.Costs(components))
    found = simulate(schedule, ib.Costs(components))
    assert found.step_time == 5  # F F F W on rank 0
    assert simulate(list_schedule(replace(LOCAL, asking=()), 1, (0, 1, 2)), ib.Costs(components)).step_time == 3
    assert found.message_bytes == (7, 7, 6)
    slow = simulate(schedule, ib.Costs(components, latency=1.0))
    assert slow.step_time == 8  # two activations up, and the output down


@pytest.mark.parametrize(("m", "time", "graphs"), [(1, 10, 1), (2, 12, 2), (4, 16, 4), (8, 24, 8)])
def test_the_step_of_local_learning(m, time, graphs):
    """2 + K/M units for each micro-batch, where docs/schemes.md has it."""
    workload = replace(Workload.of(ib.local(8)), asking=tuple(range(7)))
    found = simulate(list_schedule(workload, m, range(8)), ib.Costs.uniform(8, split_weight=1.0))
    assert found.step_time == pytest.approx(time)
    assert max(found.peak_graphs) == graphs


def test_what_lives_is_counted():
    costs = ib.Costs([ib.ComponentCosts(output_bytes=size) for size in (7.0, 7.0, 3.0)])
    one = depth_first(LOCAL, 2)
    assert simulate(one, costs).peak_bytes == (3,)  # a micro-batch after the other
    assert simulate(depth_first(replace(LOCAL, asking=()), 2), costs).peak_bytes == (0,)
    several = simulate(list_schedule(LOCAL, 2, (0, 1, 2)), costs)
    assert several.peak_bytes == (3, 3, 3)
    nobody_above = simulate(list_schedule(replace(LOCAL, asking=(0,)), 2, (0, 1, 2)), costs)
    assert nobody_above.peak_bytes == (3, 0, 3)


@pytest.mark.parametrize("scheme", [ib.local(6), ib.pairwise(6), ib.nwise(6, 3, "sum"), ib.e2e(6)])
@pytest.mark.parametrize("placement", [(0,) * 6, (0, 0, 0, 1, 1, 1), (0, 1, 1, 2, 2, 3), tuple(range(6))])
@pytest.mark.parametrize("updates", ["apart", "together"])
def test_orders_are_found_without_deadlock(scheme, placement, updates):
    workload = replace(Workload.of(scheme, heads=[True] * 6), asking=(0, 2, 3), updates=updates, ties=((0, 5),))
    for m in (1, 2, 5):
        validate(list_schedule(workload, m, placement, ib.Costs([ib.ComponentCosts()] * 6, latency=0.3)))
        validate(depth_first(workload, m, placement))
