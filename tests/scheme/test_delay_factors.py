"""Factors of learning rates, from the ages of a scheme."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import interlocking_backprop as ib


@pytest.mark.parametrize(
    ("scheme", "delays"),
    [
        (ib.e2e(4), (0, 0, 0, 0)),
        (ib.e2e(4).delay((3, 2, 1, 0)), (3, 2, 1, 0)),
        (ib.pairwise(4) + ib.e2e(4).delay((5, 0, 2, 0)), (5, 0, 2, 0)),
        (0.5 * ib.local(3).delay(1) + ib.e2e(3).delay((0, 4, 0)), (1, 4, 1)),
        (0.0 * ib.e2e(2).delay(7), (0, 0)),
    ],
)
def test_the_greatest_age_of_a_row_counts(scheme, delays):
    assert ib.delay_factors(scheme) == pytest.approx([1 / (1 + d) ** 0.5 for d in delays])
    assert ib.delay_factors(scheme, 1) == pytest.approx([1 / (1 + d) for d in delays])
    assert ib.delay_factors(scheme, 0) == (1,) * len(delays)


@given(st.data())
def test_random_schemes(data):
    k = data.draw(st.integers(1, 5))
    ages = data.draw(st.sets(st.integers(1, 9)))
    generator = np.random.default_rng(data.draw(st.integers(0, 99)))
    by_age = {age: np.triu(generator.integers(2, size=(k, k))) for age in (0, *ages)}
    factors = ib.delay_factors(ib.Scheme(by_age[0], delayed={age: by_age[age] for age in ages}), 2)
    for i, factor in enumerate(factors):
        delay = max((age for age, matrix in by_age.items() if any(matrix[i])), default=0)
        assert factor == pytest.approx((1 + delay) ** -2)


@pytest.mark.parametrize("power", [-1, float("nan"), float("inf"), "1", True])
def test_powers_that_are_none(power):
    with pytest.raises(ValueError, match=r"power is .*; expected a finite number of at least 0"):
        ib.delay_factors(ib.e2e(2), power)


def test_what_is_no_scheme():
    with pytest.raises(ValueError, match=r"the scheme is 'e2e~1'; expected an interlocking_backprop\.Scheme"):
        ib.delay_factors("e2e~1")
