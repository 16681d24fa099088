"""The order on several ranks, as whole tables, and the step times that section 1 of docs/design.md promises."""

from __future__ import annotations

import os
import subprocess
import sys
from textwrap import indent

import pytest

import interlocking_backprop as ib
from interlocking_backprop.schedule import list_scheduling
from interlocking_backprop.schedule.list_scheduling import list_schedule
from interlocking_backprop.schedule.placement import balanced_placement
from interlocking_backprop.schedule.rules import RULES, Rule
from interlocking_backprop.schedule.schedule import Schedule
from interlocking_backprop.schedule.simulate import simulate
from interlocking_backprop.scheme.streams import Workload
from tests.schedule.orders import unchecked

JOINT = [rule for rule in RULES if not rule.split]
SPLIT = [rule for rule in RULES if rule.split]


def scheduled(scheme: ib.Scheme, m: int, ranks: int | None = None, **options) -> Schedule:
    k = scheme.n_components
    return list_schedule(Workload.of(scheme), m, balanced_placement(k, ranks or k), **options)


def table(schedule: Schedule) -> list[str]:
    """A line for each rank."""
    return [" ".join(map(str, actions)) for actions in schedule.actions]


def units(scheme: ib.Scheme, m: int, **options) -> float:
    """The step time per micro-batch."""
    schedule = scheduled(scheme, m, **options)
    costs = options.get("costs") or ib.Costs.uniform(scheme.n_components, split_weight=1.0)
    return simulate(schedule, costs, timeline_steps=0).step_time / m


ONE_F_ONE_B = [Rule("LIWFU", by_microbatch=False, split=False, window=1)]


@pytest.mark.parametrize(
    ("scheme", "options", "width", "picture"),
    [
        (
            ib.pairwise(4),
            {},
            66,
            """\
        0              5              10             15
rank 0  F0 F1 ......W0--- W1--- f0 f1 ......w0--- w1---
rank 1     F0 F1 I0 I1 W0--- W1--- f0 f1 i0 i1 w0--- w1---
rank 2        F0 F1 I0 I1 W0--- W1--- f0 f1 i0 i1 w0--- w1---
rank 3           F0 F1 I0 I1 W0 W1 ......f0 f1 i0 i1 w0 w1""",
        ),
        (
            ib.e2e(4),
            {"rules": ONE_F_ONE_B},
            106,
            """\
        0              5              10             15             20             25             30
rank 0  F0 F1 ........................W0--- ...W1--- f0 f1 ........................w0--- ...w1---
rank 1     F0 F1 ...............B0--- ...B1--- .........f0 f1 ...............b0--- ...b1---
rank 2        F0 F1 ......B0--- ...B1--- ..................f0 f1 ......b0--- ...b1---
rank 3           F0 B0--- F1 B1--- ...........................f0 b0--- f1 b1---""",
        ),
        (
            ib.e2e(4),
            {},
            84,
            """\
        0              5              10             15             20
rank 0  F0 F1 ...............W0--- W1--- f0 f1 ...............w0--- w1---
rank 1     F0 F1 .........I0 W0 I1 W1 ......f0 f1 .........i0 w0 i1 w1
rank 2        F0 F1 ...I0 W0 I1 W1 ............f0 f1 ...i0 w0 i1 w1
rank 3           F0 I0 F1 I1 W0 W1 ...............f0 i0 f1 i1 w0 w1""",
        ),
    ],
    ids=["pairwise", "1F1B", "e2e"],
)
def test_two_micro_batches_in_the_steady_state(scheme, options, width, picture):
    """What the head of the module shows."""
    simulation = simulate(scheduled(scheme, 2, **options), ib.Costs.uniform(4, split_weight=1.0), timeline_steps=2)
    assert ib.format_timeline(simulation, width) == picture
    assert indent(picture, " " * 4) in list_scheduling.__doc__


def test_pairwise_with_one_micro_batch():
    assert table(scheduled(ib.pairwise(3), 1)) == [
        "0F0 0SEND_F0 0RECV_B0 0W0 0U",
        "1RECV_F0 1F0 1SEND_F0 1L0 1I0 1SEND_B0 1RECV_B0 1W0 1U",
        "2RECV_F0 2F0 2L0 2I0 2SEND_B0 2W0 2U",
    ]


def test_local():
    """Nothing comes back, so every rank does all of a micro-batch at once and keeps a single graph."""
    assert table(scheduled(ib.local(3), 2)) == [
        "0F0 0SEND_F0 0L0 0W0 0F1 0SEND_F1 0L1 0W1 0U",
        "1RECV_F0 1F0 1SEND_F0 1L0 1W0 1RECV_F1 1F1 1SEND_F1 1L1 1W1 1U",
        "2RECV_F0 2F0 2L0 2W0 2RECV_F1 2F1 2L1 2W1 2U",
    ]


def test_3wise():
    """Both forward passes first, then the credit of others, the weight gradients as filler; streams behind dots."""
    assert table(scheduled(ib.nwise(4, 3), 2)) == [
        "0F0 0SEND_F0 0F1 0SEND_F1 0RECV_B0 0W0 0RECV_B1 0W1 0U",
        "1RECV_F0 1F0 1SEND_F0 1RECV_F1 1F1 1SEND_F1 1RECV_B0 1I0 1SEND_B0 1RECV_B1 1I1 1SEND_B1 "
        "1RECV_B0.1 1W0 1RECV_B1.1 1W1 1U",
        "2RECV_F0 2F0 2SEND_F0 2L0 2RECV_F1 2F1 2SEND_F1 2L1 2I0 2SEND_B0 2I1 2SEND_B1 "
        "2RECV_B0 2I0.1 2SEND_B0.1 2RECV_B1 2I1.1 2SEND_B1.1 2W0 2W1 2U",
        "3RECV_F0 3F0 3L0 3RECV_F1 3F1 3L1 3I0 3SEND_B0 3I1 3SEND_B1 3W0 3W1 3U",
    ]


def test_e2e_with_joint_passes():
    assert table(scheduled(ib.e2e(2), 2, rules=JOINT)) == [
        "0F0 0SEND_F0 0F1 0SEND_F1 0RECV_B0 0W0 0RECV_B1 0W1 0U",
        "1RECV_F0 1F0 1L0 1RECV_F1 1F1 1L1 1B0 1SEND_B0 1B1 1SEND_B1 1U",
    ]


def test_a_joint_pass_counts_as_an_input_gradient_where_a_rank_below_waits_for_it():
    """Input gradients before forward passes: B0 of component 1 comes before its F1, W0 of component 0 would not."""
    rule = Rule("LIFWU", by_microbatch=False, split=False, window=0)
    assert table(scheduled(ib.e2e(2), 2, rules=[rule]))[1] == (
        "1RECV_F0 1F0 1L0 1B0 1SEND_B0 1RECV_F1 1F1 1L1 1B1 1SEND_B1 1U"
    )


def test_e2e_with_split_passes():
    """The input gradients go out before the weight gradients are computed: 7 units in place of 9."""
    joint, split = (scheduled(ib.e2e(2), 2, rules=rules) for rules in (JOINT, SPLIT))
    assert table(split) == [
        "0F0 0SEND_F0 0F1 0SEND_F1 0RECV_B0 0W0 0RECV_B1 0W1 0U",
        "1RECV_F0 1F0 1L0 1I0 1SEND_B0 1RECV_F1 1F1 1L1 1I1 1SEND_B1 1W0 1W1 1U",
    ]
    costs = ib.Costs.uniform(2, split_weight=1.0)
    assert (simulate(joint, costs).step_time, simulate(split, costs).step_time) == (9, 7)
    assert scheduled(ib.e2e(2), 2) == split  # the better one is what a user gets


def test_four_components_on_two_ranks():
    """Neighbours on a rank hand over without a message, and the upper one's backward passes go first."""
    assert table(scheduled(ib.pairwise(4), 1, ranks=2)) == [
        "0F0 1F0 1SEND_F0 1L0 1I0 0W0 1RECV_B0 1W0 1U 0U",
        "2RECV_F0 2F0 2L0 3F0 3L0 2I0 2SEND_B0 3B0 2W0 3U 2U",
    ]
    assert table(scheduled(ib.e2e(4), 2, ranks=2)) == [
        "0F0 1F0 1SEND_F0 0F1 1F1 1SEND_F1 1RECV_B0 1I0 1W0 0W0 1RECV_B1 1I1 1W1 0W1 1U 0U",
        "2RECV_F0 2F0 3F0 3L0 3I0 2I0 2SEND_B0 2RECV_F1 2F1 3F1 3L1 3I1 2I1 2SEND_B1 3W0 2W0 3W1 2W1 3U 2U",
    ]


def test_all_components_on_one_rank_need_no_messages():
    schedule = scheduled(ib.pairwise(3), 2, ranks=1)
    assert not any(action.kind.is_communication for _, action in schedule)
    assert units(ib.pairwise(3), 2, ranks=1) == 3 + 4 + 3


# N and K, less N = K, which is e2e.
N_AND_K = [(n, k) for n in (1, 2, 3, 4) for k in (4, 8, 16) if n < k]


class TestLimits:
    """Units per micro-batch of N-wise; from K = N + 1 on they do not depend on K."""

    @pytest.mark.parametrize(("n", "k"), N_AND_K)
    def test_two_micro_batches_take_n_plus_2(self, n, k):
        assert units(ib.nwise(k, n), 2) == n + 2

    @pytest.mark.parametrize(("n", "k"), N_AND_K)
    def test_one_micro_batch_takes_2n_plus_1(self, n, k):
        """The loop of a component's output, up N - 1 components and back, binds."""
        assert units(ib.nwise(k, n), 1) == 2 * n + 1

    @pytest.mark.parametrize(("n", "k"), N_AND_K)
    def test_without_the_split_the_last_components_hold_up_the_rest(self, n, k):
        assert units(ib.nwise(k, n), 1, rules=JOINT) == 3 * n
        if n > 1:
            assert units(ib.nwise(k, n), 2, rules=JOINT) == 3 * (n + 1) / 2

    @pytest.mark.parametrize(("n", "k"), [(n, k) for n, k in N_AND_K if k >= 2 * n - 1])
    def test_no_rank_with_n_minus_1_others_below_and_above_is_ever_idle(self, n, k):
        simulation = simulate(scheduled(ib.nwise(k, n), 2), ib.Costs.uniform(k, split_weight=1.0))
        assert simulation.step_time == simulation.limit
        assert simulation.utilization[n - 1 : k - n + 1] == (1.0,) * (k - 2 * n + 2)


def test_the_limit_does_not_grow_with_the_depth():
    assert units(ib.pairwise(64), 2) == 4
    assert units(ib.nwise(64, 3), 2) == 5


@pytest.mark.parametrize(("k", "m"), [(4, 1), (8, 4), (64, 8), (64, 64), (64, 128)])
def test_e2e_takes_the_way_up_and_back_or_the_work_of_a_rank(k, m):
    """What no order can beat; the search finds it at 64 components and 128 micro-batches within seconds."""
    assert units(ib.e2e(k), m) == max(2 * k - 1 + 2 * m, 3 * m) / m


@pytest.mark.parametrize(("k", "m"), [(2, 1), (4, 4), (8, 8), (4, 8), (8, 2)])
def test_e2e_by_1f1b(k, m):
    """Backward first, whole joint passes and as few graphs as 1F1B: its time, and its memory."""
    schedule = scheduled(ib.e2e(k), m, rules=ONE_F_ONE_B)
    simulation = simulate(schedule, ib.Costs.uniform(k))
    assert simulation.step_time == 3 * (m + k - 1)
    assert max(simulation.peak_graphs) <= min(k, m)


@pytest.mark.parametrize(("k", "m"), [(4, 4), (8, 8)])
def test_split_passes_make_e2e_faster_than_1f1b(k, m):
    assert units(ib.e2e(k), m) < 3 * (m + k - 1) / m
    assert units(ib.e2e(k), m, rules=JOINT) <= 3 * (m + k - 1) / m


def test_the_order_follows_the_costs():
    """A slow component in the middle: all others have slack, and it is never idle."""
    costs = ib.Costs([ib.ComponentCosts(f, 0, f, 2 * f, 2 * f, split_weight=f) for f in (1.0, 1.0, 1.5, 1.0, 1.0)])
    schedule = scheduled(ib.pairwise(5), 4, costs=costs)
    simulation = simulate(schedule, costs)
    assert simulation.busy == (12, 16, 24, 16, 12)
    assert simulation.step_time == 24


def test_of_equally_fast_orders_the_leanest_is_kept():
    for scheme, peak in ((ib.local(8), 1), (ib.pairwise(8), 2), (ib.nwise(8, 3), 3)):
        schedule = scheduled(scheme, 8)
        assert max(simulate(schedule, ib.Costs.uniform(8, split_weight=1.0)).peak_graphs) == peak


@pytest.mark.parametrize("bound", [4, 5, 6, 8])
def test_max_graphs_bounds_what_is_alive(bound):
    schedule = scheduled(ib.e2e(4), 8, max_graphs=bound)
    assert max(simulate(schedule, ib.Costs.uniform(4, split_weight=1.0)).peak_graphs) <= bound


def test_more_graphs_make_e2e_faster():
    times = [units(ib.e2e(4), 8, max_graphs=bound) for bound in (4, 8)]
    assert times[0] > times[1]


def test_a_bound_that_no_order_keeps_is_an_error_with_the_remedy():
    with pytest.raises(ValueError, match="max_graphs") as error:
        scheduled(ib.e2e(4), 8, max_graphs=3)
    assert str(error.value) == (
        "max_graphs is 3, but scheme 'e2e' with 8 micro-batches keeps at least 4 graphs alive on a rank; allow so "
        "many, or use a shorter horizon."
    )


def test_every_process_finds_the_same_order():
    """Ranks find it each for itself; nothing in it may hang on the hashes of strings, which differ by process."""
    code = (
        "import interlocking_backprop as ib\n"
        "workload = ib.Workload.of(ib.nwise(6, 3, 'sum'))\n"
        "print(ib.list_schedule(workload, 3, range(6)).to_csv(), end='')"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True, text=True)
    assert run.stdout == scheduled(ib.nwise(6, 3, "sum"), 3).to_csv()


def test_an_evaluation_leaves_nothing_to_choose_among():
    workload = Workload.evaluation([True, True])
    with pytest.raises(ValueError, match=r"is an evaluation, .* depth_first\(workload, n_microbatches, placement\)"):
        list_schedule(workload, 2, range(2))
    ib.validate(ib.depth_first(workload, 2, range(2)))


def test_gradients_of_shared_weights_are_exchanged_before_the_update():
    """Components 0 and 2 share weights: a gradient goes out when it is complete, and both updates wait for both."""
    workload = Workload.of(ib.local(3), ties=((0, 2),))
    schedule = list_schedule(workload, 2, range(3))
    assert table(schedule) == [
        "0F0 0SEND_F0 0L0 0W0 0F1 0SEND_F1 0L1 0W1 0REDUCE_GRAD 0U",
        "1RECV_F0 1F0 1SEND_F0 1L0 1W0 1RECV_F1 1F1 1SEND_F1 1L1 1W1 1U",
        "2RECV_F0 2F0 2L0 2W0 2RECV_F1 2F1 2L1 2W1 2REDUCE_GRAD 2U",
    ]
    ib.validate(schedule)
    rank_0, *others = table(schedule)
    too_early = unchecked(schedule, rank_0.replace("0REDUCE_GRAD 0U", "0U 0REDUCE_GRAD"), *others)
    with pytest.raises(ib.ScheduleError, match="0U waits for ever for 0REDUCE_GRAD"):
        ib.validate(too_early)
