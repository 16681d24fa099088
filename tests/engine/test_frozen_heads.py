"""Heads that are frozen, wholly or in part: they train nothing, and nobody complains; unfrozen they are trained."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

import interlocking_backprop as ib
from interlocking_backprop.bench.processes import on_ranks
from interlocking_backprop.nets.transformer_builder import transformer
from tests import oracle
from tests.small_models import batch, sgd
from tests.small_nets import Recorder, mlp_components, recorded

K = 3
PAIRWISE = ib.pairwise(K)
ROW_OF_ZEROS = ib.Scheme([[0, 0, 0], [0, 0, 1], [0, 0, 1]], name="zeros")


def without_frozen(params):
    return sgd([p for p in params if p.requires_grad])


def frozen_model(scheme=PAIRWISE, constructor=sgd, *, partly=False, **options):
    main_nets, aux_nets = mlp_components(K)
    for head in aux_nets:
        (head[0] if partly else head).requires_grad_(False)
    return ib.build_model(main_nets, aux_nets, scheme, constructor, F.mse_loss, **options)


def trained(model, n_steps=2) -> dict[str, torch.Tensor]:
    for step in range(n_steps):
        model.training_step(*batch(seed=step))
    return {name: value.clone() for name, value in model.state_dict().items()}


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 4), st.integers(1, 3), st.integers(0, 10_000))
def test_the_oracle_holds(k, m, seed):
    random = np.random.default_rng(seed)
    main_nets, aux_nets = mlp_components(k, seed=seed)
    x, target = batch(seed=seed)
    parts = list(zip(x.tensor_split(m), target.tensor_split(m), strict=True))
    scheme = ib.Scheme(np.triu(random.normal(size=(k, k))))
    main, aux = oracle.gradients(main_nets, aux_nets, scheme, F.mse_loss, parts)
    for head in aux_nets:
        for parameter in head.parameters():
            parameter.requires_grad_(bool(random.integers(2)))
    model = ib.build_model(main_nets, aux_nets, scheme, Recorder, F.mse_loss, n_microbatches=m)
    model.training_step(x, target)
    for net, gradients in zip([*main_nets, *aux_nets], [*main, *aux[:-1]], strict=True):
        for parameter, gradient in zip(net.parameters(), gradients, strict=True):
            expected = gradient if parameter.requires_grad else torch.zeros_like(gradient)
            torch.testing.assert_close(recorded(model, parameter), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("constructor", [sgd, without_frozen])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"aux_lr_factor": 2.0},
        {"max_grad_norm": 0.1},
        {"clip_by": "global", "max_grad_norm": 0.1},
        {"accumulate": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize("scheme", [ib.pairwise(K), ib.e2e(K), ROW_OF_ZEROS], ids=lambda s: s.name)
def test_they_stay_as_they_are_and_the_rest_is_trained(constructor, options, scheme):
    model = frozen_model(scheme, constructor, **options)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    after = trained(model)
    same = {name for name in before if torch.equal(before[name], after[name])}
    heads = {name for name in before if "aux_net" in name}
    zeros = {name for name in before if "components.0.main_net" in name} if scheme is ROW_OF_ZEROS else set()
    assert same == heads | zeros


@pytest.mark.parametrize("partly", [True, False])
@pytest.mark.parametrize("scheme", [ib.pairwise(K), ROW_OF_ZEROS], ids=lambda s: s.name)
def test_everywhere_the_same(partly, scheme):
    expected = trained(frozen_model(scheme, partly=partly))
    on_devices = frozen_model(scheme, partly=partly)
    on_devices.enable_model_parallel(["cpu"] * K)
    several = {name: value for part in on_ranks(2, _on_rank, scheme, partly) for name, value in part.items()}
    for found in (trained(on_devices), several):
        assert found.keys() == expected.keys()
        assert all(torch.equal(value, expected[name]) for name, value in found.items())


def _on_rank(rank, size, scheme, partly):
    model = frozen_model(scheme, partly=partly)
    model.enable_model_parallel()
    return trained(model)


def test_a_function_on_gradients_is_not_called_for_nothing():
    model, calls = frozen_model(ROW_OF_ZEROS), []
    model.on_gradients(lambda component, parameters: calls.append((component, len(parameters))))
    model.training_step(*batch())
    assert sorted(calls) == [(1, 4), (2, 4)]


def test_unfrozen_they_are_trained():
    model = frozen_model()
    before = trained(model, 1)
    for component in model.components[:-1]:
        component.aux_net.requires_grad_(True)
    after = trained(model, 1)
    assert not any(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("options", [{}, {"aux_lr_factor": 2.0}], ids=["together", "apart"])
def test_unfrozen_without_an_optimizer_they_are_named(options):
    model = frozen_model(constructor=without_frozen, **options)
    model.training_step(*batch())
    model.components[1].aux_net.requires_grad_(True)
    with pytest.raises(ValueError, match=r"parameter 'aux_net.0.weight' \(and 3 more\) of component 1 is in no opt"):
        model.training_step(*batch())


def test_a_part_that_is_unfrozen_without_an_optimizer_is_named_after_the_next_train():
    model = frozen_model(constructor=without_frozen, partly=True)
    model.training_step(*batch())
    model.components[0].aux_net[0].bias.requires_grad_(True)
    model.train()
    with pytest.raises(ValueError, match=r"parameter 'aux_net\.0\.bias' of component 0 is in no optimizer"):
        model.training_step(*batch())


def test_a_constructor_that_refuses_what_is_not_frozen_is_heard():
    def refuses(params):
        raise ValueError("no")

    with pytest.raises(ValueError, match=r"^no$"):
        frozen_model(aux_optimizer_constructor=refuses, partly=True)


def test_frozen_heads_of_a_transformer_with_a_loss_in_chunks():
    main_nets, aux_nets = transformer(
        17, width=16, depth=3, n_heads=2, context=8, blocks_per_component=3, chunked_loss=True
    )
    for head in aux_nets:
        head.requires_grad_(False)
    model = ib.build_model(main_nets, aux_nets, ib.local(3), sgd, ib.TokenLoss())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ids = torch.randint(17, (4, 9), generator=torch.Generator().manual_seed(0))
    model.training_step(ids[:, :-1], ids[:, 1:])
    after = model.state_dict()
    same = {name for name in before if torch.equal(before[name], after[name])}
    parameters = {name for name, _ in model.named_parameters()}
    assert same & parameters == {name for name in parameters if "aux_net" in name}
