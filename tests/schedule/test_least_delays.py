"""The least delays: the formula for e2e, none where the limit is reached without, and what costs do to them."""

from __future__ import annotations

from math import ceil

import numpy as np
import pytest

import interlocking_backprop as ib


@pytest.mark.parametrize("k", [1, 2, 3, 8, 16, 33])
@pytest.mark.parametrize("m", [1, 2, 3, 8])
def test_those_of_e2e_and_local(k, m):
    assert ib.least_delays(ib.e2e(k), m) == tuple(ceil(2 * (k - 1 - i) / (3 * m)) for i in range(k))
    assert ib.least_delays(ib.deep_supervision(k), m) == ib.least_delays(ib.e2e(k), m)
    assert ib.least_delays(ib.local(k), m) == (0,) * k


@pytest.mark.parametrize("n", [2, 3, 4])
@pytest.mark.parametrize("reduction", ["furthest", "sum", "mean"])
def test_a_short_horizon_needs_none_from_two_microbatches_on(n, reduction):
    assert ib.least_delays(ib.nwise(16, n, reduction), 2) == (0,) * 16
    assert max(ib.least_delays(ib.nwise(16, n, reduction), 1)) == 1


def test_a_frozen_component_needs_none():
    matrix = ib.e2e(4).matrix.copy()
    matrix[1] = 0
    assert ib.least_delays(ib.Scheme(matrix), 1) == (2, 0, 1, 0)
    assert ib.least_delays(ib.Scheme(np.zeros((3, 3))), 1) == (0, 0, 0)


def test_slow_messages_and_updates_are_part_of_the_way():
    free = ib.Costs.uniform(4)
    assert ib.least_delays(ib.e2e(4), 2, free) == (1, 1, 1, 0)
    # Three hops of 2 + 2 * 1 units each beside a step of 6.
    assert ib.least_delays(ib.e2e(4), 2, ib.Costs(free.components, latency=1.0)) == (2, 2, 1, 0)
    # Messages of 4 bytes at 2 bytes a unit: hops of 2 + 2 * 2.
    costs = ib.Costs(ib.Costs.uniform(4, output_bytes=4.0).components, bandwidth=2.0)
    assert ib.least_delays(ib.e2e(4), 2, costs) == (3, 2, 1, 0)
    # A loss of 3 units makes the last component's step 12, and the ways longer by 3.
    costs = ib.Costs([*free.components[:3], ib.ComponentCosts(loss=3.0)])
    assert ib.least_delays(ib.e2e(4), 2, costs) == (1, 1, 0, 0)
    # An update of 6 units everywhere makes a step 12.
    assert ib.least_delays(ib.e2e(8), 2, ib.Costs.uniform(8, update=6.0)) == (2, 1, 1, 1, 1, 1, 1, 0)


def test_rounding_adds_no_delay():
    # Two hops of 0.1 + 0.2 units beside a step of 0.6, in floating point a little less and a little more.
    costs = ib.Costs.uniform(3, forward=0.1, backward_input=0.2, full_backward=0.5, backward_weight=0.5)
    assert ib.least_delays(ib.e2e(3), 1, costs) == (1, 1, 0)


def test_bad_arguments_are_rejected():
    with pytest.raises(ValueError, match="n_microbatches is 0"):
        ib.least_delays(ib.e2e(2), 0)
    with pytest.raises(ValueError, match="there are costs of 3 components; the scheme has 2"):
        ib.least_delays(ib.e2e(2), 1, ib.Costs.uniform(3))
