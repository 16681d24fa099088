"""Which component goes to which rank."""

from __future__ import annotations

import pytest

import interlocking_backprop as ib
from interlocking_backprop.schedule.placement import balanced_placement


@pytest.mark.parametrize(
    ("n_components", "n_ranks", "expected"),
    [(4, 4, (0, 1, 2, 3)), (4, 2, (0, 0, 1, 1)), (5, 1, (0,) * 5), (3, 3, (0, 1, 2))],
)
def test_neighbours_share_a_rank(n_components, n_ranks, expected):
    assert balanced_placement(n_components, n_ranks) == expected


def test_a_placement_evens_out_what_components_cost():
    costs = ib.Costs([ib.ComponentCosts(f, 0, f, 2 * f, 2 * f) for f in (4.0, 1.0, 1.0, 1.0, 1.0)])
    assert balanced_placement(5, 2, costs) == (0, 1, 1, 1, 1)


@pytest.mark.parametrize(
    ("n_ranks", "message"),
    [
        (4, "4 ranks for 3 components; expected at most one rank for each component. Start fewer processes"),
        (0, "n_ranks is 0; expected a whole number of at least 1"),
    ],
)
def test_a_bad_number_of_ranks_is_an_error(n_ranks, message):
    with pytest.raises(ValueError, match=message):
        balanced_placement(3, n_ranks)


@pytest.mark.parametrize("order", [ib.list_schedule, ib.depth_first])
@pytest.mark.parametrize(
    ("n_microbatches", "placement", "message"),
    [
        (0, (0, 0, 1), "n_microbatches is 0; expected a whole number of at least 1"),
        (1, (0, 1), "the placement names 2 components, the scheme has 3"),
        (1, (1, 0, 1), r"the placement is \[1, 0, 1\]; expected every rank to hold neighbouring components"),
        (1, (0, 0, 2), r"the placement is \[0, 0, 2\]; expected every rank to hold neighbouring components"),
    ],
)
def test_no_order_without_micro_batches_or_for_a_bad_placement(order, n_microbatches, placement, message):
    with pytest.raises(ValueError, match=message):
        order(ib.Workload.of(ib.local(3)), n_microbatches, placement)
