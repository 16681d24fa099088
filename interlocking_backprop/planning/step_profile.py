"""What training steps cost on one device: time and peak memory, of several ways to train, measured side by side.

The steps of all that is measured take turns, round by round, so that whatever else the machine does hits all alike.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch

from interlocking_backprop.planning.peak_memory import peak_bytes
from interlocking_backprop.planning.timing import timed

Step = Callable[[], object]
"""Carries out a training step to its end."""

PhaseSteps = Sequence[tuple[Callable[[], AbstractContextManager[Step]], float]]
"""For each phase of a training what prepares the model for a step of it and yields that step, which alone is measured;
and the share of the phase in all steps."""


@dataclass(frozen=True, kw_only=True)
class StepProfile:
    """What a training step costs on one device, with forward and backward passes, losses and the update.

    Attributes:
        step_seconds: median of a step; of several phases the mean of their medians, by their shares.
        step_std: standard deviation of the seconds, within a phase.
        n_steps: how many steps of each phase were timed.
        peak_bytes: the most bytes alive at once that the step itself makes, in any phase: see `peak_bytes`.
    """

    step_seconds: float
    step_std: float
    n_steps: int
    peak_bytes: float


def profile_steps(trainings: Mapping[str, PhaseSteps], n_steps: int, device: torch.device) -> dict[str, StepProfile]:
    """Measures the steps of each way to train, after a warm-up.

    Args:
        trainings: by name.
        n_steps: how many steps of each phase are timed.
        device: on which they compute.
    """
    peaks = {name: step_peak(phases, device) for name, phases in trainings.items()}
    rounds = [
        {name: [_seconds(prepare, device) for prepare, _ in phases] for name, phases in trainings.items()}
        for _ in range(n_steps + 1)
    ][1:]
    found = {}
    for name, phases in trainings.items():
        times = np.array([row[name] for row in rounds])  # of each round and phase
        shares = [share for _, share in phases]
        variances = times.var(axis=0, ddof=1) if n_steps > 1 else np.zeros(len(shares))
        found[name] = StepProfile(
            step_seconds=float(np.average(np.median(times, axis=0), weights=shares)),
            step_std=float(np.average(variances, weights=shares)) ** 0.5,
            n_steps=n_steps,
            peak_bytes=peaks[name],
        )
    return found


def step_peak(phases: PhaseSteps, device: torch.device) -> float:
    """The most bytes that a step makes, in any phase; not in its first time, when optimizers make their state."""
    peaks = []
    for prepare, _ in phases:
        with prepare() as step:
            step()
            peaks.append(peak_bytes(step, device))
    return max(peaks)


def fewest_microbatches(peak: Callable[[int], float], bound: float, at_least: int, at_most: int) -> int | None:
    """The fewest micro-batches with which a step needs no more memory than a bound; None if none are enough.

    Args:
        peak: the bytes that a step needs with so many micro-batches; they fall as the number grows.
        bound: in bytes.
        at_least: the number to begin with.
        at_most: the largest number to try.
    """
    fails, fits = at_least - 1, at_least
    while peak(fits) > bound:
        if fits == at_most:
            return None
        fails, fits = fits, min(2 * fits, at_most)
    return fails + 1 + bisect.bisect_left(range(fails + 1, fits), True, key=lambda m: peak(m) <= bound)


def _seconds(prepare: Callable[[], AbstractContextManager[Step]], device: torch.device) -> float:
    with prepare() as step:
        return timed(step, device)[1]
