"""What a comparison found, as plain data: the report is made from this and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

Status = Literal["finished", "diverged", "failed"]


class Point(NamedTuple):
    """A validation in the course of a run.

    Attributes:
        epoch: epochs done.
        step: training steps done.
        score: of the network's own exit.
    """

    epoch: int
    step: int
    score: float


class Twin(NamedTuple):
    """A scheme that is the same training as another one.

    Attributes:
        components: K, the number of components with which it is.
        scheme: its name.
        first: the name of the other one, under which both are shown.
    """

    components: int
    scheme: str
    first: str


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """One training run.

    Attributes:
        scheme: as it was asked for.
        components: K.
        seed: of weights, data order and everything random.
        status: how it ended.
        reason: why it did not finish; empty if it did.
        folder: of the run, relative to that of the comparison.
        lr: peak learning rate.
        aux_lr_factor: by which the heads' learning rate is multiplied.
        score: of the network on the test set; None if the run did not finish.
        exits: for each component the score of its exit on the test set; None without a head.
        curve: the validations, in order.
        steps: training steps taken.
        seconds: that the run took, with whatever else ran at the time.
    """

    scheme: str
    components: int
    seed: int
    status: Status
    reason: str
    folder: str
    lr: float
    aux_lr_factor: float
    score: float | None
    exits: tuple[float | None, ...]
    curve: tuple[Point, ...]
    steps: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Profile:
    """What a training step costs on one device, measured here with nothing else running.

    Attributes:
        name: of the scheme, or of a baseline such as "e2e, checkpointed" or "e2e, 4 micro-batches".
        scheme: whose gradients it computes.
        components: K.
        microbatches: M.
        step_seconds: median of a step.
        step_std: its standard deviation.
        n_steps: how many were timed.
        peak_bytes: of all tensors that a step makes (activations, gradients, temporaries) at most alive at once, beside
            weights and optimizer state; on an accelerator what its allocator counted.
        passes: how often each kind of action is carried out in a step, e.g. {"F": 4, "L": 3, "I": 6, "W": 4}; of a
            scheme that changes over the epochs, the mean.
    """

    name: str
    scheme: str
    components: int
    microbatches: int
    step_seconds: float
    step_std: float
    n_steps: int
    peak_bytes: float
    passes: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a training step would take with a device per component: the simulator's, from costs measured here.

    Attributes:
        name: of the scheme, or of a baseline such as "e2e 1F1B", "e2e zero-bubble", "e2e 1F1B, checkpointed".
        scheme: whose accuracy it has.
        components: K.
        microbatches: M.
        is_best: whether of all M that were tried this one gives the shortest step.
        step_seconds: of a step, in the steady state.
        units: the same in units of the mean forward pass of a component, of the whole batch.
        utilization: share of the devices' time in which they compute.
        peak_graphs: on the fullest device.
        peak_bytes: of saved activations and weight gradients on the fullest device.
        sent_bytes: by all devices together per step.
    """

    name: str
    scheme: str
    components: int
    microbatches: int
    is_best: bool
    step_seconds: float
    units: float
    utilization: float
    peak_graphs: int
    peak_bytes: float
    sent_bytes: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All that was found.

    Attributes:
        metric: name of the score, e.g. "accuracy" or "bits_per_byte".
        maximize: whether more of it is better.
        schemes: in the order in which they were asked for.
        components: the numbers of components.
        seeds: of the runs.
        batch_size: samples per step.
        settings: all flags, as they can be shown.
        environment: command, versions and hardware.
        runs: one for each scheme, number of components and seed.
        profiles: measured on one device.
        estimates: for a device per component.
        twins: the schemes that are another one by another name.
    """

    metric: str
    maximize: bool
    schemes: tuple[str, ...]
    components: tuple[int, ...]
    seeds: tuple[int, ...]
    batch_size: int
    settings: dict[str, Any]
    environment: dict[str, Any]
    runs: tuple[RunResult, ...]
    profiles: tuple[Profile, ...]
    estimates: tuple[Estimate, ...]
    twins: tuple[Twin, ...] = ()
