"""Schemes: the matrices of the constructors, the text forms, and what is rejected."""

from __future__ import annotations

import numpy as np
import pytest

import interlocking_backprop as ib


def test_matrices_of_the_constructors():
    third, half = 1 / 3, 1 / 2
    expected = {
        ib.e2e(3): [[0, 0, 1], [0, 0, 1], [0, 0, 1]],
        ib.local(3): [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        ib.pairwise(3): [[0, 1, 0], [0, 0, 1], [0, 0, 1]],
        ib.nwise(4, 3): [[0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 1]],
        ib.nwise(3, 2, "sum"): [[1, 1, 0], [0, 1, 1], [0, 0, 1]],
        ib.nwise(3, 3, "mean"): [[third, third, third], [0, half, half], [0, 0, 1]],
        ib.deep_supervision(3): [[1, 1, 1], [0, 1, 1], [0, 0, 1]],
    }
    for scheme, matrix in expected.items():
        np.testing.assert_array_equal(scheme.matrix, matrix)


@pytest.mark.parametrize("k", range(1, 7))
def test_the_ends_of_nwise(k):
    assert ib.nwise(k, 1) == ib.local(k)
    assert ib.nwise(k, 2) == ib.pairwise(k)
    assert ib.nwise(k, k) == ib.nwise(k, k + 3) == ib.e2e(k)
    assert ib.nwise(k, k, "sum") == ib.deep_supervision(k)
    assert ib.nwise(k, 2).horizon == min(2, k)


def test_decaying_coefficients():
    np.testing.assert_array_equal(ib.decaying(3, 0.5).matrix, [[1, 0.5, 0.25], [0, 1, 0.5], [0, 0, 1]])
    np.testing.assert_array_equal(
        ib.decaying(4, 0.5, 2).matrix, [[1, 0.5, 0, 0], [0, 1, 0.5, 0], [0, 0, 1, 0.5], [0, 0, 0, 1]]
    )
    assert ib.decaying(4, 1) == ib.deep_supervision(4)
    assert ib.decaying(4, 1, 3) == ib.nwise(4, 3, "sum")
    assert ib.decaying(4, 0.3, 1) == ib.local(4)
    assert ib.decaying(4, 0.3, 9) == ib.decaying(4, 0.3)


def test_a_decay_without_a_window_costs_one_backward_pass_per_component():
    workload = ib.Workload.of(ib.decaying(5, 0.7))
    assert [[p.kind for p in work.passes] for work in workload.components] == [["W"], ["B"], ["B"], ["B"], ["B"]]


@pytest.mark.parametrize("decay", [0, -0.5, 1.5, float("nan"), "0.5", True])
def test_a_bad_decay_is_rejected(decay):
    with pytest.raises(ValueError, match=r"decay is .*; expected a number above 0 and at most 1"):
        ib.decaying(3, decay)


def test_equal_schemes_hash_alike_and_their_matrix_is_read_only():
    scheme = ib.Scheme([[1, 0.5], [-0.0, 2]], name="mine")
    assert scheme == ib.Scheme(np.array([[1, 0.5], [0, 2]]))
    assert hash(scheme) == hash(ib.Scheme([[1, 0.5], [0, 2]]))
    assert scheme != ib.e2e(2)
    with pytest.raises(ValueError, match="read-only"):
        scheme.matrix[0, 0] = 3


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        ([[1, 0]], r"shape \(1, 2\)"),
        ([1, 2], r"shape \(2,\)"),
        ([[1, 2], [3]], "rows of equal length"),
        ([[1, 0], [0.5, 1]], r"entry \[1, 0\] is 0.5, below the diagonal"),
        ([[float("nan")]], r"entry \[0, 0\] is nan"),
        ([[1, float("inf")], [0, 1]], r"entry \[0, 1\] is inf"),
        ([[1, 1e300], [0, 1]], r"entry \[0, 1\] is 1e\+300; expected a number between -1e\+38 and 1e\+38, .* float32"),
        ([[-2e38]], r"entry \[0, 0\] is -2e\+38; expected"),
        ([[10**400]], "numbers in rows"),
        ([], "shape"),
        (np.zeros((0, 0)), "at least one component"),
        ([["a"]], "numbers"),
    ],
)
def test_a_bad_matrix_is_rejected(matrix, message):
    with pytest.raises(ValueError, match=message):
        ib.Scheme(matrix)


def test_the_largest_coefficients_can_be_worked_with():
    """Their squares would overflow in the search for a basis."""
    for seed in range(20):
        signs = np.triu(np.random.default_rng(seed).integers(-1, 2, (6, 6)))
        large, small = (ib.Workload.of(ib.Scheme(signs * size)).components for size in (1e38, 1.0))
        for a, b in zip(large, small, strict=True):
            assert [p.kind for p in a.passes] == [p.kind for p in b.passes]
            assert np.array_equal(np.array(a.streams) / 1e38, b.streams)


@pytest.mark.parametrize("call", [ib.e2e, ib.local, ib.pairwise, ib.deep_supervision])
@pytest.mark.parametrize("k", [0, -1, 2.5, True])
def test_a_bad_number_of_components_is_rejected(call, k):
    with pytest.raises(ValueError, match=r"n_components is .*at least 1"):
        call(k)


def test_numbers_may_be_those_of_numpy():
    assert ib.nwise(np.int64(4), np.int32(3)) == ib.nwise(4, 3)
    assert ib.decaying(np.int64(4), np.float32(0.5), np.int8(2)) == ib.decaying(4, 0.5, 2)


def test_a_bad_window_is_rejected():
    with pytest.raises(ValueError, match="n is 0"):
        ib.nwise(3, 0)
    with pytest.raises(ValueError, match="reduction is 'max'"):
        ib.nwise(3, 2, "max")


@pytest.mark.parametrize(
    ("text", "scheme"),
    [
        ("e2e", ib.e2e(4)),
        ("local", ib.local(4)),
        ("pairwise", ib.pairwise(4)),
        ("3wise", ib.nwise(4, 3)),
        ("12-wise", ib.e2e(4)),
        ("3wise-sum", ib.nwise(4, 3, "sum")),
        ("pairwise-mean", ib.nwise(4, 2, "mean")),
        ("deep-supervision", ib.deep_supervision(4)),
        ("decay0.5", ib.decaying(4, 0.5)),
        ("decay.25", ib.decaying(4, 0.25)),
        ("3wise-decay0.9", ib.decaying(4, 0.9, 3)),
        ("pairwise-decay1e-3", ib.decaying(4, 0.001, 2)),
    ],
)
def test_text_forms(text, scheme):
    assert ib.parse_scheme(text, 4) == scheme


@pytest.mark.parametrize(
    "text", ["e2", "wise", "0wise", "3wise-max", "", "local sum", "decay", "decay2", "3wise-decay0", "decay0.5-sum"]
)
def test_an_unknown_text_is_rejected(text):
    with pytest.raises(ValueError, match=r"expected"):
        ib.parse_scheme(text, 4)


@pytest.mark.parametrize(
    "scheme",
    [ib.nwise(4, 3, "mean"), ib.deep_supervision(3), ib.nwise(3, 2), ib.decaying(3, 1e-5), ib.decaying(4, 1 / 3, 3)],
)
def test_the_name_of_a_scheme_is_its_text_form(scheme):
    assert ib.parse_scheme(scheme.name, scheme.n_components) == scheme


def test_a_matrix_from_a_csv_file(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("# losses 0, 1\n1, 0.5\n\n0, 2\n")
    scheme = ib.parse_scheme(str(path), 2)
    assert scheme == ib.Scheme([[1, 0.5], [0, 2]])
    assert scheme.name == "mine"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1,x\n0,1\n", "line 1"),
        ("1,0\n1,1\n", "below the diagonal"),
        ("1\n", "for 1 components, the model has 2"),
        ("", "for 0 components, the model has 2"),
    ],
)
def test_a_bad_csv_file_is_rejected(tmp_path, content, message):
    path = tmp_path / "mine.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        ib.parse_scheme(str(path), 2)
    with pytest.raises(ValueError, match=r"none\.csv cannot be read"):
        ib.parse_scheme(str(tmp_path / "none.csv"), 2)
