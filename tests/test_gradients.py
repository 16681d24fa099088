"""Gradients equal the definition, for random matrices, depths and micro-batches."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

import interlocking_backprop as ib
from tests import oracle
from tests.nets import Recorder, mlp_components, recorded

coefficients = st.one_of(st.just(0.0), st.just(1.0), st.floats(-2, 2, allow_subnormal=False).map(lambda c: round(c, 3)))


@st.composite
def schemes(draw) -> ib.Scheme:
    k = draw(st.integers(1, 6))
    return ib.Scheme([[draw(coefficients) if j >= i else 0.0 for j in range(k)] for i in range(k)])


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
    check_step(scheme, m, dropout=0.3 if dropout else 0.0)
