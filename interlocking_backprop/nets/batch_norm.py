"""The running averages of BatchNorm, which move once for every micro-batch."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from interlocking_backprop.common.checks import check_whole


def set_batch_norm_momentum(net: nn.Module, n_microbatches: int, momentum: float = 0.1) -> None:
    """Sets the momentum of every BatchNorm in a net per training step, whatever the number of micro-batches.

    Running mean and variance move by a fraction, the momentum, towards the statistics of each micro-batch, so with M of
    them M times a step. Here each moves them by ``1 - (1 - momentum) ** (1 / M)``: what came before a step then weighs
    ``1 - momentum`` after it, as with M = 1. (The variance is still one within micro-batches.) Training is the same,
    for it normalises by the statistics of the micro-batch; evaluations differ.

    Args:
        net: a main net, a head or a model; modules in it are changed. Averages over all batches (``momentum=None``)
            stay as they are.
        n_microbatches: M.
        momentum: of a step, between 0 and 1.

    Raises:
        ValueError: if an argument is out of its range.
    """
    check_whole("n_microbatches", n_microbatches)
    if not 0 <= momentum <= 1:
        raise ValueError(f"momentum is {momentum!r}; expected a number from 0 to 1.")
    for module in net.modules():
        if isinstance(module, _BatchNorm) and module.momentum is not None:
            module.momentum = 1 - (1 - momentum) ** (1 / n_microbatches)
