"""Several ranks accumulate what one device does, bit for bit."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

import interlocking_backprop as ib
from interlocking_backprop.bench.processes import on_ranks
from tests.small_models import batch
from tests.small_nets import mlp_components


def sgd(params, component, role):
    lr = 0.1 / (1 + component) if role == "main" else 0.5
    params = list(params)
    return [torch.optim.SGD(params[:1], lr=lr, momentum=0.9), torch.optim.AdamW(params[1:], lr=lr / 10)]


def trained(rank: int, *, on_several: bool, tied: bool) -> dict[str, torch.Tensor]:
    nets, heads = mlp_components(4, dropout=0.2)
    constructor = sgd
    if tied:
        nets[3][0].weight = nets[0][0].weight
        constructor = lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)  # noqa: E731
    schedule = lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda step: 1 / (1 + step))  # noqa: E731
    model = ib.build_model(
        nets, heads, ib.nwise(4, 3, "sum"), constructor, F.mse_loss, schedule,
        n_microbatches=2, accumulate=3, max_grad_norm=0.1, seed=5,
    )  # fmt: skip
    if on_several:
        model.enable_model_parallel()
    for n in range(9):
        x, target = batch(7 + n % 3, seed=n) if rank == 0 else (None, None)
        model.training_step(x, target)
        if n % 3 == 2:
            model.lr_scheduler_step()
            model(x)
    model.shutdown()
    return dict(model.state_dict())


def on_rank(rank: int, size: int, tied: bool) -> dict[str, torch.Tensor]:
    return trained(rank, on_several=True, tied=tied)


@pytest.mark.parametrize(("size", "tied"), [(2, True), (4, False)])
def test_same_numbers(size, tied):
    expected = trained(0, on_several=False, tied=tied)
    found = {name: value for part in on_ranks(size, on_rank, tied) for name, value in part.items()}
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(value, found[name]), name
