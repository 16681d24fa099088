"""The depth-first order of one process, as whole tables, and the bounds on what is alive."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import interlocking_backprop as ib
from interlocking_backprop.schedule.action import Kind
from interlocking_backprop.schedule.order import depth_first
from interlocking_backprop.scheme.streams import Workload


def order(scheme: ib.Scheme, m: int = 1) -> str:
    return " ".join(map(str, depth_first(Workload.of(scheme), m).actions[0]))


def test_e2e():
    assert order(ib.e2e(3)) == "0F0 1F0 2F0 2L0 2B0 2U 1B0 1U 0W0 0U"


def test_local():
    assert order(ib.local(3)) == "0F0 0L0 0W0 0U 1F0 1L0 1W0 1U 2F0 2L0 2W0 2U"


def test_pairwise():
    assert order(ib.pairwise(3)) == "0F0 1F0 1L0 1I0 0W0 0U 2F0 2L0 2B0 2U 1W0 1U"


def test_3wise():
    assert order(ib.nwise(5, 3)) == (
        "0F0 1F0 2F0 2L0 2I0 1I0 0W0 0U "
        "3F0 3L0 3I0 2I0.1 1W0 1U "
        "4F0 4L0 4B0 4U 3B0.1 3U 2W0 2U"
    )  # fmt: skip


def test_microbatches_run_one_after_another_and_update_at_the_end():
    assert order(ib.pairwise(2), 2) == "0F0 1F0 1L0 1B0 0W0 0F1 1F1 1L1 1B1 1U 0W1 0U"


def test_a_frozen_component_has_no_weight_pass_and_no_update():
    assert order(ib.Scheme([[0, 1], [0, 0]])) == "0F0 1F0 1L0 1I0 0W0 0U"


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
