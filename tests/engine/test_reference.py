"""The engine computes what the reference does, to the bit; and the reference what the definition says."""

from __future__ import annotations

import copy
from itertools import chain

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch.nn import functional as F

import interlocking_backprop as ib
from tests import oracle
from tests.engine import reference
from tests.small_nets import Recorder, mlp_components

coefficients = st.sampled_from([0.0, 1.0]) | st.floats(-2, 2, width=16)
schemes = st.integers(1, 6).flatmap(lambda k: arrays(float, (k, k), elements=coefficients)).map(np.triu)
schemes = schemes.filter(np.any).map(ib.Scheme)


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=1e-2)


def batches(n: int, dtype: torch.dtype):
    generator = torch.Generator().manual_seed(1)
    return [tuple(torch.randn(7, 5, generator=generator).to(dtype) for _ in range(2)) for _ in range(n)]


def optimizers_of(nets, construct):
    """An optimizer for each component, with the weights of its head."""
    main_nets, heads = nets
    aux_parameters = [list(head.parameters()) for head in heads] + [[]]
    return [construct([*net.parameters(), *aux]) for net, aux in zip(main_nets, aux_parameters, strict=True)]


@settings(max_examples=50, deadline=None)
@given(schemes, st.integers(1, 4), st.booleans())
def test_the_engine_trains_as_the_reference_does(scheme, m, has_devices):
    nets = [[net.float() for net in nets] for nets in mlp_components(scheme.n_components)]
    others = copy.deepcopy(nets)
    model = ib.build_model(*others, scheme, sgd, F.mse_loss, n_microbatches=m)
    if has_devices:  # another order of actions, and joint passes in two halves
        model.enable_model_parallel(["cpu"] * scheme.n_components)
    optimizers = optimizers_of(nets, sgd)
    for x, target in batches(3, torch.float32):
        loss = reference.training_step(*nets, scheme, F.mse_loss, optimizers, x, target, m)
        assert torch.equal(model.training_step(x, target).result(), loss)
    for net, other in zip(chain(*nets), chain(*others), strict=True):
        for (name, weight), same in zip(net.named_parameters(), other.parameters(), strict=True):
            assert torch.equal(weight, same), name


@settings(max_examples=30, deadline=None)
@given(schemes, st.integers(1, 4))
def test_the_reference_follows_the_definition(scheme, m):
    nets = mlp_components(scheme.n_components)
    ((x, target),) = batches(1, torch.float64)
    parts = list(zip(x.tensor_split(m), target.tensor_split(m), strict=True))
    expected = oracle.gradients(*nets, scheme, F.mse_loss, parts)
    optimizers = optimizers_of(nets, Recorder)
    reference.training_step(*nets, scheme, F.mse_loss, optimizers, x, target, m)
    seen = {p: gradient for optimizer in optimizers for p, gradient in optimizer.seen.items()}
    for group, gradients in zip(nets, expected, strict=True):
        for net, expected_of_net in zip(group, gradients, strict=False):
            for p, gradient in zip(net.parameters(), expected_of_net, strict=True):
                torch.testing.assert_close(seen.get(p, torch.zeros_like(p)), gradient, rtol=0, atol=1e-10)
