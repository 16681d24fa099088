"""What a training step costs on this device: time, peak memory and passes, of every scheme and of e2e's baselines.

The steps of all that is measured take turns, round by round, so that whatever else the machine does hits all alike.
"""

from __future__ import annotations

import contextlib
import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from interlocking_backprop.compare.results import Profile
from interlocking_backprop.model import InterlockingBackpropModel
from interlocking_backprop.planning.memory import peak_bytes
from interlocking_backprop.planning.phases import Phase, mean, phases_of
from interlocking_backprop.schedule.action import PASSES, Kind
from interlocking_backprop.scheme.coefficients import Scheme
from interlocking_backprop.training.trainer import Trainer

E2E = "e2e"
_COUNTED = (Kind.FORWARD, Kind.LOSS, *PASSES)


@dataclass(frozen=True)
class Contender:
    """Something whose steps are measured.

    Attributes:
        name: of the scheme, or of a baseline.
        scheme: as it was asked for.
        trainer: whose model takes the steps; several may share it.
        batch: inputs and targets of every step.
        n_microbatches: M.
        checkpointed: whether components keep their inputs alone and run again in the backward pass.
    """

    name: str
    scheme: str
    trainer: Trainer
    batch: tuple[Any, Any]
    n_microbatches: int
    checkpointed: bool = False

    @cached_property
    def phases(self) -> list[Phase]:
        return phases_of(self.trainer)

    def peak(self) -> float:
        """The most bytes alive in a step, of any phase."""
        return max(self._measured(phase.scheme, self._peak) for phase in self.phases)

    def seconds(self) -> list[float]:
        """How long a step takes in each phase."""
        return [self._measured(phase.scheme, self._seconds) for phase in self.phases]

    def passes(self) -> dict[str, float]:
        """How often each kind of action is carried out in a step; the mean over the phases."""
        counts: list[Counter[str]] = []
        for phase in self.phases:
            with self._prepared(phase.scheme) as model:
                actions = [a.kind for actions in model.schedule.actions for a in actions]
            counts.append(Counter(str(kind) for kind in actions if kind in _COUNTED))
            if self.checkpointed:
                counts[-1]["F"] *= 2
        kinds = [str(kind) for kind in _COUNTED if any(count[str(kind)] for count in counts)]
        if len(counts) == 1:
            return {kind: counts[0][kind] for kind in kinds}
        return {kind: mean(self.phases, [count[kind] for count in counts]) for kind in kinds}

    def _measured(self, scheme: Scheme, measure: Callable[[InterlockingBackpropModel], float]) -> float:
        with self._prepared(scheme) as model, self.trainer.autocast():
            return measure(model)

    def _peak(self, model: InterlockingBackpropModel) -> float:
        return peak_bytes(lambda: model.training_step(*self.batch).result(), self.trainer.device)

    def _seconds(self, model: InterlockingBackpropModel) -> float:
        wait(self.trainer.device)
        begin = time.perf_counter()
        model.training_step(*self.batch).result()
        wait(self.trainer.device)
        return time.perf_counter() - begin

    @contextlib.contextmanager
    def _prepared(self, scheme: Scheme) -> Iterator[InterlockingBackpropModel]:
        """The model as it takes these steps, its schedule made."""
        model = self.trainer.model
        before = model.n_microbatches
        model.set_scheme(scheme)
        model.n_microbatches = self.n_microbatches
        assert model.schedule is not None
        nets = [component.main_net for component in model.components] if self.checkpointed else []
        try:
            for net in nets:
                net.forward = partial(checkpoint, net.forward, use_reentrant=False)
            yield model
        finally:
            for net in nets:
                del net.forward
            model.n_microbatches = before


def profile(trainers: dict[str, Trainer], n_steps: int) -> list[Profile]:
    """Measures schemes, and beside e2e its baselines.

    Args:
        trainers: by scheme, all of the same network, their models in place.
        n_steps: that are timed.
    """
    contenders = [
        Contender(scheme, scheme, trainer, trainer.first_batch(), trainer.config.optimization.microbatches)
        for scheme, trainer in trainers.items()
    ]
    for contender in contenders:
        contender.seconds()  # optimizers make their state in the first step
    peaks = {contender.name: contender.peak() for contender in contenders}
    if E2E in trainers:
        e2e = next(contender for contender in contenders if contender.scheme == E2E)
        baselines = _baselines(e2e, [peak for name, peak in peaks.items() if name != E2E])
        peaks |= {baseline.name: baseline.peak() for baseline in baselines}
        contenders += baselines
    rounds = [[contender.seconds() for contender in contenders] for _ in range(n_steps + 1)][1:]
    return [_profile(c, [seconds[n] for seconds in rounds], peaks[c.name]) for n, c in enumerate(contenders)]


def wait(device: torch.device) -> None:
    """Waits until a device has done what it was given."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _profile(contender: Contender, rounds: Sequence[Sequence[float]], peak: float) -> Profile:
    columns = list(zip(*rounds, strict=True))
    variances = [statistics.variance(column) if len(column) > 1 else 0.0 for column in columns]
    return Profile(
        name=contender.name,
        scheme=contender.scheme,
        components=contender.trainer.config.components,
        microbatches=contender.n_microbatches,
        step_seconds=mean(contender.phases, [statistics.median(column) for column in columns]),
        step_std=math.sqrt(mean(contender.phases, variances)),
        n_steps=len(rounds),
        peak_bytes=peak,
        passes=contender.passes(),
    )


def _baselines(e2e: Contender, peaks: Sequence[float]) -> list[Contender]:
    """End-to-end backpropagation with less memory.

    With activation checkpointing; and with gradients accumulated over micro-batches, as many as it takes to need no
    more memory than each of the other schemes. Where no number is enough there is no such baseline.
    """
    checkpointed = Contender(f"{E2E}, checkpointed", E2E, e2e.trainer, e2e.batch, e2e.n_microbatches, checkpointed=True)
    search = _Search(e2e)
    needed = {search.fewest(peak) for peak in peaks} - {e2e.n_microbatches}
    accumulating = [
        Contender(f"{E2E}, {m} micro-batches", E2E, e2e.trainer, e2e.batch, m)
        for m in sorted(m for m in needed if m is not None)
    ]
    return [checkpointed, *accumulating]


class _Search:
    """Looks for numbers of micro-batches by the memory that they need, which falls as they grow."""

    def __init__(self, e2e: Contender) -> None:
        self._e2e = e2e
        self._peaks: dict[int, float] = {}
        # BatchNorm needs two samples.
        self._most = max(e2e.trainer.config.optimization.batch_size // 2, e2e.n_microbatches)

    def fewest(self, bound: float) -> int | None:
        """The fewest micro-batches that keep within a bound; None if there is no such number."""
        fits = self._e2e.n_microbatches
        fails = fits - 1
        while self._peak(fits) > bound:
            if fits == self._most:
                return None
            fails, fits = fits, min(2 * fits, self._most)
        while fits - fails > 1:
            middle = (fits + fails) // 2
            if self._peak(middle) <= bound:
                fits = middle
            else:
                fails = middle
        return fits

    def _peak(self, m: int) -> float:
        if m not in self._peaks:
            c = self._e2e
            self._peaks[m] = Contender(c.name, c.scheme, c.trainer, c.batch, m).peak()
        return self._peaks[m]
