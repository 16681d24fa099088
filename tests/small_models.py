"""Models of `small_nets`, with what their tests need."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

import interlocking_backprop as ib
from tests.small_nets import mlp_components


def sgd(params):
    return torch.optim.SGD(params, lr=0.1, momentum=0.9)


def model_of(scheme: ib.Scheme, optimizer=sgd, **options) -> ib.InterlockingBackpropModel:
    nets = mlp_components(scheme.n_components, dropout=0.2)
    return ib.build_model(*nets, scheme, optimizer, F.mse_loss, **{"seed": 0, **options})


def batch(size: int = 6, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(size, 5, generator=generator).double() for _ in range(2))


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])
