"""Pipelines on a device per component, against formulas: components of 1 for F and I, 2 for W and B, times 1 / M."""

from __future__ import annotations

import pytest

import interlocking_backprop as ib
from interlocking_backprop.planning.estimates import E2E_PIPELINES, INTERLOCKED, NetworkCosts, estimate_step
from interlocking_backprop.schedule.costs import ComponentCosts
from interlocking_backprop.scheme.streams import Workload

K = 4
PIPELINES = {pipeline.name: pipeline for pipeline in E2E_PIPELINES}


def network(m, **costs):
    even = ComponentCosts(
        forward=1 / m,
        loss=0.0,
        backward_input=1 / m,
        backward_weight=2 / m,
        full_backward=2 / m,
        split_weight=1 / m,
        output_bytes=8 / m,
        saved_bytes=32 / m,
        gradient_bytes=4,
        **costs,
    )
    return NetworkCosts(ib.Costs([even] * K), [0.0] * K, input_bytes=8 / m)


def estimate(scheme, m, pipeline=INTERLOCKED):
    return estimate_step([(Workload.of(scheme), 1.0)], m, network(m), pipeline)


def test_pipelines_of_e2e_take_what_their_formulas_say():
    def seconds(name, m):
        return estimate(ib.e2e(K), m, PIPELINES[name]).step_seconds

    assert seconds("one at a time", 1) == pytest.approx(3 * K)
    for m in (1, 2, 4):
        assert seconds("1F1B", m) == pytest.approx(3 * (m + K - 1) / m)
        assert seconds("1F1B, checkpointed", m) == pytest.approx(4 * (m + K - 1) / m)
        assert seconds("zero-bubble", m) <= seconds("1F1B", m) + 1e-9
    assert seconds("zero-bubble", 4) < seconds("1F1B", 4)


def test_interlocking_schemes_reach_their_limits():
    assert estimate(ib.local(K), 1).step_seconds == pytest.approx(3)
    assert estimate(ib.pairwise(K), 2).step_seconds == pytest.approx(4)
    assert estimate(ib.pairwise(K), 2).utilization > 0.8
    assert estimate(ib.local(K), 1).sent_bytes == 3 * 8  # activations alone


def test_checkpointed_pipelines_keep_inputs_and_one_graph():
    plain, checkpointed = (estimate(ib.e2e(K), 4, PIPELINES[name]) for name in ("1F1B", "1F1B, checkpointed"))
    assert plain.peak_graphs == checkpointed.peak_graphs == 4
    assert plain.peak_bytes == 4 * 32 / 4 + 4
    assert checkpointed.peak_bytes == 4 * 8 / 4 + 4 + 32 / 4


def test_phases_count_by_their_share_and_peaks_by_the_largest():
    local, e2e = estimate(ib.local(K), 1), estimate(ib.e2e(K), 1)
    both = estimate_step([(Workload.of(ib.local(K)), 0.25), (Workload.of(ib.e2e(K)), 0.75)], 1, network(1))
    assert both.step_seconds == pytest.approx(0.25 * local.step_seconds + 0.75 * e2e.step_seconds)
    assert both.sent_bytes == 0.25 * local.sent_bytes + 0.75 * e2e.sent_bytes
    assert both.peak_bytes == max(local.peak_bytes, e2e.peak_bytes)
    assert both.utilization == pytest.approx(
        (0.25 * local.step_seconds * local.utilization + 0.75 * e2e.step_seconds * e2e.utilization) / both.step_seconds
    )


def test_an_update_costs_more_where_there_is_a_head():
    costs = network(1, update=5.0)
    updates = [c.update for c in costs.of(Workload.of(ib.pairwise(K))).components]
    assert updates == [0.0, 5.0, 5.0, 0.0]  # losses 1 and 2; that of the network is no head


def test_messages_take_the_time_of_the_links():
    slow = NetworkCosts(ib.Costs(network(1).costs.components, latency=1.0, bandwidth=8.0), [0.0] * K, 8.0)
    e2e = estimate_step([(Workload.of(ib.e2e(K)), 1.0)], 1, slow, PIPELINES["one at a time"])
    assert e2e.step_seconds == pytest.approx(3 * K + 2 * (K - 1) * (1 + 8 / 8))
