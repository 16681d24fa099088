"""Updates that wait for one another, and steps without any: the schedule, the validator and the simulator say so."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import interlocking_backprop as ib
from interlocking_backprop.schedule.action import Kind
from interlocking_backprop.schedule.schedule import Schedule
from interlocking_backprop.schedule.simulate import merged_order
from tests.schedule.orders import unchecked


def workload(scheme: ib.Scheme, updates: str, ties: tuple[tuple[int, ...], ...] = ()) -> ib.Workload:
    return replace(ib.Workload.of(scheme, ties=ties), updates=updates)


def short(schedule: Schedule) -> str:
    (actions,) = schedule.actions
    return " ".join(map(str, actions))


def test_on_one_device():
    local = ib.local(3)
    assert short(ib.depth_first(workload(local, "apart"))) == "0F0 0L0 0W0 0U 1F0 1L0 1W0 1U 2F0 2L0 2W0 2U"
    assert short(ib.depth_first(workload(local, "together"))) == "0F0 0L0 0W0 1F0 1L0 1W0 2F0 2L0 2W0 0U 1U 2U"
    assert short(ib.depth_first(workload(local, "none"))) == "0F0 0L0 0W0 1F0 1L0 1W0 2F0 2L0 2W0"


def test_shared_weights_are_not_exchanged_without_an_update():
    e2e, ties = ib.e2e(2), ((0, 1),)
    assert "REDUCE_GRAD" in short(ib.depth_first(workload(e2e, "together", ties)))
    assert "REDUCE_GRAD" not in short(ib.depth_first(workload(e2e, "none", ties)))


@settings(max_examples=40, deadline=None)
@given(
    k=st.integers(1, 6),
    m=st.integers(1, 3),
    seed=st.integers(0, 999),
    updates=st.sampled_from(["together", "none"]),
    is_tied=st.booleans(),
)
def test_every_order_is_valid_and_keeps_to_it(k, m, seed, updates, is_tied):
    matrix = np.triu(np.random.default_rng(seed).integers(0, 3, size=(k, k)))
    matrix[0, 0] = 1
    owed = workload(ib.Scheme(matrix, name="random"), updates, ((0, k - 1),) if is_tied and k > 1 else ())
    for schedule in (ib.depth_first(owed, m), ib.list_schedule(owed, m, range(k))):
        ib.validate(schedule)
        assert Schedule.from_json(schedule.to_json()) == schedule
        kinds = [action.kind for action in merged_order(schedule)]
        first = kinds.index(Kind.UPDATE) if Kind.UPDATE in kinds else len(kinds)
        assert set(kinds[first:]) <= {Kind.UPDATE, Kind.SEND_B, Kind.SEND_F}
        assert (Kind.UPDATE in kinds) == (updates == "together")


def test_an_update_before_the_last_gradient_is_found():
    schedule = ib.list_schedule(workload(ib.local(2), "together"), 1, range(2))
    impossible = replace(schedule, workload=workload(ib.local(2), "together"), placement=(0, 0), actions=((),))
    with pytest.raises(ib.ScheduleError, match="0U waits for ever for 1F0, 1L0, 1W0"):
        ib.validate(unchecked(impossible, "0F0,0L0,0W0,0U,1F0,1L0,1W0,1U"))


def test_the_simulator_shows_that_steps_no_longer_overlap():
    """Local learning, K = 8: the last component's gradient is there after 7 forward passes and its own 3 units."""
    costs = ib.Costs.uniform(8)
    times = {
        updates: ib.simulate(ib.list_schedule(workload(ib.local(8), updates), 1, range(8)), costs).step_time
        for updates in ("apart", "together", "none")
    }
    assert times == {"apart": 3, "together": 10, "none": 3}


def test_the_gradients_of_all_components_are_in_memory_at_once():
    costs = ib.Costs([ib.ComponentCosts(gradient_bytes=10) for _ in range(4)])
    peaks = {
        updates: ib.simulate(ib.depth_first(workload(ib.local(4), updates)), costs).peak_bytes
        for updates in ("apart", "together")
    }
    assert peaks == {"apart": (10.0,), "together": (40.0,)}
