"""Credit streams: the passes of the usual schemes as literal tables, and minimality for any matrix."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import interlocking_backprop as ib
from interlocking_backprop.scheme.streams import Workload


def passes(scheme: ib.Scheme, **known) -> list[str]:
    """Each component's passes: kind and stream, what they start from (l = own loss, s0 = stream 0 from above)."""

    def text(p) -> str:
        terms = [f"{p.source.loss:.3g}l"] if p.source.loss else []
        terms += [f"{c:.3g}s{s}" for s, c in p.source.streams]
        return f"{p.kind}{'' if p.stream is None else p.stream}({'+'.join(terms)})@{p.last_loss}"

    return [" ".join(map(text, work.passes)) for work in Workload.of(scheme, **known).components]


def test_e2e_is_one_joint_pass_per_component():
    assert passes(ib.e2e(4)) == ["W(1s0)@3", "B0(1s0)@3", "B0(1s0)@3", "B0(1l)@3"]


def test_local_sends_nothing():
    assert passes(ib.local(3)) == ["W(1l)@0", "W(1l)@1", "W(1l)@2"]


def test_pairwise():
    assert passes(ib.pairwise(4)) == ["W(1s0)@1", "I0(1l)@1 W(1s0)@2", "I0(1l)@2 W(1s0)@3", "B0(1l)@3"]


def test_3wise():
    assert passes(ib.nwise(6, 3)) == [
        "W(1s0)@2",
        "I0(1s0)@2 W(1s1)@3",
        "I0(1l)@2 I1(1s0)@3 W(1s1)@4",
        "I0(1l)@3 I1(1s0)@4 W(1s1)@5",
        "I0(1l)@4 B1(1s0)@5",
        "B0(1l)@5",
    ]


def test_deep_supervision_is_one_joint_pass_per_component():
    assert passes(ib.deep_supervision(3)) == ["W(1l+1s0)@2", "B0(1l+1s0)@2", "B0(1l)@2"]


def test_multiples_are_one_stream():
    """The mean reduction near the end: tails (1/3, 1/3) and (1/2, 1/2) are one stream, scaled where it is used."""
    assert passes(ib.nwise(4, 3, "mean")) == [
        "W(0.333l+1s0)@2",
        "I0(0.333l+1s0)@2 W(0.333l+0.667s1)@3",
        "I0(0.333l)@2 B1(0.5l+0.5s0)@3",
        "B0(1l)@3",
    ]
    # Typed decimals are multiples up to rounding: 0.3 * 3 is not 0.9 in floating point.
    assert passes(ib.Scheme([[0, 0.1, 0.3], [0, 0.3, 0.9], [0, 0, 1]]))[1] == "B0(0.3l+0.9s0)@2"


def test_dependent_tails_share_streams():
    """Three tails in a space of two dimensions need two streams."""
    scheme = ib.Scheme([[0, 0, 0, 1, 2], [0, 0, 0, 3, 1], [0, 0, 0, 1, 1], [0, 0, 0, 1, 0], [0, 0, 0, 0, 1]])
    assert [len(work.streams) for work in Workload.of(scheme).components] == [0, 1, 2, 2, 1]
    # Own row (1, 0) lies in the span, so it is one of the two, and its pass a joint one.
    assert [p.kind for p in Workload.of(scheme).components[3].passes] == ["I", "B"]


def test_dependent_tails_are_found_in_a_wide_space_too():
    """Three tails, one the sum of the others, where there would be room for three."""
    matrix = np.zeros((6, 6))
    matrix[:3, 3:] = [[1, 0, 2], [0, 1, 1], [1, 1, 3]]
    assert len(Workload.of(ib.Scheme(matrix)).components[3].streams) == 2


def test_own_row_in_the_span_of_the_tails_joins_a_pass():
    scheme = ib.Scheme([[0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 1, 1], [0, 0, 0, 1]])
    assert [p.kind for p in Workload.of(scheme).components[2].passes] == ["I", "B"]


def test_nearly_dependent_tails_stay_apart():
    """To treat them as one would lose digits of what their difference carries."""
    scheme = ib.Scheme([[0, 0, 1, 0], [0, 0, 1, 1e-11], [0, 0, 0, 0], [0, 0, 0, 1]])
    assert Workload.of(scheme).components[2].streams == ((1.0, 0.0), (1.0, 1e-11))


def test_frozen_components_owe_no_weight_pass():
    assert passes(ib.Scheme([[0, 1], [0, 0]])) == ["W(1s0)@1", "I0(1l)@1"]
    assert passes(ib.Scheme([[0, 0], [0, 1]])) == ["", "W(1l)@1"]
    # Known to have no weights: nothing below wants credit either.
    assert passes(ib.e2e(3), trainable=[False, False, True]) == ["", "", "W(1l)@2"]


def test_a_missing_head_is_named():
    with pytest.raises(ValueError, match="trains component 0 with loss 1, but head 1 is None"):
        Workload(ib.pairwise(3), heads=(True, False, True), trainable=(True,) * 3)


entries = st.sampled_from([0.0, 0.0, 1.0, 1.0, -1.0, 2.0, 0.5, 1 / 3, 0.1, 0.7])


@st.composite
def matrices(draw):
    k = draw(st.integers(1, 8))
    return np.array([[draw(entries) if j >= i else 0.0 for j in range(k)] for i in range(k)])


@settings(max_examples=200, deadline=None)
@given(matrices())
def test_streams_are_as_few_as_possible_and_carry_every_row(matrix):
    components = Workload.of(ib.Scheme(matrix)).components
    for i, work in enumerate(components):
        tails = matrix[:i, i:]
        rank = np.linalg.matrix_rank(tails) if tails.size else 0
        assert len(work.streams) == rank
        # One pass for each stream, and one more for the weights unless their own row joins.
        own = matrix[i, i:]
        if own.any():
            joins = rank and np.linalg.matrix_rank(np.vstack([tails, own])) == rank
            assert len(work.passes) == rank + (not joins)
        else:
            assert len(work.passes) == rank
        above = np.array(components[i + 1].streams) if i + 1 < len(components) else np.zeros((0, 0))
        for p in work.passes:
            wanted = own if p.stream is None else np.array(work.streams[p.stream])
            arriving = sum((c * above[s] for s, c in p.source.streams), np.zeros(len(own) - 1))
            np.testing.assert_allclose(np.array([p.source.loss, *arriving]), wanted, atol=1e-12)
