"""The simulator against small cases worked out by hand."""

from __future__ import annotations

from textwrap import indent

import pytest
from hypothesis import given, settings

import interlocking_backprop as ib
from interlocking_backprop.schedule import simulate as simulate_module
from interlocking_backprop.schedule.list_scheduling import list_schedule
from interlocking_backprop.schedule.placement import balanced_placement
from interlocking_backprop.schedule.schedule import Schedule
from interlocking_backprop.schedule.simulate import Simulation, merged_order, simulate
from interlocking_backprop.scheme.streams import Workload
from tests.schedule.orders import unchecked
from tests.schedule.test_any_problem import problems


def rows(scheme: ib.Scheme, *orders: str, m: int = 1, placement: tuple[int, ...] | None = None) -> Schedule:
    """A valid schedule in the given orders."""
    empty = Schedule(Workload.of(scheme), m, placement or tuple(range(len(orders))), ((),) * len(orders))
    return empty.with_order("\n".join(order.replace(" ", ",") for order in orders))


def last_step(simulation: Simulation) -> list[str]:
    """Each rank's actions of the last step with their begin and end, from when the step began on rank 0."""
    last = max(i.step for i in simulation.timeline)
    intervals = [i for i in simulation.timeline if i.step == last]
    zero = min(i.start for i in intervals if i.rank == 0)
    return [
        " ".join(f"{i.action} {i.start - zero:g}..{i.end - zero:g}" for i in intervals if i.rank == rank)
        for rank in range(len(simulation.busy))
    ]


PAIRWISE = rows(
    ib.pairwise(3),
    "0F0 0SEND_F0 0RECV_B0 0W0 0U",
    "1RECV_F0 1F0 1SEND_F0 1L0 1I0 1SEND_B0 1RECV_B0 1W0 1U",
    "2RECV_F0 2F0 2L0 2B0 2SEND_B0 2U",
)

#   e2e in the order of 1F1B; what comes back is made of joint passes
ONE_F_ONE_B = rows(
    ib.e2e(3),
    "0F0 0SEND_F0 0F1 0SEND_F1 0F2 0SEND_F2 0RECV_B0 0W0 0RECV_B1 0W1 0RECV_B2 0W2 0U",
    "1RECV_F0 1F0 1SEND_F0 1RECV_F1 1F1 1SEND_F1 1RECV_B0 1B0 1SEND_B0 "
    "1RECV_F2 1F2 1SEND_F2 1RECV_B1 1B1 1SEND_B1 1RECV_B2 1B2 1SEND_B2 1U",
    "2RECV_F0 2F0 2L0 2B0 2SEND_B0 2RECV_F1 2F1 2L1 2B1 2SEND_B1 2RECV_F2 2F2 2L2 2B2 2SEND_B2 2U",
    m=3,
)


def test_pairwise():
    """Component 1 binds: its forward pass, those of component 2 with the joint backward pass, its own weights."""
    simulation = simulate(PAIRWISE, ib.Costs.uniform(3), timeline_steps=2)
    picture = """\
        0              5              10
rank 0  F0 .........W0--- f0 .........w0---
rank 1        F0 I0 ......W0--- f0 i0 ......w0---
rank 2           F0 B0--- .........f0 b0---"""
    assert ib.format_timeline(simulation, width=60) == picture
    assert indent(picture, " " * 4) in simulate_module.__doc__
    assert simulation.step_time == 6
    assert simulation.busy == (3, 4, 3)
    assert simulation.limit == 4
    assert simulation.utilization == pytest.approx((3 / 6, 4 / 6, 3 / 6))
    assert simulation.bubble == pytest.approx(1 - 10 / 18)


def test_1f1b():
    """time      0    1    2    3    4    5    6    7    8    9    10   11   12   13   14   15
    rank 0       F0   F1   F2   .    .    .    .    W0   W0   .    W1   W1   .    W2   W2   F0 …
    rank 1       .    F0   F1   .    .    B0   B0   F2   B1   B1   .    B2   B2   .    .    .
    rank 2       .    .    F0   B0   B0   F1   B1   B1   F2   B2   B2   .    .    .    .    .
    """  # fmt: skip
    simulation = simulate(ONE_F_ONE_B, ib.Costs.uniform(3))
    assert last_step(simulation) == [
        "0F0 0..1 0F1 1..2 0F2 2..3 0W0 7..9 0W1 10..12 0W2 13..15",
        "1F0 1..2 1F1 2..3 1B0 5..7 1F2 7..8 1B1 8..10 1B2 11..13",
        "2F0 2..3 2B0 3..5 2F1 5..6 2B1 6..8 2F2 8..9 2B2 9..11",
    ]
    assert simulation.step_time == 15 == 3 * (3 + 3 - 1)
    assert simulation.busy == (9, 9, 9)
    assert simulation.bubble == pytest.approx(6 / 15)


def test_the_timeline_holds_as_many_steps_as_asked_for():
    simulation = simulate(PAIRWISE, ib.Costs.uniform(3), timeline_steps=2)
    steps = sorted({i.step for i in simulation.timeline})
    assert len(steps) == 2
    assert len(simulation.timeline) == 2 * 7
    first, second = ([i for i in simulation.timeline if i.step == step] for step in steps)
    assert [b.start - a.start for a, b in zip(first, second, strict=True)] == [6] * 7
    assert simulate(PAIRWISE, ib.Costs.uniform(3), timeline_steps=0).timeline == ()


def test_a_loss_and_an_update_take_their_time():
    costs = ib.Costs.uniform(3, loss=0.5, update=0.25)
    simulation = simulate(PAIRWISE, costs)
    assert simulation.busy == (3.25, 4.75, 3.75)  # component 0 has no head in pairwise
    # F1, L1 and I1 in the shadow of F2; then F2, L2, B2, W1, U1
    assert simulation.step_time == 1 + 1 + 0.5 + 2 + 2 + 0.25


def test_an_action_for_nothing_is_not_in_the_timeline():
    simulation = simulate(PAIRWISE, ib.Costs.uniform(3, backward_input=0.0))
    assert not any(str(i.action) == "1I0" for i in simulation.timeline)
    assert simulation.busy == (3, 3, 3)


def test_a_weight_pass_behind_its_input_pass_may_cost_less():
    orders = "0F0 0SEND_F0 0RECV_B0 0W0 0U", "1RECV_F0 1F0 1L0 1I0 1SEND_B0 1W0 1U"
    schedule = rows(ib.e2e(2), *orders)
    afresh, taken_over = (simulate(schedule, ib.Costs.uniform(2, split_weight=w)) for w in (None, 1.0))
    assert afresh.busy == (3, 1 + 1 + 2)
    assert taken_over.busy == (3, 1 + 1 + 1)
    # A weight pass of a gradient of its own has nothing to take over.
    assert simulate(PAIRWISE, ib.Costs.uniform(3, split_weight=1.0)).busy == (3, 4, 3)


@pytest.mark.parametrize(
    ("costs", "step_time"),
    [
        (ib.Costs.uniform(3), 6),
        # The loop F1 → F2 → B2 → W1 has a message each way.
        (ib.Costs([ib.ComponentCosts()] * 3, latency=0.5), 7),
        (ib.Costs([ib.ComponentCosts(output_bytes=10)] * 3, bandwidth=20), 7),
        (ib.Costs([ib.ComponentCosts(output_bytes=10)] * 3, latency=0.25, bandwidth=20), 7.5),
        (ib.Costs([ib.ComponentCosts(output_bytes=n) for n in (0, 40, 0)], bandwidth=20), 10),
        # Nothing waits for a message of the last component's.
        (ib.Costs([ib.ComponentCosts(output_bytes=n) for n in (0, 0, 40)], bandwidth=20), 6),
    ],
)
def test_messages_take_their_time(costs, step_time):
    assert simulate(PAIRWISE, costs).step_time == pytest.approx(step_time)


LOCAL = rows(
    ib.local(2),
    "0F0 0SEND_F0 0L0 0W0 0F1 0SEND_F1 0L1 0W1 0U",
    "1RECV_F0 1F0 1L0 1W0 1RECV_F1 1F1 1L1 1W1 1U",
    m=2,
)


def test_a_latency_is_hidden_where_nothing_comes_back():
    assert simulate(LOCAL, ib.Costs([ib.ComponentCosts()] * 2, latency=100)).step_time == 6


def test_messages_of_a_rank_share_a_link():
    """Two messages of 5 units a step keep the link busy longer than the components are."""
    costs = ib.Costs([ib.ComponentCosts(output_bytes=5)] * 2, bandwidth=1)
    assert simulate(LOCAL, costs).step_time == pytest.approx(10)


def test_a_message_waits_until_its_link_is_free():
    """F 1, W 2, a message 2: the second activation is ready at 2 and leaves at 3.

    time      0    1    2    3    4    5    6    7    8    9    10
    rank 0    F0   F1   W0   W0   W1   W1   F0 …
    link           m0   m0   m1   m1
    rank 1                   F0   W0   W0   F1   W1   W1   F0 …
    """
    orders = "0F0 0SEND_F0 0F1 0SEND_F1 0L0 0W0 0L1 0W1 0U", "1RECV_F0 1F0 1L0 1W0 1RECV_F1 1F1 1L1 1W1 1U"
    costs = ib.Costs([ib.ComponentCosts(output_bytes=2)] * 2, bandwidth=1)
    assert last_step(simulate(rows(ib.local(2), *orders, m=2), costs)) == [
        "0F0 0..1 0F1 1..2 0W0 2..4 0W1 4..6",
        "1F0 3..4 1W0 4..6 1F1 6..7 1W1 7..9",
    ]
    # Nothing else to do meanwhile: the wait shows.
    costs = ib.Costs([ib.ComponentCosts(output_bytes=2), ib.ComponentCosts(0.5, 0, 0, 0.5, 0)], bandwidth=1)
    assert (
        last_step(simulate(rows(ib.local(2), *orders, m=2), costs))[1] == "1F0 3..3.5 1W0 3.5..4 1F1 5..5.5 1W1 5.5..6"
    )


def test_uneven_components():
    """In local the slowest sets the pace and the others wait for it."""
    costs = ib.Costs([ib.ComponentCosts(f, 0, 0, 2 * f) for f in (1.0, 3.0, 2.0)])
    schedule = list_schedule(Workload.of(ib.local(3)), 2, range(3), costs)
    simulation = simulate(schedule, costs)
    assert simulation.busy == (6, 18, 12)
    assert simulation.step_time == pytest.approx(18)
    assert simulation.utilization == pytest.approx((1 / 3, 1, 2 / 3))


def test_components_on_one_rank_take_turns():
    orders = "0F0 1F0 1SEND_F0 1L0 1I0 0W0 1RECV_B0 1W0 1U 0U", "2RECV_F0 2F0 2L0 2B0 2SEND_B0 2U"
    simulation = simulate(rows(ib.pairwise(3), *orders, placement=(0, 0, 1)), ib.Costs.uniform(3))
    # rank 0: F0 F1 I1 W0 (W0) W1 (W1); rank 1: F2 B2 (B2) as soon as F1 has ended, which is in time for W1
    assert last_step(simulation) == ["0F0 0..1 1F0 1..2 1I0 2..3 0W0 3..5 1W0 5..7", "2F0 2..3 2B0 3..5"]
    assert (simulation.step_time, simulation.busy) == (7, (7, 3))
    assert simulation.n_messages == (1, 1)


def test_peak_graphs_and_bytes():
    """1F1B keeps K - i graphs of component i; the weight gradients come on top from the first W or B on."""
    components = [ib.ComponentCosts(saved_bytes=s, gradient_bytes=g) for s, g in ((10, 7), (100, 5), (1000, 3))]
    simulation = simulate(ONE_F_ONE_B, ib.Costs(components))
    assert simulation.peak_graphs == (3, 2, 1)
    assert simulation.peak_bytes == (3 * 10 + 7, 2 * 100 + 5, 1000 + 3)


def test_weight_gradients_are_gone_after_the_update():
    orders = ("0F0 0L0 0W0 0U 1F0 1L0 1W0 1U",)
    costs = ib.Costs([ib.ComponentCosts(saved_bytes=10, gradient_bytes=100)] * 2)
    simulation = simulate(rows(ib.local(2), *orders, placement=(0, 0)), costs)
    assert simulation.peak_graphs == (1,)
    assert simulation.peak_bytes == (110,)
    orders = ("0F0 0L0 0W0 1F0 1L0 1W0 1U 0U",)
    assert simulate(rows(ib.local(2), *orders, placement=(0, 0)), costs).peak_bytes == (210,)


@pytest.mark.parametrize(("order", "peak"), [("0F0 0L0 0U 1F0 1L0 1W0 1U", 1), ("0F0 1F0 0L0 0U 1L0 1W0 1U", 2)])
def test_a_component_without_passes_counts_until_its_loss(order, peak):
    frozen = Workload(ib.local(2), (True, True), (False, True))
    schedule = Schedule(frozen, 1, (0, 0), ((),)).with_order(order.replace(" ", ","))
    assert simulate(schedule, ib.Costs.uniform(2)).peak_graphs == (peak,)


def test_messages_are_counted():
    """3-wise, K = 4: one stream enters component 0, two enter 1, one enters 2; each as large as its activation."""
    components = [ib.ComponentCosts(output_bytes=n) for n in (1, 10, 100, 1000)]
    schedule = list_schedule(Workload.of(ib.nwise(4, 3)), 2, range(4))
    simulation = simulate(schedule, ib.Costs(components))
    assert simulation.n_messages == (2 * 1, 2 * (1 + 1), 2 * (1 + 2), 2 * 1)
    assert simulation.message_bytes == (2 * 1, 2 * (10 + 1), 2 * (100 + 2 * 10), 2 * 100)


def test_neighbours_on_a_rank_send_nothing_to_one_another():
    workload = Workload.of(ib.nwise(4, 3))
    schedule = list_schedule(workload, 2, balanced_placement(4, 2))
    costs = ib.Costs([ib.ComponentCosts(output_bytes=n) for n in (1, 10, 100, 1000)])
    simulation = simulate(schedule, costs)
    assert simulation.n_messages == (2, 4)
    assert simulation.message_bytes == (20, 40)


def test_a_deadlock_is_an_error():
    empty = Schedule(Workload.of(ib.e2e(2)), 1, (0, 1), ((), ()))
    stuck = unchecked(empty, "0RECV_B0 0F0 0SEND_F0 0W0 0U", "1RECV_F0 1F0 1L0 1B0 1SEND_B0 1U")
    with pytest.raises(ib.ScheduleError, match="0RECV_B0 waits for ever for 1SEND_B0"):
        simulate(stuck, ib.Costs.uniform(2))


def test_merged_order():
    """The actions of all ranks by when they begin, in the steady state; see the picture of `test_pairwise`.

    Messages and what takes no time begin where the action before them ends.
    """
    assert " ".join(map(str, merged_order(PAIRWISE, ib.Costs.uniform(3)))) == (
        "0F0 0SEND_F0 1RECV_F0 1F0 1SEND_F0 1L0 1I0 2RECV_F0 2F0 1SEND_B0 2L0 2B0 0RECV_B0 0W0 2SEND_B0 2U 0U 1RECV_B0 "
        "1W0 1U"
    )


@settings(max_examples=40, deadline=None)
@given(problems())
def test_merged_order_has_every_action_behind_what_it_needs(problem):
    workload, m, placement, costs = problem
    schedule = list_schedule(workload, m, placement, costs)
    order = merged_order(schedule, costs)
    assert sorted(order) == sorted(action for _, action in schedule)
    place = {action: n for n, action in enumerate(order)}
    for action in order:
        assert all(place[needed] < place[action] for needed in schedule.dependencies.prerequisites(action)), action
    for actions in schedule.actions:
        assert [place[a] for a in actions] == sorted(place[a] for a in actions)


def test_shared_gradients_hold_up_the_update():
    """Components 0 and 2 share weights: rank 0 is two units ahead, and its update waits for rank 2's gradient.

    time      0    1    2    3    4    5    6    7
    rank 0    F0   W0   W0   .    .    F0 …
    rank 1    .    F0   W0   W0   .    .    F0 …
    rank 2    .    .    F0   W0   W0   .    .    F0 …
    """
    schedule = list_schedule(Workload.of(ib.local(3), ties=((0, 2),)), 1, range(3))
    components = [ib.ComponentCosts(output_bytes=10, shared_bytes=3)] * 3
    simulation = simulate(schedule, ib.Costs(components))
    assert simulation.step_time == 5
    assert simulation.n_messages == (2, 1, 1)
    assert simulation.message_bytes == (13, 10, 3)
    assert simulate(schedule, ib.Costs([ib.ComponentCosts(shared_bytes=3)] * 3, bandwidth=1)).step_time == 8
    assert simulate(schedule, ib.Costs([ib.ComponentCosts(shared_bytes=3)] * 3, latency=1)).step_time == 8


def test_late_passes_keep_graphs_and_the_weights_that_they_were_made_with():
    """A graph of 10, 100 or 1000 bytes, weights and gradients of 7, 5 or 3.

    Rank 0 ends the passes of a batch two steps later: at its W it has three graphs, the weights before two updates,
    and a gradient. Rank 1 has two graphs, those before one update, and a gradient. Rank 2 is never late.
    """
    schedule = rows(
        ib.e2e(3).delay([2, 1, 0]),
        "0F0 0SEND_F0 0RECV_B0~2 0W0~2 0U",
        "1RECV_F0 1F0 1SEND_F0 1RECV_B0~1 1I0~1 1SEND_B0~1 1W0~1 1U",
        "2RECV_F0 2F0 2L0 2I0 2SEND_B0 2W0 2U",
    )
    sizes = ((10, 7), (100, 5), (1000, 3))
    simulation = simulate(schedule, ib.Costs([ib.ComponentCosts(saved_bytes=s, gradient_bytes=g) for s, g in sizes]))
    assert simulation.peak_graphs == (3, 2, 1)
    assert simulation.peak_bytes == (3 * 10 + 2 * 7 + 7, 2 * 100 + 5 + 5, 1000 + 3)


def test_a_late_stream_keeps_the_graph_of_fresh_credit():
    """Component 1 learns from its own loss at once, and hands down two steps later what component 2 has sent."""
    schedule = rows(
        ib.Scheme([[0, 0, 0], [0, 1, 0], [0, 0, 0]], delayed={2: [[0, 0, 1], [0, 0, 0], [0, 0, 0]]}),
        "0F0 0SEND_F0 0RECV_B0~2 0W0~2 0U",
        "1RECV_F0 1F0 1SEND_F0 1L0 1W0 1RECV_B0~2 1I0~2 1SEND_B0~2 1U",
        "2RECV_F0 2F0 2L0 2I0 2SEND_B0",
    )
    simulation = simulate(schedule, ib.Costs([ib.ComponentCosts(saved_bytes=10, gradient_bytes=7)] * 3))
    assert simulation.peak_graphs == (3, 3, 1)
    assert simulation.peak_bytes[1] == 3 * 10 + 7 + 2 * 7


def test_two_graphs_of_a_batch_keep_its_weights_once():
    """Two micro-batches, a step late: four graphs at the second F, and the weights before the last update."""
    schedule = rows(ib.e2e(1).delay(1), "0F0 0L0 0F1 0L1 0W0~1 0W1~1 0U", m=2)
    costs = ib.Costs([ib.ComponentCosts(saved_bytes=10, gradient_bytes=7)])
    simulation = simulate(schedule, costs)
    assert simulation.peak_graphs == (4,)
    # At W0: all four graphs, the gradient, and the past weights.
    assert simulation.peak_bytes == (4 * 10 + 7 + 7,)


def test_gradients_that_are_not_due_wait():
    """In one process all passes are carried out at once: at B of component 2 there are three graphs and its gradient,
    that of component 1 of the step before, and those of component 0 of two."""
    costs = ib.Costs([ib.ComponentCosts(saved_bytes=s, gradient_bytes=g) for s, g in ((10, 7), (100, 5), (1000, 3))])
    schedule = ib.depth_first(Workload.of(ib.e2e(3).delay([2, 1, 0])))
    assert simulate(schedule, costs).peak_bytes == (1110 + 3 + 5 + 2 * 7,)


def test_a_gradient_for_several_updates_waits_for_the_last_of_them():
    costs = ib.Costs([ib.ComponentCosts(saved_bytes=10, gradient_bytes=7)])
    schedule = ib.depth_first(Workload.of(ib.e2e(1) + ib.e2e(1).delay(2)))
    assert [str(action) for _, action in schedule] == ["0F0", "0L0", "0W0", "0U"]
    assert simulate(schedule, costs).peak_bytes == (10 + 3 * 7,)
