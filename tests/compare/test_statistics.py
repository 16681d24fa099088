import math

import pytest
from scipy import stats

from interlocking_backprop.compare.statistics import gap, spread


def test_spread_has_a_std_from_two_values_on():
    assert spread([]) == (0, pytest.approx(math.nan, nan_ok=True), pytest.approx(math.nan, nan_ok=True))
    assert spread([0.5]) == (1, 0.5, pytest.approx(math.nan, nan_ok=True))
    assert spread([1.0, 3.0]) == (2, 2.0, pytest.approx(math.sqrt(2)))


def test_common_seeds_are_paired_whatever_their_order():
    # By hand: differences 1, 2, 3; mean 2, std 1, t(0.975, 2) = 4.302653.
    found = gap({2: 13.0, 0: 1.0, 1: 7.0}, {0: 0.0, 1: 5.0, 2: 10.0})
    assert found is not None
    assert (found.n, found.paired, found.mean) == (3, True, 2.0)
    half = 4.302652729911275 / math.sqrt(3)
    assert (found.low, found.high) == (pytest.approx(2 - half), pytest.approx(2 + half))


def test_a_seed_that_only_one_side_has_is_left_out_of_the_pairs():
    assert gap({0: 1.0, 1: 2.0, 2: 99.0}, {0: 0.0, 1: 0.0}) == gap({0: 1.0, 1: 2.0}, {0: 0.0, 1: 0.0})


def test_without_common_seeds_it_is_welchs_interval():
    a, b = [1.0, 2.0, 4.0], [0.5, 0.25, 0.5, 3.0]
    found = gap(dict(enumerate(a)), dict(enumerate(b, start=10)))
    expected = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert found is not None
    assert (found.n, found.paired) == (3, False)
    assert (found.low, found.high) == (pytest.approx(expected.low), pytest.approx(expected.high))


def test_one_pair_has_no_interval():
    assert gap({0: 2.0}, {0: 0.5}) == (1, True, 1.5, None, None)
    assert gap({0: 2.0}, {1: 0.5, 2: 0.5}) == (1, False, 1.5, None, None)


def test_equal_differences_have_an_interval_without_width():
    assert gap({0: 2.0, 1: 3.0}, {0: 1.0, 1: 2.0}) == (2, True, 1.0, 1.0, 1.0)
    assert gap({0: 2.0, 1: 2.0}, {2: 1.0, 3: 1.0}) == (2, False, 1.0, 1.0, 1.0)


def test_an_interval_from_two_seeds_that_contains_zero_says_nothing():
    none = {0: 0.0, 1: 0.0, 2: 0.0}
    cases = {
        "better": [1.0, 1.1],
        "worse": [-1.0, -1.1],
        "too few seeds to tell": [-1.0, -9.0],
        "no clear difference": [-1, 2, 1],
    }
    for expected, values in cases.items():
        found = gap(dict(enumerate(values)), none)
        assert found
        assert found.verdict(maximize=True) == expected
        assert found.verdict(maximize=False) == {"better": "worse", "worse": "better"}.get(expected, expected)
    one = gap({0: 2.0}, none)
    assert one
    assert one.verdict(maximize=True) == "too few seeds to tell"


def test_nothing_to_compare_is_no_gap():
    assert gap({}, {0: 1.0}) is None
    assert gap({0: 1.0}, {}) is None


def test_a_higher_confidence_is_wider():
    a, b = {0: 1.0, 1: 3.0}, {0: 0.0, 1: 1.0}
    narrow, wide = gap(a, b, 0.5), gap(a, b, 0.99)
    assert narrow
    assert wide
    assert wide.low < narrow.low < narrow.high < wide.high
