"""Gradients equal the definition, for random matrices, depths and micro-batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

import interlocking_backprop as ib
from tests import oracle
from tests.small_nets import Recorder, mlp_components, recorded

coefficients = st.one_of(st.just(0.0), st.just(1.0), st.floats(-2, 2, allow_subnormal=False).map(lambda c: round(c, 3)))


@st.composite
def schemes(draw) -> ib.Scheme:
    k = draw(st.integers(1, 6))
    matrix = np.array([[draw(coefficients) if j >= i else 0.0 for j in range(k)] for i in range(k)])
    assume(matrix.any())
    return ib.Scheme(matrix)


def check_step(scheme: ib.Scheme, m: int, *, size: int = 7, batch_norm: bool = False, dropout: float = 0.0) -> None:
    main_nets, aux_nets = mlp_components(scheme.n_components, batch_norm=batch_norm, dropout=dropout)
    model = ib.build_model(main_nets, aux_nets, scheme, Recorder, F.mse_loss, n_microbatches=m, seed=3)
    x, target = torch.randn(size, 5).double(), torch.randn(size, 5).double()
    batches = list(zip(x.tensor_split(m), target.tensor_split(m), strict=True))
    expected_main, expected_aux = oracle.gradients(main_nets, aux_nets, scheme, F.mse_loss, batches, key=(3, 0))
    model.training_step(x, target).result()
    for nets, expected in ((main_nets, expected_main), (aux_nets, expected_aux)):
        for net, grads in zip(nets, expected, strict=False):
            for p, grad in zip(net.parameters(), grads, strict=True):
                torch.testing.assert_close(recorded(model, p), grad, rtol=0, atol=1e-10)


@settings(max_examples=80, deadline=None)
@given(schemes(), st.integers(1, 4), st.booleans())
def test_any_matrix(scheme, m, dropout):
    check_step(scheme, m, batch_norm=m == 1, dropout=0.3 if dropout else 0.0)


@pytest.mark.parametrize(
    "scheme", [ib.e2e(4), ib.local(4), ib.nwise(4, 3), ib.nwise(4, 2, "sum"), ib.deep_supervision(4)]
)
def test_with_batch_norm(scheme):
    check_step(scheme, 1, batch_norm=True)


@pytest.mark.parametrize("seed", range(6))
def test_dense_random_matrices(seed):
    """Tails of full rank everywhere: streams are added and scaled."""
    matrix = np.triu(np.random.default_rng(seed).normal(size=(6, 6)))
    check_step(ib.Scheme(matrix), 1 + seed % 4, dropout=0.3)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
@pytest.mark.parametrize("reduction", ["furthest", "sum", "mean"])
@pytest.mark.parametrize("m", [1, 3])
def test_nwise(n, reduction, m):
    check_step(ib.nwise(5, n, reduction), m)


def test_the_gradient_does_not_depend_on_the_number_of_micro_batches():
    """Uneven micro-batches included: 7 samples in 1 to 5 parts, and fewer samples than parts."""
    seen = []
    for m in (1, 2, 3, 5, 9):
        main_nets, aux_nets = mlp_components(3)
        model = ib.build_model(main_nets, aux_nets, ib.pairwise(3), Recorder, F.mse_loss, n_microbatches=m)
        torch.manual_seed(1)
        loss = model.training_step(torch.randn(7, 5).double(), torch.randn(7, 5).double()).result()
        seen.append([loss, *(recorded(model, p) for net in (*main_nets, *aux_nets) for p in net.parameters())])
    for other in seen[1:]:
        torch.testing.assert_close(other, seen[0], rtol=1e-12, atol=1e-14)
