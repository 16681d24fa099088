"""A scheme that changes over the epochs has phases; its costs are the means over them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from interlocking_backprop.scheme.coefficients import Scheme
from interlocking_backprop.training.trainer import Trainer


class Phase(NamedTuple):
    """A part of a run.

    Attributes:
        scheme: that is followed in it.
        share: of the steps of the run.
    """

    scheme: Scheme
    share: float


def phases_of(trainer: Trainer) -> list[Phase]:
    """The phases of a run, those left out that it does not come to."""
    found = []
    begin = 0
    for epoch, scheme in trainer.phases:
        end = trainer.n_steps if epoch is None else min(epoch * trainer.steps_per_epoch, trainer.n_steps)
        if end > begin:
            found.append(Phase(scheme, (end - begin) / trainer.n_steps))
        begin = end
    return found


def mean(phases: Sequence[Phase], values: Sequence[float]) -> float:
    """The mean of a value over the steps of a run."""
    return sum(phase.share * value for phase, value in zip(phases, values, strict=True))
