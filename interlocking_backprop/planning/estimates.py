"""What a training step would take with a device per component: the simulator's answer, from costs measured on one.

Devices are as fast as the one on which the costs were measured and all alike. Reading data, the interpreter and the
launch of kernels cost nothing beyond what is in the measured costs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from interlocking_backprop.schedule.costs import Costs
from interlocking_backprop.schedule.list_scheduling import list_schedule
from interlocking_backprop.schedule.rules import RULES, Rule
from interlocking_backprop.schedule.simulate import simulate
from interlocking_backprop.scheme.streams import Workload


class Pipeline(NamedTuple):
    """A way to pipeline training.

    Attributes:
        name: that the field knows it by.
        rules: by which the order of actions is chosen.
        microbatches: the only number of micro-batches that counts; 0 for any.
        checkpointed: whether components keep their inputs alone and run again in the backward pass.
    """

    name: str
    rules: Sequence[Rule] = RULES
    microbatches: int = 0
    checkpointed: bool = False


INTERLOCKED = Pipeline("interlocked")
"""The orders that this library looks for, of any scheme."""

# As many graphs as there are components are what 1F1B keeps at most, and ZB-H1; ZB-H2 keeps twice as many.
_1F1B = [Rule("LIWFU", by_microbatch, split=False, window=1) for by_microbatch in (False, True)]

E2E_PIPELINES = (
    Pipeline("one at a time", _1F1B, microbatches=1),
    Pipeline("1F1B", _1F1B),
    Pipeline("1F1B, checkpointed", _1F1B, checkpointed=True),
    Pipeline("zero-bubble", [rule for rule in RULES if rule.split and rule.window]),
)
"""How end-to-end backpropagation is pipelined elsewhere."""


@dataclass(frozen=True)
class NetworkCosts:
    """What one of M micro-batches costs in each component of a network, whichever scheme trains it.

    Attributes:
        costs: with a head at every exit, and of the links between devices.
        headless_updates: the seconds of each component's update without its head.
        input_bytes: of the network's input.
    """

    costs: Costs
    headless_updates: Sequence[float]
    input_bytes: float

    def of(self, workload: Workload, *, checkpointed: bool = False) -> Costs:
        """The costs of a workload, which may have no head at some exits.

        Args:
            workload: of this network.
            checkpointed: whether each backward pass begins with another forward pass, and of the first one the input
                alone is kept.
        """
        components, input_bytes = [], self.input_bytes
        heads = [*workload.heads[:-1], False]
        for component, has_head, update in zip(self.costs.components, heads, self.headless_updates, strict=True):
            c = component if has_head else dataclasses.replace(component, update=update)
            if checkpointed:
                c = dataclasses.replace(
                    c,
                    backward_weight=c.backward_weight + c.forward,
                    full_backward=c.full_backward + c.forward,
                    saved_bytes=input_bytes,
                )
            components.append(c)
            input_bytes = component.output_bytes
        return dataclasses.replace(self.costs, components=components)


@dataclass(frozen=True, kw_only=True)
class StepEstimate:
    """What a training step would cost in the steady state; of several phases the mean, by their shares.

    Attributes:
        step_seconds: of a step.
        utilization: share of the devices' time in which they compute.
        peak_graphs: the most graphs of a micro-batch alive on a device, in any phase.
        peak_bytes: the most bytes of saved activations and weight gradients on a device, in any phase.
        sent_bytes: by all devices together per step.
    """

    step_seconds: float
    utilization: float
    peak_graphs: int
    peak_bytes: float
    sent_bytes: float


def estimate_step(
    phases: Sequence[tuple[Workload, float]],
    n_microbatches: int,
    network: NetworkCosts,
    pipeline: Pipeline = INTERLOCKED,
) -> StepEstimate:
    """Finds the order of actions for a device per component, and simulates it.

    Args:
        phases: the workloads of a training, each with its share of the steps.
        n_microbatches: M.
        network: what one of M micro-batches costs.
        pipeline: how the order is chosen.
    """
    shares = [share for _, share in phases]
    found = []
    for workload, _ in phases:
        costs = network.of(workload, checkpointed=pipeline.checkpointed)
        placement = range(workload.n_components)
        schedule = list_schedule(workload, n_microbatches, placement, costs, rules=pipeline.rules)
        found.append(simulate(schedule, costs, timeline_steps=0))
    # A component that runs again in the backward pass has its whole graph there for a while.
    again = [c.saved_bytes if pipeline.checkpointed else 0.0 for c in network.costs.components]

    def mean(values: Sequence[float]) -> float:
        return float(np.average(values, weights=shares))

    seconds = mean([s.step_time for s in found])
    return StepEstimate(
        step_seconds=seconds,
        utilization=mean([(1 - s.bubble) * s.step_time for s in found]) / seconds,
        peak_graphs=max(max(s.peak_graphs) for s in found),
        peak_bytes=max(a + b for s in found for a, b in zip(s.peak_bytes, again, strict=True)),
        sent_bytes=mean([sum(s.message_bytes) for s in found]),
    )
