"""What a step of each scheme costs for one number of components: measured on one device, modelled on several."""

from __future__ import annotations

import dataclasses
import functools
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from torch.utils.checkpoint import checkpoint

from interlocking_backprop.compare.results import Estimate, Profile
from interlocking_backprop.engine.tree import map_tensors, tensors
from interlocking_backprop.planning.estimates import E2E_PIPELINES, INTERLOCKED, NetworkCosts, estimate_step
from interlocking_backprop.planning.measured_costs import measure_costs
from interlocking_backprop.planning.step_profile import PhaseSteps, Step, fewest_microbatches, profile_steps, step_peak
from interlocking_backprop.schedule.action import PASSES, Kind
from interlocking_backprop.schedule.costs import Costs
from interlocking_backprop.schedule.order import depth_first
from interlocking_backprop.scheme.coefficients import Scheme
from interlocking_backprop.scheme.streams import Workload
from interlocking_backprop.training.trainer import Trainer

_E2E = "e2e"


def phases_of(trainer: Trainer) -> list[tuple[Scheme, float]]:
    """The schemes that a run comes to, each with its share of the steps."""
    steps: Counter[Scheme] = Counter()
    for epoch, begin in enumerate(range(0, trainer.n_steps, trainer.steps_per_epoch)):
        steps[trainer.phases.at(epoch)] += min(trainer.steps_per_epoch, trainer.n_steps - begin)
    return [(scheme, n / trainer.n_steps) for scheme, n in steps.items()]


class _Training(NamedTuple):
    """A scheme, or a baseline, with M micro-batches; checkpointed components run again in the backward pass."""

    name: str
    scheme: str
    trainer: Trainer
    batch: tuple[Any, Any]
    microbatches: int
    checkpointed: bool = False


def profile_schemes(trainers: dict[str, Trainer], n_steps: int) -> list[Profile]:
    """Measures schemes, and beside e2e its baselines.

    Args:
        trainers: by scheme, all of the same network, their models in place.
        n_steps: how many steps are timed.
    """
    trainings = [_Training(s, s, t, t.first_batch(), t.config.optimization.microbatches) for s, t in trainers.items()]
    for e2e in [t for t in trainings if t.name == _E2E]:
        trainings += _e2e_in_less_memory(e2e, [_peak(t) for t in trainings if t is not e2e])
    measured = profile_steps({t.name: _phases(t) for t in trainings}, n_steps, trainings[0].trainer.device)
    return [
        Profile(
            name=t.name,
            scheme=t.scheme,
            components=t.trainer.config.components,
            microbatches=t.microbatches,
            passes=_passes(t),
            **vars(measured[t.name]),
        )
        for t in trainings
    ]


def _e2e_in_less_memory(e2e: _Training, peaks: Sequence[float]) -> list[_Training]:
    """End-to-end backpropagation with activation checkpointing, and with gradients accumulated over micro-batches.

    The micro-batches are as few as need no more memory than each of the other schemes, whose peaks are given. Where no
    number is enough there is no such baseline.
    """
    own = e2e.microbatches
    most = max(e2e.trainer.config.optimization.batch_size // 2, own)  # BatchNorm needs two samples
    peak = functools.cache(lambda m: _peak(e2e._replace(microbatches=m)))
    needed = {fewest_microbatches(peak, bound, own, most) for bound in peaks} - {own}
    counts = sorted(m for m in needed if m is not None)
    accumulating = [e2e._replace(name=f"{_E2E}, {m} micro-batches", microbatches=m) for m in counts]
    return [e2e._replace(name=f"{_E2E}, checkpointed", checkpointed=True), *accumulating]


def _peak(training: _Training) -> float:
    return step_peak(_phases(training), training.trainer.device)


def _phases(training: _Training) -> PhaseSteps:
    """The steps that are measured, of each phase on the first batch."""
    trainer, model = training.trainer, training.trainer.model
    nets = [component.main_net for component in model.components] if training.checkpointed else []

    @contextmanager
    def prepared(scheme: Scheme) -> Iterator[Step]:
        before = model.n_microbatches
        model.set_scheme(scheme)
        model.n_microbatches = training.microbatches
        assert model.schedule is not None  # it is made when it is first asked for
        try:
            for net in nets:
                net.forward = functools.partial(checkpoint, net.forward, use_reentrant=False)
            with trainer.autocast():
                yield lambda: model.training_step(*training.batch).result()
        finally:
            for net in nets:
                del net.forward
            model.n_microbatches = before

    return [(functools.partial(prepared, scheme), share) for scheme, share in phases_of(trainer)]


def _passes(training: _Training) -> dict[str, float]:
    """How often each kind of action is carried out in a step; the mean over the phases."""
    workloads = _workloads(training.trainer)
    schedules = [depth_first(workload, training.microbatches) for workload, _ in workloads]
    counts = [Counter(action.kind for _, action in schedule) for schedule in schedules]
    if training.checkpointed:
        counts = [count + Counter({Kind.FORWARD: count[Kind.FORWARD]}) for count in counts]
    kinds = [kind for kind in (Kind.FORWARD, Kind.LOSS, *PASSES) if any(count[kind] for count in counts)]
    shares = [share for _, share in workloads]
    return {str(kind): float(np.average([count[kind] for count in counts], weights=shares)) for kind in kinds}


def _workloads(trainer: Trainer) -> list[tuple[Workload, float]]:
    found = []
    for scheme, share in phases_of(trainer):
        trainer.model.set_scheme(scheme)
        found.append((trainer.model.schedule.workload, share))
    return found


def network_costs(trainer: Trainer, latency: float, bandwidth: float, repeats: int) -> Callable[[int], NetworkCosts]:
    """What one of M micro-batches costs, as a function of M that measures when it is first asked.

    Args:
        trainer: of the network with a head at every exit, its model in place; the scheme does not matter.
        latency: of the links between devices, in seconds.
        bandwidth: of the links, in bytes per second.
        repeats: how often everything is timed.
    """
    batch = trainer.first_batch()

    def measure(m: int, *, heads: bool) -> Costs:
        size = -(-trainer.config.optimization.batch_size // m)
        inputs, targets = (map_tensors(lambda t: t[:size], part) for part in batch)
        with trainer.autocast():
            return measure_costs(trainer.model.components, trainer.model.losses, inputs, targets, repeats, heads=heads)

    headless_updates = [component.update for component in measure(1, heads=False).components]
    input_bytes = sum(t.nbytes for t in tensors(batch[0]))

    @functools.cache
    def costs_of(m: int) -> NetworkCosts:
        costs = dataclasses.replace(measure(m, heads=True), latency=latency, bandwidth=bandwidth)
        return NetworkCosts(costs, headless_updates, input_bytes / m)

    return costs_of


def estimate_schemes(
    trainers: dict[str, Trainer], costs_of: Callable[[int], NetworkCosts], microbatches: Sequence[int]
) -> list[Estimate]:
    """Models every scheme, and beside e2e its pipelines, with each number of micro-batches that the batch allows.

    Args:
        trainers: by scheme, all of the same network.
        costs_of: what one of M micro-batches costs.
        microbatches: what is tried. A micro-batch has at least two samples, for BatchNorm needs them.
    """
    unit = statistics.mean(component.forward for component in costs_of(1).costs.components)
    found = []
    for scheme, trainer in trainers.items():
        workloads = _workloads(trainer)
        allowed = [m for m in microbatches if m == 1 or trainer.config.optimization.batch_size >= 2 * m] or [1]
        for pipeline in (INTERLOCKED, *(E2E_PIPELINES if scheme == _E2E else ())):
            counts = [pipeline.microbatches] if pipeline.microbatches else allowed
            steps = {m: estimate_step(workloads, m, costs_of(m), pipeline) for m in counts}
            best = min(steps, key=lambda m: steps[m].step_seconds)
            found += [
                Estimate(
                    name=scheme if pipeline is INTERLOCKED else f"{_E2E} {pipeline.name}",
                    scheme=scheme,
                    components=trainer.config.components,
                    microbatches=m,
                    is_best=m == best,
                    units=step.step_seconds / unit,
                    **vars(step),
                )
                for m, step in steps.items()
            ]
    return found
