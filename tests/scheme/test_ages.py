"""Schemes with ages: delays, sums and multiples, their names as text, JSON, and what is rejected."""

from __future__ import annotations

import copy
import pickle
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import interlocking_backprop as ib

FACTORS = st.sampled_from([0.5, 2, -1, 1 / 3, 1e-5, 1e5])
COMPONENTS = 4


@st.composite
def schemes(draw: st.DrawFn) -> ib.Scheme:
    """Schemes made of named ones by sums, multiples and delays."""
    k = COMPONENTS
    named = st.sampled_from([ib.e2e(k), ib.local(k), ib.nwise(k, 3, "mean"), ib.decaying(k, 0.3, 2)])
    delays = st.integers(0, 4) | st.lists(st.integers(0, 4), min_size=k, max_size=k)

    def made(parts: st.SearchStrategy[ib.Scheme]) -> st.SearchStrategy[ib.Scheme]:
        return (
            st.builds(lambda a, b: a + b, parts, parts)
            | st.builds(lambda factor, a: factor * a, FACTORS, parts)
            | st.builds(lambda a, d: a.delay(d), parts, delays)
        )

    return draw(st.recursive(named, made, max_leaves=6))


def by_age(scheme: ib.Scheme, ages: int = 40) -> np.ndarray:
    return np.array([scheme.coefficients(age) for age in range(ages)])


@settings(deadline=None)
@given(schemes())
def test_the_name_of_a_combined_scheme_is_its_text_form(scheme):
    assert ib.parse_scheme(scheme.name, COMPONENTS) == scheme
    assert ib.parse_scheme(scheme.name.replace("~", " ~ ").replace("*", " * "), COMPONENTS) == scheme


@settings(deadline=None)
@given(schemes(), schemes(), st.lists(st.integers(0, 4), min_size=4, max_size=4))
def test_sums_multiples_and_delays_are_those_of_the_coefficients(a, b, delays):
    np.testing.assert_array_equal(by_age(a + b), by_age(a) + by_age(b))
    np.testing.assert_array_equal(by_age(0.5 * a), 0.5 * by_age(a))
    assert 0.5 * a == a * 0.5
    assert a.delay(delays).delay(2) == a.delay([d + 2 for d in delays])
    late, before = by_age(a.delay(delays)), by_age(a)
    for i, d in enumerate(delays):
        np.testing.assert_array_equal(late[d:, i], before[: len(before) - d, i])
        assert not late[:d, i].any()


@settings(deadline=None)
@given(schemes())
def test_a_scheme_survives_json_pickle_and_copy(scheme):
    for copied in (
        ib.Scheme.from_json(scheme.to_json()),
        pickle.loads(pickle.dumps(scheme)),
        copy.deepcopy(scheme),
        eval(repr(scheme), {"Scheme": ib.Scheme}),
    ):
        assert copied == scheme
        assert hash(copied) == hash(scheme)
        assert copied.name == scheme.name


def test_ages_are_sorted_and_zeros_left_out():
    one = [[0, 1], [0, 0]]
    scheme = ib.Scheme([[0, 0], [0, 1]], delayed={3: one, np.int64(1): one, 2: [[0, 0], [0, 0]]})
    assert list(scheme.delayed) == [1, 3]
    assert scheme.max_delay == 3
    assert scheme.horizon == 2
    assert scheme.uses.tolist() == [[False, True], [False, True]]
    assert scheme.coefficients(2).tolist() == [[0, 0], [0, 0]]
    assert scheme == ib.Scheme([[0, 0], [0, 1]], delayed={1: one, 3: one})
    assert scheme != ib.Scheme([[0, 0], [0, 1]], delayed={1: one})
    assert scheme != ib.Scheme([[0, 0], [0, 1]], delayed={1: one, 2: one})
    assert hash(ib.e2e(3).delay(1)) != hash(ib.e2e(3).delay(2))
    with pytest.raises(TypeError):
        scheme.delayed[1] = one
    with pytest.raises(ValueError, match="read-only"):
        scheme.delayed[1][0, 0] = 1


def test_a_synchronous_scheme_is_what_it_was():
    scheme = ib.pairwise(2)
    assert repr(scheme) == "Scheme([[0.0, 1.0], [0.0, 1.0]], name='pairwise')"
    assert str(scheme) == "pairwise (2 components)\n     .      1\n     .      1"
    assert scheme.to_fields() == {"name": "pairwise", "matrix": [[0, 1], [0, 1]]}
    assert (dict(scheme.delayed), scheme.max_delay) == ({}, 0)
    assert scheme.delay(0) is scheme


def test_a_late_scheme_shows_its_ages():
    scheme = ib.e2e(2).delay([1, 0])
    assert repr(scheme) == "Scheme([[0.0, 0.0], [0.0, 1.0]], name='e2e~1.0', delayed={1: [[0.0, 1.0], [0.0, 0.0]]})"
    rows = "     .      1\n     .      .", "     .      .\n     .      1"
    assert str(scheme) == f"e2e~1.0 (2 components)\nage 0\n{rows[1]}\nage 1\n{rows[0]}"
    assert str(ib.local(1).delay(2)) == "local~2 (1 components)\nage 2\n     1"


@pytest.mark.parametrize("number", [np.float64(0.5), np.float32(0.5), Fraction(1, 2), 0.5])
def test_any_real_number_multiplies(number):
    half = ib.Scheme(ib.e2e(3).matrix / 2)
    assert number * ib.e2e(3) == ib.e2e(3) * number == half


@pytest.mark.parametrize(
    ("delayed", "message"),
    [
        ({0: [[1]]}, r"the age 0; expected whole numbers of at least 1; what is not delayed is the matrix"),
        ({-1: [[1]]}, r"the age -1; expected whole numbers of at least 1"),
        ({1.5: [[1]]}, r"the age 1.5"),
        ({float("nan"): [[1]]}, r"the age nan"),
        ({True: [[1]]}, r"the age True"),
        ({"1": [[1]]}, r"the age '1'"),
        ({2: [[1, 0], [0, 1]]}, r"age 2 is for 2 components, that of age 0 for 1; give matrices of one size"),
        ({2: [[1, 0], [1, 1]]}, r"entry \[1, 0\] of age 2 is 1, below the diagonal"),
        ({2: [[float("inf")]]}, r"entry \[0, 0\] of age 2 is inf; expected a finite number"),
        ({2: [1]}, r"matrix of age 2 has shape \(1,\)"),
        ({2: "a"}, r"matrix of age 2 does not read as numbers"),
        ([[1]], r"expected a matrix for each age"),
    ],
)
def test_bad_ages_are_rejected(delayed, message):
    with pytest.raises(ValueError, match=message):
        ib.Scheme([[1]], delayed=delayed)


def test_ages_in_the_place_of_the_name_are_rejected():
    with pytest.raises(ValueError, match="expected text, and matrices of other ages as delayed="):
        ib.Scheme([[1]], {1: [[1]]})


@pytest.mark.parametrize(
    ("delays", "message"),
    [
        (-1, "the delay is -1; expected a whole number of at least 0, or 3 of them"),
        (1.5, "the delay is 1.5"),
        (float("nan"), "the delay is nan"),
        (True, "the delay is True"),
        ("1", "the delay is '1'"),
        ([1, 2], "there are 2 delays; expected a whole number of at least 0, or 3 of them"),
        ([1, 0.5, 0], "the delay of component 1 is 0.5"),
        ([1, 0, -1], "the delay of component 2 is -1"),
    ],
)
def test_bad_delays_are_rejected(delays, message):
    with pytest.raises(ValueError, match=message):
        ib.e2e(3).delay(delays)


def test_bad_sums_and_multiples_are_rejected():
    with pytest.raises(ValueError, match="'e2e' is for 3 components, 'local' for 4; add schemes for the same number"):
        ib.e2e(3) + ib.local(4)
    with pytest.raises(ValueError, match="multiplied by nan; expected a finite number"):
        float("nan") * ib.e2e(3)
    for wrong in (
        lambda: ib.e2e(3) + 1,
        lambda: ib.e2e(3) * ib.e2e(3),
        lambda: True * ib.e2e(3),
        lambda: "2" * ib.e2e(3),
    ):
        with pytest.raises(TypeError):
            wrong()


@pytest.mark.parametrize("text", ["[", "[1]", "{}", '{"matrix": [[1]], "late": {}}', '{"matrix": [[1]], "delayed": 3}'])
def test_bad_json_is_rejected(text):
    with pytest.raises(ValueError, match=r"expected|not a scheme in JSON"):
        ib.Scheme.from_json(text)


@pytest.mark.parametrize("text", ["e2e~1001", "e2e~99999999999", "e2e~600~600"])
def test_ages_beyond_all_reason_are_refused_at_once(text):
    with pytest.raises(ValueError, match="expected at most 1000 steps"):
        ib.parse_scheme(text, 4)
