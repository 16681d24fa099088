"""A loss that is not finite ends a run: nothing that comes after it can be trained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from interlocking_backprop.training.config import TrainConfig


class BadLoss(NamedTuple):
    """A training loss that is not finite.

    Attributes:
        step: how many training steps were taken, that of the loss included.
        value: the loss, infinite or not a number.
        exit: the component at whose exit it is; None for the network's own exit.
    """

    step: int
    value: float
    exit: int | None


class Diverged(Exception):  # noqa: N818  (it says what happened)
    """Training came to a loss that is not finite.

    Args:
        loss: the first one that was seen.
        config: the configuration of the run, for what the message advises.
    """

    def __init__(self, loss: BadLoss, config: TrainConfig) -> None:
        where = "" if loss.exit is None else f" of exit {loss.exit}"
        norm, rates = config.optimization.max_grad_norm / 10 or 1, f"--lr (it is {config.of_optimizer('lr'):g})"
        if config.optimizer_name == "muon":
            rates += f" or --adamw-lr ({config.of_optimizer('adamw_lr'):g})"
        super().__init__(
            f"training diverged: the loss{where} is {loss.value} at step {loss.step}; lower {rates}, or clip "
            f"gradients, e.g. --max-grad-norm {norm:g}."
        )
        self.loss = loss


def first_bad_loss(step: int, losses: Sequence[float], exits: Sequence[float | None]) -> BadLoss | None:
    """Finds the first loss that is not finite; returns None if all are.

    Args:
        step: the number of the last step, from 1.
        losses: the network's losses in the steps up to it.
        exits: the losses of every exit in the last step; None where there is no head.
    """
    for n, value in enumerate(losses):
        if not math.isfinite(value):
            return BadLoss(step - len(losses) + 1 + n, value, None)
    for i, loss in enumerate(exits):
        if loss is not None and not math.isfinite(loss):
            return BadLoss(step, loss, i)
    return None
