"""Transparency: the schemes at the ends of the range equal one another, and e2e equals ordinary training."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import interlocking_backprop as ib
from tests.small_nets import mlp_components


def sgd(params):
    return torch.optim.SGD(params, lr=0.1, momentum=0.9, weight_decay=1e-2, nesterov=True)


def batches(n: int, size: int = 6):
    generator = torch.Generator().manual_seed(5)
    for _ in range(n):
        yield tuple(torch.randn(size, 5, generator=generator).double() for _ in range(2))


def trained(scheme: ib.Scheme, m: int = 1, steps: int = 4, **options) -> ib.InterlockingBackpropModel:
    main_nets, aux_nets = mlp_components(scheme.n_components, dropout=0.2)
    model = ib.build_model(main_nets, aux_nets, scheme, sgd, F.mse_loss, n_microbatches=m, seed=1, **options)
    for x, target in batches(steps):
        model.training_step(x, target).result()
    return model


def assert_same_weights(a: nn.Module, b: nn.Module) -> None:
    for (name, p), (other, q) in zip(a.state_dict().items(), b.state_dict().items(), strict=True):
        assert name == other
        assert torch.equal(p, q), name


@pytest.mark.parametrize("m", [1, 2])
@pytest.mark.parametrize(
    ("scheme", "same"),
    [(ib.nwise(4, 1), ib.local(4)), (ib.nwise(4, 4), ib.e2e(4)), (ib.nwise(4, 7), ib.e2e(4)), (ib.local(1), ib.e2e(1))],
)
def test_equal_schemes_train_equally(scheme, same, m):
    assert_same_weights(trained(scheme, m), trained(same, m))


def test_the_shorthands_build_their_schemes():
    main_nets, aux_nets = mlp_components(4)
    scheduler = lambda optimizer: None  # noqa: E731
    args = (sgd, scheduler, F.mse_loss)
    models = {
        ib.e2e(4): ib.build_e2e_model(copy.deepcopy(main_nets), *args),
        ib.local(4): ib.build_local_model(*copy.deepcopy((main_nets, aux_nets)), *args),
        ib.pairwise(4): ib.build_pairwise_model(*copy.deepcopy((main_nets, aux_nets)), *args),
        ib.nwise(4, 3): ib.build_nwise_model(*copy.deepcopy((main_nets, aux_nets)), *args, 2),
    }
    for scheme, model in models.items():
        assert model.scheme == scheme


@pytest.mark.parametrize("m", [1, 2])
@pytest.mark.parametrize(
    "optimizer", [sgd, lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1), torch.optim.RMSprop]
)
def test_e2e_is_ordinary_training(optimizer, m):
    main_nets, _ = mlp_components(3, batch_norm=m == 1)
    plain = nn.Sequential(*copy.deepcopy(main_nets))
    plain_optimizer = optimizer(plain.parameters())
    model = ib.build_e2e_model(main_nets, optimizer, None, F.mse_loss, n_microbatches=m)
    for x, target in batches(5):
        plain_loss = 0.0
        for part, part_target in zip(x.tensor_split(m), target.tensor_split(m), strict=True):
            part_loss = F.mse_loss(plain(part), part_target) / m
            part_loss.backward()
            plain_loss += part_loss.detach()
        plain_optimizer.step()
        plain_optimizer.zero_grad()
        loss = model.training_step(x, target).result()
        assert torch.equal(loss, plain_loss)
        assert loss.dim() == 0
        assert not loss.requires_grad
    for p, q in zip(model.main_net_parameters(), plain.parameters(), strict=True):
        assert torch.equal(p, q)


def test_heads_do_not_leak_into_the_network():
    """Other settings of the heads' optimizer change the network through the heads' values alone."""
    slow = trained(ib.local(3), steps=1)
    fast = trained(ib.local(3), steps=1, aux_lr_factor=20.0)
    other = trained(ib.local(3), steps=1, aux_optimizer_constructor=lambda p: torch.optim.Adam(p, lr=0.3))
    for p, q, r in zip(*(m.main_net_parameters() for m in (slow, fast, other)), strict=True):
        assert torch.equal(p, q)
        assert torch.equal(p, r)
    heads = [torch.cat([p.flatten() for c in m.components[:-1] for p in c.aux_net.parameters()]) for m in (slow, fast)]
    assert not torch.equal(*heads)
    # In e2e no head touches the network at all, however long it trains.
    for p, q in zip(
        trained(ib.e2e(3)).main_net_parameters(),
        trained(ib.e2e(3), aux_lr_factor=20.0).main_net_parameters(),
        strict=True,
    ):
        assert torch.equal(p, q)


def test_clipping_keeps_heads_and_network_apart():
    """The norm of a head's gradient does not enter the clipping of its component's."""
    plain = trained(ib.e2e(2), max_grad_norm=0.05)
    scaled = trained(ib.e2e(2), max_grad_norm=0.05, aux_loss_function=lambda o, t: 1e3 * F.mse_loss(o, t))
    for p, q in zip(plain.main_net_parameters(), scaled.main_net_parameters(), strict=True):
        assert torch.equal(p, q)
    assert not torch.equal(next(plain.main_net_parameters()), next(trained(ib.e2e(2)).main_net_parameters()))
