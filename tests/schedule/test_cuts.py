from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from interlocking_backprop.nets.flops import forward_flops
from interlocking_backprop.schedule.cuts import balanced_cuts


def parts(costs: list[float], sizes: list[int]) -> list[float]:
    ends = list(itertools.accumulate(sizes))
    return [sum(costs[end - n : end]) for end, n in zip(ends, sizes, strict=True)]


def quality(costs: list[float], sizes: list[int]) -> tuple[float, float]:
    """The dearest part, then the sum of squares: less is better."""
    return max(parts(costs, sizes)), sum(part**2 for part in parts(costs, sizes))


def best_quality(costs: list[float], n_parts: int) -> tuple[float, float]:
    """By trying all cuts."""
    n = len(costs)
    cuts = itertools.combinations(range(1, n), n_parts - 1)
    return min(quality(costs, [b - a for a, b in itertools.pairwise((0, *cut, n))]) for cut in cuts)


@st.composite
def problems(draw, cost) -> tuple[list[float], int]:
    costs = draw(st.lists(cost, min_size=1, max_size=9))
    return costs, draw(st.integers(1, len(costs)))


@settings(max_examples=200, deadline=None)
@given(problems(st.integers(0, 12)))
def test_whole_numbers_against_all_cuts(problem):
    costs, n_parts = problem
    sizes = balanced_cuts(costs, n_parts)
    assert len(sizes) == n_parts
    assert sum(sizes) == len(costs)
    assert min(sizes) >= 1
    assert quality(costs, sizes) == best_quality(costs, n_parts)


@settings(max_examples=100, deadline=None)
@given(problems(st.floats(0, 1e12)))
def test_dearest_part_of_fractions_against_all_cuts(problem):
    costs, n_parts = problem
    dearest, _ = quality(costs, balanced_cuts(costs, n_parts))
    assert math.isclose(dearest, best_quality(costs, n_parts)[0], rel_tol=1e-9, abs_tol=1e-3)


def test_parts_below_the_dearest_are_even_too():
    assert balanced_cuts([9, 1, 1, 1, 1], 3) == [1, 2, 2]


def test_numbers_beyond_the_precision_of_floats():
    big = 2**60
    assert balanced_cuts([big, 1, big, 1, big + 1], 3) == [2, 2, 1]


@pytest.mark.parametrize("n_parts", [0, 4, -1, True, 1.5])
def test_number_of_parts_that_does_not_fit(n_parts):
    with pytest.raises(ValueError, match="expected a whole number from 1 to 3"):
        balanced_cuts([1, 2, 3], n_parts)


@pytest.mark.parametrize("cost", [-1, math.inf, math.nan])
def test_cost_that_is_no_cost(cost):
    with pytest.raises(ValueError, match=r"cost 1 is .*; expected a number of at least 0"):
        balanced_cuts([1, cost], 1)


def test_flops_of_modules_in_a_row():
    with torch.device("meta"):
        modules = [nn.Conv2d(3, 8, kernel_size=3, stride=2, padding=1), nn.Flatten(), nn.Linear(8 * 5 * 5, 7)]
        x = torch.empty(2, 3, 10, 10)
    conv = 2 * 2 * (8 * 5 * 5) * (3 * 3 * 3)  # a multiplication and an addition, batch, outputs, products each
    assert forward_flops(modules, x) == [conv, 0, 2 * 2 * (8 * 5 * 5) * 7]
