"""What concerns the gradients of all components together: clipping by their common norm, loss scaling."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.amp import GradScaler
from torch.nn import functional as F

import interlocking_backprop as ib
from interlocking_backprop.bench.processes import on_ranks
from tests import oracle
from tests.small_models import batch, weights
from tests.small_nets import Recorder, mlp_components, recorded


def sgd(params):
    return torch.optim.SGD(params, lr=0.1, momentum=0.9)


def flat(tensors) -> torch.Tensor:
    return torch.cat([t.detach().flatten() for t in tensors])


def random_scheme(k: int, seed: int) -> ib.Scheme:
    return ib.Scheme(np.triu(np.random.default_rng(seed).normal(size=(k, k))), name="random")


class TestGlobalClipping:
    @pytest.mark.parametrize("n_devices", [0, 3])
    @pytest.mark.parametrize("m", [1, 2, 3])
    def test_e2e_is_the_plain_network_with_clip_grad_norm(self, m, n_devices):
        nets, _ = mlp_components(3)
        plain = nn.Sequential(*copy.deepcopy(nets))
        optimizer = sgd(plain.parameters())
        model = ib.build_e2e_model(nets, sgd, None, F.mse_loss, max_grad_norm=0.02, clip_by="global", n_microbatches=m)
        if n_devices:
            model.enable_model_parallel(devices=["cpu"] * n_devices)
        for seed in range(3):
            x, target = batch(seed=seed)
            for part, part_target in zip(x.tensor_split(m), target.tensor_split(m), strict=True):
                (F.mse_loss(plain(part), part_target) * (1 / m)).backward()
            assert nn.utils.clip_grad_norm_(plain.parameters(), 0.02) > 0.02
            optimizer.step()
            optimizer.zero_grad()
            model.training_step(x, target)
        assert torch.equal(flat(model.main_net_parameters()), flat(plain.parameters()))

    @settings(max_examples=25, deadline=None)
    @given(k=st.integers(1, 5), m=st.integers(1, 4), seed=st.integers(0, 999), parallel=st.booleans())
    def test_any_scheme_is_clipped_by_the_norm_of_its_gradients(self, k, m, seed, parallel):
        scheme = random_scheme(k, seed)
        nets, heads = mlp_components(k)
        model = ib.build_model(
            nets, heads, scheme, Recorder, F.mse_loss, n_microbatches=m, max_grad_norm=0.01, clip_by="global"
        )
        if parallel:
            model.enable_model_parallel(devices=["cpu"] * k)
        x, target = batch(7, seed)
        model.training_step(x, target)
        parts = list(zip(x.tensor_split(m), target.tensor_split(m), strict=True))
        main, aux = oracle.gradients(nets, heads, scheme, F.mse_loss, parts)
        norm = flat(g for gradients in main for g in gradients).norm()
        for net, gradients in zip(nets, main, strict=True):
            for p, gradient in zip(net.parameters(), gradients, strict=True):
                expected = gradient * min(0.01 / (norm + 1e-6), 1.0)
                torch.testing.assert_close(recorded(model, p), expected, rtol=1e-9, atol=1e-12)
        for head, gradients in zip(heads, aux, strict=False):
            factor = min(0.01 / (flat(gradients).norm() + 1e-6), 1.0)
            for p, gradient in zip(head.parameters(), gradients, strict=True):
                torch.testing.assert_close(recorded(model, p), gradient * factor, rtol=1e-9, atol=1e-12)

    def test_a_shared_weight_counts_once(self):
        nets, _ = mlp_components(3)
        nets[2][0].weight = nets[0][0].weight
        plain = nn.Sequential(*copy.deepcopy(nets))
        optimizer = sgd(plain.parameters())
        model = ib.build_e2e_model(nets, sgd, None, F.mse_loss, max_grad_norm=0.02, clip_by="global")
        for seed in range(3):
            x, target = batch(seed=seed)
            model.training_step(x, target)
            F.mse_loss(plain(x), target).backward()
            nn.utils.clip_grad_norm_(plain.parameters(), 0.02)
            optimizer.step()
            optimizer.zero_grad()
        for net, other in zip(nets, plain, strict=True):
            torch.testing.assert_close(flat(net.parameters()), flat(other.parameters()), rtol=1e-12, atol=1e-14)
        assert torch.equal(nets[2][0].weight, nets[0][0].weight)

    def test_probes_do_not_enter_the_norm(self):
        trained = []
        for factor in (1.0, 1e3):
            model = ib.build_model(
                *mlp_components(3), ib.e2e(3), sgd, F.mse_loss, max_grad_norm=0.02, clip_by="global",
                aux_loss_function=lambda o, t, factor=factor: factor * F.mse_loss(o, t),
            )  # fmt: skip
            model.training_step(*batch())
            trained.append(flat(model.main_net_parameters()))
        assert torch.equal(*trained)

    def test_a_norm_is_needed(self):
        with pytest.raises(ValueError, match="clip_by is 'global' without a norm"):
            ib.build_model(*mlp_components(2), ib.local(2), sgd, F.mse_loss, clip_by="global")
        with pytest.raises(ValueError, match="clip_by is 'all'; expected 'component' or 'global'"):
            ib.build_model(*mlp_components(2), ib.local(2), sgd, F.mse_loss, clip_by="all", max_grad_norm=1.0)


def float_model(scheme: ib.Scheme, **options) -> ib.InterlockingBackpropModel:
    nets = [[net.float() for net in part] for part in mlp_components(scheme.n_components)]
    return ib.build_model(*nets, scheme, sgd, options.pop("loss_function", F.mse_loss), **{"seed": 0, **options})


def float_batch(seed: int = 0):
    return tuple(t.float() for t in batch(seed=seed))


def scaler(init_scale: float = 2.0**10, **options) -> GradScaler:
    return GradScaler("cpu", init_scale=init_scale, **options)


class TestLossScaling:
    @pytest.mark.parametrize("clipping", [{}, {"max_grad_norm": 0.02}, {"max_grad_norm": 0.02, "clip_by": "global"}])
    @pytest.mark.parametrize("m", [1, 3])
    def test_without_overflow_nothing_changes(self, m, clipping):
        """Powers of two leave the bits as they are, whatever streams the gradients are made of."""
        options = {"n_microbatches": m, **clipping}
        scheme = random_scheme(4, seed=3)
        models = [float_model(scheme, **options), float_model(scheme, grad_scaler=scaler(), **options)]
        models.append(float_model(scheme, grad_scaler=scaler(), **options))
        models[2].enable_model_parallel(devices=["cpu"] * 4)
        for seed in range(3):
            for model in models:
                model.training_step(*float_batch(seed))
        assert torch.equal(weights(models[0]), weights(models[1]))
        assert torch.equal(weights(models[0]), weights(models[2]))
        assert models[0].exit_losses == models[1].exit_losses

    @pytest.mark.parametrize("overflows", ["loss_function", "aux_loss_function"])
    def test_an_overflow_anywhere_skips_the_update_everywhere(self, overflows):
        """In local learning no other component sees anything of the loss that overflows."""
        losses = {"loss_function": F.mse_loss, "aux_loss_function": F.mse_loss}
        losses[overflows] = lambda o, t: F.mse_loss(o, t) * 1e30
        grad_scaler = scaler(2.0**40, growth_interval=1000)
        model = float_model(ib.local(3), grad_scaler=grad_scaler, **losses)
        before, n_skipped = weights(model), 0
        while model.training_step(*float_batch()) and torch.equal(weights(model), before):
            n_skipped += 1
            assert all(p.grad is None for p in model.parameters())
            assert grad_scaler.get_scale() == 2.0 ** (40 - n_skipped)
        assert n_skipped > 3
        reference = float_model(ib.local(3), **losses)
        reference.training_step(*float_batch())
        assert torch.equal(weights(model), weights(reference))

    def test_the_scale_grows_again(self):
        grad_scaler = scaler(growth_interval=2)
        model = float_model(ib.local(2), grad_scaler=grad_scaler)
        scales = [model.training_step(*float_batch()) and grad_scaler.get_scale() for _ in range(4)]
        assert scales == [2.0**10, 2.0**11, 2.0**11, 2.0**12]

    def test_float16_is_the_plain_loop(self):
        nets, _ = mlp_components(3)
        plain = nn.Sequential(*copy.deepcopy(nets)).float()
        optimizer, plain_scaler, grad_scaler = sgd(plain.parameters()), scaler(2.0**24), scaler(2.0**24)
        model = ib.build_e2e_model(
            [net.float() for net in nets], sgd, None, F.mse_loss,
            max_grad_norm=0.02, clip_by="global", grad_scaler=grad_scaler,
        )  # fmt: skip
        for seed in range(20):
            x, target = float_batch(seed)
            with torch.autocast("cpu", torch.float16):
                model.training_step(x, target)
                loss = F.mse_loss(plain(x), target)
            plain_scaler.scale(loss).backward()
            plain_scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(plain.parameters(), 0.02)
            plain_scaler.step(optimizer)
            plain_scaler.update()
            optimizer.zero_grad()
            assert grad_scaler.get_scale() == plain_scaler.get_scale()
        assert grad_scaler.get_scale() < 2.0**24
        assert torch.equal(flat(model.main_net_parameters()), flat(plain.parameters()))

    def test_the_scale_is_part_of_the_training_state(self, tmp_path):
        models = [float_model(ib.pairwise(3), grad_scaler=scaler(growth_interval=2)) for _ in range(2)]
        for seed in range(3):
            models[0].training_step(*float_batch(seed))
        torch.save(models[0].training_state_dict(), tmp_path / "state.pt")
        models[1].load_training_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        assert models[1].components[0].grad_scaler.get_scale() == 2.0**11

    def test_a_disabled_scaler_does_nothing(self):
        models = [float_model(ib.pairwise(3), grad_scaler=s) for s in (None, GradScaler("cpu", enabled=False))]
        for model in models:
            model.training_step(*float_batch())
            model.load_training_state_dict(copy.deepcopy(model.training_state_dict()))
            model.training_step(*float_batch())
        assert torch.equal(*map(weights, models))

    def test_a_loss_that_is_nan_whatever_the_scale_is_an_error(self):
        model = float_model(ib.local(2), loss_function=lambda o, t: o.mean() * torch.nan, grad_scaler=scaler(1e-45))
        before = weights(model)
        with pytest.raises(ValueError, match="loss scale has fallen to 0"):
            model.training_step(*float_batch())
        assert torch.equal(before, weights(model))

    def test_something_else_is_refused(self):
        with pytest.raises(ValueError, match=r"grad_scaler is 'dynamic'; expected a torch\.amp\.GradScaler"):
            float_model(ib.local(2), grad_scaler="dynamic")


def refused_on_rank(rank: int, size: int) -> None:
    with pytest.raises(ValueError, match='clip_by="global" is not supported on several ranks yet'):
        float_model(ib.local(2), max_grad_norm=1.0, clip_by="global").enable_model_parallel()
    with pytest.raises(ValueError, match="a grad_scaler is not supported on several ranks yet"):
        float_model(ib.local(2), grad_scaler=scaler()).enable_model_parallel()


def test_on_ranks_both_are_refused():
    on_ranks(2, refused_on_rank)
