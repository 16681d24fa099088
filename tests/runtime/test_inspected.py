"""Gradients in hand: before an update, without one, and beside those of end-to-end backpropagation."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import interlocking_backprop as ib
from tests import oracle
from tests.small_models import batch, sgd
from tests.small_nets import Recorder, mlp_components


def model_of(scheme: ib.Scheme, optimizer=Recorder, *, nets=None, batch_norm=False, **options):
    nets = nets or mlp_components(scheme.n_components, batch_norm=batch_norm, dropout=0.2)
    return ib.build_model(*nets, scheme, optimizer, F.mse_loss, **{"seed": 3, **options})


def tied_nets(k: int):
    main_nets, aux_nets = mlp_components(k)
    main_nets[-1][0].weight = main_nets[0][0].weight
    return main_nets, aux_nets


def random_scheme(k: int, seed: int) -> ib.Scheme:
    generator = np.random.default_rng(seed)
    matrix = np.triu(generator.normal(size=(k, k)) * generator.integers(0, 2, size=(k, k)))
    return ib.Scheme(matrix if matrix.any() else np.triu(np.ones((k, k))))


def expected(model: ib.InterlockingBackpropModel, scheme: ib.Scheme, x, target, step: int = 0):
    """What the oracle finds: for each component the gradients of the main net and of the head."""
    m = min(model.n_microbatches, len(x))
    parts = list(zip(x.tensor_split(m), target.tensor_split(m), strict=True))
    nets = [component.main_net for component in model.components]
    heads = [component.aux_net for component in model.components[:-1]]
    return list(
        zip(*oracle.gradients(*copy.deepcopy((nets, heads)), scheme, F.mse_loss, parts, (3, step)), strict=True)
    )


def assert_gradients(net: nn.Module | None, found: dict[str, torch.Tensor], wanted: list[torch.Tensor]) -> None:
    names = [name for name, _ in net.named_parameters()] if net is not None else []
    assert set(found) <= set(names)
    for name, gradient in zip(names, wanted, strict=True):
        torch.testing.assert_close(found.get(name, torch.zeros_like(gradient)), gradient, rtol=0, atol=1e-10)


class TestGradients:
    @settings(max_examples=40, deadline=None)
    @given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 10_000))
    def test_they_are_those_of_the_definition(self, k, m, seed):
        model = model_of(random_scheme(k, seed), n_microbatches=m, batch_norm=m == 1)
        x, target = batch(7, seed)
        for scheme in (None, random_scheme(k, seed + 1)):
            wanted = expected(model, scheme or model.scheme, x, target)
            for component, found, (main, head) in zip(
                model.components, model.gradients(x, target, scheme), wanted, strict=True
            ):
                assert_gradients(component.main_net, found.main, main)
                assert_gradients(component.aux_net, found.head, head)
                assert found.by_loss == {}

    @pytest.mark.parametrize("devices", [None, ["cpu"] * 4])
    @pytest.mark.parametrize("scheme", [ib.e2e(4), ib.nwise(4, 3), random_scheme(4, 0)], ids=["e2e", "3wise", "random"])
    def test_they_are_those_of_the_next_step_to_the_bit(self, scheme, devices):
        model = model_of(scheme, n_microbatches=2, batch_norm=True, max_grad_norm=1e-3)
        if devices is not None:
            model.enable_model_parallel(devices)
        seen = {}
        model.on_gradients(lambda i, parameters: seen.update({p: p.grad.clone() for p in parameters}))
        for step in range(3):
            seen.clear()
            found = model.gradients(*batch(seed=step))
            assert not seen  # nothing is updated, so nobody is asked
            model.training_step(*batch(seed=step))
            together = {}
            for component, gradients in zip(model.components, found, strict=True):
                for net, part in ((component.main_net, gradients.main), (component.aux_net, gradients.head)):
                    together |= {net.get_parameter(name): gradient for name, gradient in part.items()}
            assert together.keys() == seen.keys()
            assert all(torch.equal(gradient, seen[p]) for p, gradient in together.items())

    def test_nothing_is_disturbed(self):
        model, twin = (model_of(ib.nwise(3, 2), sgd, batch_norm=True, n_microbatches=2) for _ in range(2))
        for step in range(3):
            if step == 1:
                for p in model.parameters():
                    p.grad = torch.ones_like(p)
                generator = torch.get_rng_state()
                exit_losses = model.exit_losses
                model.gradients(*batch(seed=9), by_loss=True)
                model.gradients(*batch(seed=9), ib.e2e(3))
                model.alignment(*batch(seed=9))
                assert torch.equal(torch.get_rng_state(), generator)
                assert all(torch.equal(p.grad, torch.ones_like(p)) for p in model.parameters())
                assert model.exit_losses is exit_losses
                assert model.scheme == ib.nwise(3, 2)
                model.zero_grad()
            for each in (model, twin):
                each.training_step(*batch(seed=step))
        assert model.counters() == twin.counters()
        assert all(map(torch.equal, model.state_dict().values(), twin.state_dict().values()))

    def test_nor_by_a_failure(self):
        model = model_of(ib.local(3), sgd, batch_norm=True)
        state = {name: value.clone() for name, value in model.state_dict().items()}
        for p in model.parameters():
            p.grad = torch.ones_like(p)
        handle = model.components[2].main_net.register_forward_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            model.gradients(*batch())
        assert all(torch.equal(p.grad, torch.ones_like(p)) for p in model.parameters())
        assert all(map(torch.equal, model.state_dict().values(), state.values()))
        handle.remove()
        assert model.gradients(*batch())[0].main

    def test_what_gets_none_is_left_out(self):
        model = model_of(ib.Scheme([[0, 0, 0], [0, 1, 0], [0, 0, 1]]))
        model.components[1].main_net[0].weight.requires_grad_(False)
        first, second, third = model.gradients(*batch())
        assert first.main == {}
        assert set(first.head) == {name for name, _ in model.components[0].aux_net.named_parameters()}
        assert set(second.main) == {name for name, _ in model.components[1].main_net.named_parameters()} - {"0.weight"}
        assert third.head == {}

    @settings(max_examples=20, deadline=None)
    @given(st.integers(1, 4), st.integers(1, 3), st.integers(0, 10_000), st.booleans())
    def test_by_loss_they_are_the_terms_of_the_sum(self, k, m, seed, tied):
        tied = tied and k > 1
        nets = tied_nets(k) if tied else mlp_components(k, dropout=0.2)
        model = model_of(random_scheme(k, seed), nets=nets, n_microbatches=m)
        x, target = batch(7, seed)
        found = model.gradients(x, target, by_loss=True)
        for j in range(k):
            column = np.where(np.arange(k) == j, model.scheme.matrix, 0)
            wanted = [main for main, _ in expected(model, ib.Scheme(column), x, target)]
            if tied:
                wanted[0][0] = wanted[-1][0] = wanted[0][0] + wanted[-1][0]
            for component, gradients, main in zip(model.components, found, wanted, strict=True):
                assert_gradients(component.main_net, gradients.by_loss.get(j, {}), main)
        for gradients in found:
            for name, gradient in gradients.main.items():
                terms = [term[name] for term in gradients.by_loss.values() if name in term]
                torch.testing.assert_close(sum(terms), gradient, rtol=0, atol=1e-10)
            assert all(term.keys() <= gradients.main.keys() for term in gradients.by_loss.values())

    def test_bad_schemes(self):
        model = model_of(ib.e2e(3), nets=(mlp_components(3)[0], [None] * 2))
        with pytest.raises(ValueError, match=r"trains component 0 with loss 0, but head 0 is\s+None"):
            model.gradients(*batch(), ib.local(3))
        with pytest.raises(ValueError, match="is for 4 components, the model has 3; make it for 3"):
            model.gradients(*batch(), ib.e2e(4))
        with pytest.raises(ValueError, match=r"the scheme is 'e2e'; expected an interlocking_backprop\.Scheme"):
            model.alignment(*batch(), "e2e")
        assert model.gradients(*batch())[0].main


class TestAlignment:
    @pytest.mark.parametrize("m", [1, 3])
    @pytest.mark.parametrize("seed", range(4))
    def test_it_is_that_of_the_gradients_of_the_definition(self, m, seed):
        model = model_of(random_scheme(4, seed), n_microbatches=m)
        x, target = batch(7, seed)
        a, b = (expected(model, scheme, x, target) for scheme in (model.scheme, ib.e2e(4)))
        for found, (own, _), (end_to_end, _) in zip(model.alignment(x, target), a, b, strict=True):
            u, v = (torch.cat([g.flatten() for g in grads]) for grads in (own, end_to_end))
            if u.any():
                assert found.cosine == pytest.approx(F.cosine_similarity(u, v, dim=0).item(), abs=1e-9)
            assert found.norm_ratio == pytest.approx((u.norm() / v.norm()).item(), abs=1e-9)

    def test_of_end_to_end_to_itself(self):
        model = model_of(ib.local(3), batch_norm=True)
        for found in model.alignment(*batch(), ib.e2e(3)):
            assert found == pytest.approx((1, 1))
        assert model.alignment(*batch())[2] == pytest.approx((1, 1))
        assert model.alignment(*batch())[0] != pytest.approx((1, 1))

    def test_tiny_gradients(self):
        model = model_of(ib.e2e(2), nets=[[net.float() for net in nets] for nets in mlp_components(2)])
        model.losses[-1].function = lambda output, target: F.mse_loss(output, target) * 1e-30
        x, target = batch()
        assert model.alignment(x.float(), target.float())[0] == pytest.approx((1, 1))

    def test_without_a_gradient(self):
        model = model_of(ib.Scheme([[0, 0, 0], [0, 1, 0], [0, 0, 1]]))
        model.components[2].main_net.requires_grad_(False)
        frozen, _, untrained = model.alignment(*batch())
        assert math.isnan(frozen.cosine)
        assert frozen.norm_ratio == 0
        assert untrained is None
        # A last component that ignores its input: end to end nothing reaches the others.
        model = model_of(ib.local(2))
        model.components[1].main_net[0].weight.data.zero_()
        cut_off, _ = model.alignment(*batch())
        assert math.isnan(cut_off.cosine)
        assert cut_off.norm_ratio == math.inf
