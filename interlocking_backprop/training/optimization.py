"""Optimizers and learning-rate schedules from the configuration."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn import Parameter
from torch.optim import SGD, AdamW, Muon, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from interlocking_backprop.training.config import TrainConfig
from interlocking_backprop.training.config_groups import Optimization


@dataclass(frozen=True)
class OptimizerOf:
    """Constructs the optimizers of a component or a head.

    Attributes:
        config: says which optimizer, with which settings.
        main_nets: the network; in them are the matrices that are Muon's.
        own_head: the network's own head, in the last component.
    """

    config: TrainConfig
    main_nets: Sequence[nn.Module]
    own_head: nn.Module

    def __call__(self, parameters: Iterable[Parameter]) -> list[Optimizer]:
        """One optimizer, or Muon and AdamW for those of the parameters that are theirs."""
        parameters, config = list(parameters), self.config.optimization
        lr = self.config.of_optimizer("lr")
        if self.config.optimizer_name == "sgd":
            nesterov = config.nesterov and config.momentum > 0
            return [SGD(self._groups(parameters, lr), lr=lr, momentum=config.momentum, nesterov=nesterov)]
        optimizers: list[Optimizer] = []
        if self.config.optimizer_name == "muon":
            inner = self._inner_matrices()
            matrices, parameters = [p for p in parameters if p in inner], [p for p in parameters if p not in inner]
            if matrices:
                optimizers = [Muon(matrices, lr=lr, weight_decay=self.config.of_optimizer("weight_decay"))]
            lr = self.config.of_optimizer("adamw_lr")
        if parameters:
            optimizers.append(AdamW(self._groups(parameters, lr), lr=lr, betas=(0.9, 0.95)))
        return optimizers

    def _inner_matrices(self) -> set[Parameter]:
        """The matrices from layer to layer: no embedding, no head, and no kernel, for Muon takes two dimensions."""
        modules = [module for net in self.main_nets for module in net.modules()]
        ends = {p for module in modules if isinstance(module, nn.Embedding) for p in module.parameters()}
        ends.update(self.own_head.parameters())
        return {p for net in self.main_nets for p in net.parameters() if p.dim() == 2} - ends

    def _groups(self, parameters: Sequence[Parameter], lr: float) -> list[dict[str, Any]]:
        """Weight decay is for matrices and kernels; biases and normalisation weights go without."""
        weight_decay, factor = self.config.of_optimizer("weight_decay"), self.config.optimization.head_lr_factor
        is_own_head = dict.fromkeys(parameters, False) | dict.fromkeys(self.own_head.parameters(), True)
        groups = [
            {
                "params": [p for p in parameters if (p.dim() > 1) is decays and is_own_head[p] is of_own_head],
                "weight_decay": weight_decay if decays else 0.0,
                "lr": lr * factor if of_own_head else lr,
            }
            for of_own_head in (False, True)
            for decays in (True, False)
        ]
        return [group for group in groups if group["params"]]


@dataclass(frozen=True)
class SchedulerOf:
    """Constructs the learning-rate schedule of an optimizer.

    Attributes:
        config: says which schedule.
        steps_per_epoch: is the unit of warm-up and milestones.
        n_steps: is the length of the run.
        maximize: tells whether higher validation scores are better.
    """

    config: Optimization
    steps_per_epoch: int
    n_steps: int
    maximize: bool

    @property
    def is_per_epoch(self) -> bool:
        """Whether it is stepped after each epoch, with the validation score, in place of after each step."""
        return self.config.lr_schedule == "plateau"

    def __call__(self, optimizer: Optimizer) -> LRScheduler:
        if self.is_per_epoch:
            return ReduceLROnPlateau(
                optimizer, mode="max" if self.maximize else "min", factor=self.config.gamma, patience=5
            )
        return LambdaLR(optimizer, self.factor)

    def factor(self, step: int) -> float:
        """The learning rate of a step as a multiple of the peak."""
        config = self.config
        warmup = min(round(config.warmup_epochs * self.steps_per_epoch), self.n_steps // 2)
        if step < warmup:
            return (step + 1) / warmup
        if config.lr_schedule == "multistep":
            return float(config.gamma ** sum(step >= m * self.steps_per_epoch for m in config.milestones))
        if config.lr_schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(self.n_steps - warmup, 1)))
        return 1.0
