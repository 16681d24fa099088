"""Small nonlinear nets for tests."""

from __future__ import annotations

import torch
from torch import nn

import interlocking_backprop as ib


def mlp_components(
    k: int, width: int = 5, *, batch_norm: bool = False, dropout: float = 0.0, seed: int = 0
) -> tuple[list[nn.Module], list[nn.Module]]:
    """K components of two nonlinear layers, and K - 1 heads that are nonlinear too."""
    torch.manual_seed(seed)

    def main() -> nn.Module:
        layers: list[nn.Module] = [nn.Linear(width, width), nn.Tanh()]
        if batch_norm:
            layers.append(nn.BatchNorm1d(width))
        if dropout:
            layers.append(nn.Dropout(dropout))
        return nn.Sequential(*layers, nn.Linear(width, width), nn.Sigmoid())

    def head() -> nn.Module:
        layers: list[nn.Module] = [nn.Linear(width, width), nn.Tanh()]
        if dropout:
            layers.append(nn.Dropout(dropout))
        return nn.Sequential(*layers, nn.Linear(width, width))

    return [main().double() for _ in range(k)], [head().double() for _ in range(k - 1)]


class Recorder(torch.optim.Optimizer):
    """An optimizer that keeps the gradients and changes nothing."""

    def __init__(self, params) -> None:
        super().__init__(params, {"lr": 0.1})
        self.seen: dict[nn.Parameter, torch.Tensor] = {}

    def step(self, closure=None):
        for group in self.param_groups:
            self.seen |= {p: p.grad.clone() for p in group["params"] if p.grad is not None}


def recorded(model: ib.InterlockingBackpropModel, parameter: nn.Parameter) -> torch.Tensor:
    """The gradient that the model's optimizers saw in the last step; zeros where they saw none."""
    for component in model.components:
        for optimizer in component.optimizers:
            if parameter in optimizer.seen:
                return optimizer.seen[parameter]
    return torch.zeros_like(parameter)
