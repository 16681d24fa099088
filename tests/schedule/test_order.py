"""The depth-first order of one process, as whole pictures, and the bounds on what is alive."""

from __future__ import annotations

from textwrap import indent

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import interlocking_backprop as ib
from interlocking_backprop.schedule import order
from interlocking_backprop.schedule.action import Kind
from interlocking_backprop.schedule.order import depth_first
from interlocking_backprop.schedule.schedule import Schedule
from interlocking_backprop.scheme.streams import Workload


def picture(scheme: ib.Scheme, m: int = 1) -> str:
    """A row for each component; time goes to the right, one action after another."""
    schedule = depth_first(Workload.of(scheme), m)
    rows = [f"{i} " for i in range(scheme.n_components)]
    for action in schedule.actions[0]:
        for i in range(scheme.n_components):
            rows[i] += " " + (action.short if i == action.component else " " * len(action.short))
    return "\n".join(row.rstrip() for row in rows)


def test_e2e():
    assert picture(ib.e2e(3)) == (
        """\
0  F0                    W0 U
1     F0            B0 U
2        F0 L0 B0 U"""
    )


def test_local():
    assert picture(ib.local(3)) == (
        """\
0  F0 L0 W0 U
1             F0 L0 W0 U
2                        F0 L0 W0 U"""
    )


def test_pairwise():
    assert picture(ib.pairwise(4)) == (
        """\
0  F0          W0 U
1     F0 L0 I0               W0 U
2                   F0 L0 I0                 W0 U
3                                 F0 L0 B0 U"""
    )


def test_3wise():
    found = picture(ib.nwise(5, 3))
    assert found == (
        """\
0  F0                W0 U
1     F0          I0                    W0 U
2        F0 L0 I0                  I0.1                        W0 U
3                         F0 L0 I0                      B0.1 U
4                                            F0 L0 B0 U"""
    )
    assert indent(found, " " * 4) in order.__doc__


def test_microbatches_run_one_after_another_and_update_at_the_end():
    assert picture(ib.pairwise(3), 2) == (
        """\
0  F0          W0             F1          W1 U
1     F0 L0 I0             W0    F1 L1 I1                 W1 U
2                 F0 L0 B0                     F1 L1 B1 U"""
    )


def test_the_weight_gradient_comes_behind_the_input_gradients():
    """Component 1 is trained by its own loss, which is there before loss 2, the one that component 0 waits for."""
    assert picture(ib.Scheme([[0, 0, 1], [0, 1, 0], [0, 0, 1]])) == (
        """\
0  F0                          W0 U
1     F0 L0            I0 W0 U
2           F0 L0 B0 U"""
    )


def test_a_frozen_component_has_no_weight_pass_and_no_update():
    assert picture(ib.Scheme([[0, 1], [0, 0]])) == (
        """\
0  F0          W0 U
1     F0 L0 I0"""
    )


def test_an_evaluation_ends_at_the_last_exit_that_is_asked_for():
    schedule = depth_first(Workload.evaluation([True, False, True, False]), 2, placement=(0, 1, 1, 2))
    ib.validate(schedule)
    assert str(schedule) == (
        """\
step  rank 0    rank 1    rank 2
   0  0F0       1RECV_F0
   1  0SEND_F0  1F0
   2  0E0       2F0
   3  0F1       2E0
   4  0SEND_F1  1RECV_F1
   5  0E1       1F1
   6            2F1
   7            2E1"""
    )
    assert Schedule.from_json(schedule.to_json()) == schedule


@pytest.mark.parametrize("n", range(1, 7))
@pytest.mark.parametrize("reduction", ["furthest", "sum", "mean"])
def test_what_is_alive_at_once(n, reduction):
    """At most N graphs; at most one component's weight gradients."""
    k = 12
    schedule = depth_first(Workload.of(ib.nwise(k, n, reduction)))
    dependencies = {i: len(w.passes) for i, w in enumerate(schedule.workload.components)}
    graphs: set[int] = set()
    gradients: set[int] = set()
    most_graphs = most_gradients = 0
    for action in schedule.actions[0]:
        i = action.component
        if action.kind is Kind.FORWARD:
            graphs.add(i)
        elif action.kind in (Kind.BACKWARD_INPUT, Kind.BACKWARD_WEIGHT, Kind.FULL_BACKWARD):
            dependencies[i] -= 1
            if action.kind is not Kind.BACKWARD_INPUT:
                gradients.add(i)
        most_graphs, most_gradients = max(most_graphs, len(graphs)), max(most_gradients, len(gradients))
        if dependencies[i] == 0:
            graphs.discard(i)
        if action.kind is Kind.UPDATE:
            gradients.discard(i)
    assert most_graphs == n
    assert most_gradients == 1


@st.composite
def schemes(draw):
    k = draw(st.integers(1, 6))
    return ib.Scheme(
        [[draw(st.sampled_from([0, 0, 1, 1, -2, 0.5])) if j >= i else 0 for j in range(k)] for i in range(k)]
    )


@settings(max_examples=100, deadline=None)
@given(schemes(), st.integers(1, 3))
def test_every_order_is_valid(scheme, m):
    ib.validate(depth_first(Workload.of(scheme), m))
