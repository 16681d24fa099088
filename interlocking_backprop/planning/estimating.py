"""What a training step would take with a device per component: the simulator's answer, from costs measured here."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

from interlocking_backprop.compare.results import Estimate
from interlocking_backprop.engine.tree import map_tensors, tensors
from interlocking_backprop.planning.phases import Phase, mean, phases_of
from interlocking_backprop.planning.profiling import E2E
from interlocking_backprop.schedule.costs import ComponentCosts, Costs
from interlocking_backprop.schedule.list_scheduling import list_schedule
from interlocking_backprop.schedule.rules import RULES, Rule
from interlocking_backprop.schedule.simulate import simulate
from interlocking_backprop.scheme.streams import Workload
from interlocking_backprop.training.config import TrainConfig
from interlocking_backprop.training.trainer import Trainer


class Link(NamedTuple):
    """Between two devices.

    Attributes:
        latency: seconds.
        bandwidth: bytes per second.
    """

    latency: float
    bandwidth: float


class Baseline(NamedTuple):
    """A way to pipeline end-to-end backpropagation.

    Attributes:
        name: of the estimate.
        rules: by which the order is chosen.
        microbatches: the only M that counts; 0 for all.
        checkpointed: whether components keep their inputs alone and run again in the backward pass.
    """

    name: str
    rules: Sequence[Rule]
    microbatches: int = 0
    checkpointed: bool = False


# As many graphs as there are components are what 1F1B keeps at most, and ZB-H1; ZB-H2 keeps twice as many.
_1F1B = [Rule("LIWFU", by_microbatch, split=False, window=1) for by_microbatch in (False, True)]
BASELINES = [
    Baseline("e2e one at a time", _1F1B, microbatches=1),
    Baseline("e2e 1F1B", _1F1B),
    Baseline("e2e 1F1B, checkpointed", _1F1B, checkpointed=True),
    Baseline("e2e zero-bubble", [rule for rule in RULES if rule.split and rule.window]),
]


class CostModel:
    """Costs of the components of a network, measured here, for micro-batches of any number.

    Args:
        config: of a run; its scheme does not matter.
        link: between the devices.
        repeats: how often everything is timed.
    """

    def __init__(self, config: TrainConfig, link: Link, repeats: int) -> None:
        self.batch_size = config.batch_size
        self._link, self._repeats = link, repeats
        # Heads cost time of their own, and so do their updates; the schemes differ in which heads they have.
        self._with_heads = _placed(dataclasses.replace(config, scheme=E2E, heads="all"))
        self._batch = self._with_heads.first_batch()
        self._measured: dict[int, list[ComponentCosts]] = {}
        without_heads = _placed(dataclasses.replace(config, scheme=E2E, heads="needed"))
        self._updates = [costs.update for costs in self._measure(without_heads, 1)]
        self._input_bytes = sum(t.nbytes for t in tensors(self._batch[0]))

    def of(self, workload: Workload, m: int) -> Costs:
        """What a micro-batch costs if there are M of them."""
        return Costs(
            [
                costs if has_head else dataclasses.replace(costs, update=update)
                for costs, has_head, update in zip(
                    self.components(m), [*workload.heads[:-1], False], self._updates, strict=True
                )
            ],
            latency=self._link.latency,
            bandwidth=self._link.bandwidth,
        )

    def components(self, m: int) -> list[ComponentCosts]:
        """What each component costs for one of M micro-batches, with a head at every exit."""
        if m not in self._measured:
            self._measured[m] = self._measure(self._with_heads, m)
        return self._measured[m]

    def input_bytes(self, i: int, m: int) -> float:
        """Of the input of a component for one of M micro-batches."""
        return self.components(m)[i - 1].output_bytes if i else self._input_bytes / m

    def _measure(self, trainer: Trainer, m: int) -> list[ComponentCosts]:
        size = -(-self.batch_size // m)
        inputs, targets = (map_tensors(lambda t: t[:size], part) for part in self._batch)
        with trainer.autocast():
            return list(trainer.model.measure_costs(inputs, targets, self._repeats).components)


def estimate(
    trainers: dict[str, Trainer], cost_model: CostModel, microbatches: Sequence[int], rules: Sequence[Rule] = RULES
) -> list[Estimate]:
    """Models every scheme, and beside e2e its baselines, with each number of micro-batches that the batch allows.

    Args:
        trainers: by scheme, all of the same network.
        cost_model: of that network.
        microbatches: what is tried. A micro-batch has at least two samples, for BatchNorm needs them.
        rules: by which the orders of the schemes are found.
    """
    allowed = [m for m in microbatches if m == 1 or cost_model.batch_size >= 2 * m] or [1]
    found: list[Estimate] = []
    for scheme, trainer in trainers.items():
        found += _best_marked([_estimate(scheme, scheme, trainer, cost_model, m, rules) for m in allowed])
        for baseline in BASELINES if scheme == E2E else ():
            counts = [baseline.microbatches] if baseline.microbatches else allowed
            costs_of = _checkpointed if baseline.checkpointed else None
            found += _best_marked(
                [_estimate(baseline.name, E2E, trainer, cost_model, m, baseline.rules, costs_of) for m in counts]
            )
    return found


def _estimate(
    name: str,
    scheme: str,
    trainer: Trainer,
    cost_model: CostModel,
    m: int,
    rules: Sequence[Rule],
    costs_of: Callable[[CostModel, Workload, int], Costs] | None = None,
) -> Estimate:
    phases = phases_of(trainer)
    parts = [_simulated(trainer, phase, cost_model, m, rules, costs_of) for phase in phases]
    seconds = mean(phases, [part.seconds for part in parts])
    unit = statistics.mean(c.forward for c in cost_model.components(1))
    return Estimate(
        name=name,
        scheme=scheme,
        components=trainer.config.components,
        microbatches=m,
        is_best=False,
        step_seconds=seconds,
        units=seconds / unit,
        utilization=mean(phases, [part.busy_share * part.seconds for part in parts]) / seconds,
        peak_graphs=max(part.peak_graphs for part in parts),
        peak_bytes=max(part.peak_bytes for part in parts),
        sent_bytes=mean(phases, [part.sent_bytes for part in parts]),
    )


class _Simulated(NamedTuple):
    seconds: float
    busy_share: float
    peak_graphs: int
    peak_bytes: float
    sent_bytes: float


def _simulated(
    trainer: Trainer,
    phase: Phase,
    cost_model: CostModel,
    m: int,
    rules: Sequence[Rule],
    costs_of: Callable[[CostModel, Workload, int], Costs] | None,
) -> _Simulated:
    trainer.model.set_scheme(phase.scheme)
    workload = trainer.model.schedule.workload
    costs = cost_model.of(workload, m) if costs_of is None else costs_of(cost_model, workload, m)
    k = workload.n_components
    found = simulate(list_schedule(workload, m, range(k), costs, rules=rules), costs, timeline_steps=0)
    # A component that runs again in the backward pass has its whole graph there for a while.
    again = [0.0] * k if costs_of is None else [c.saved_bytes for c in cost_model.components(m)]
    return _Simulated(
        seconds=found.step_time,
        busy_share=1 - found.bubble,
        peak_graphs=max(found.peak_graphs),
        peak_bytes=max(a + b for a, b in zip(found.peak_bytes, again, strict=True)),
        sent_bytes=sum(found.message_bytes),
    )


def _checkpointed(cost_model: CostModel, workload: Workload, m: int) -> Costs:
    """Each backward pass begins with another forward pass; of the first one the input alone is kept."""
    costs = cost_model.of(workload, m)
    components = [
        dataclasses.replace(
            c,
            backward_weight=c.backward_weight + c.forward,
            full_backward=c.full_backward + c.forward,
            saved_bytes=cost_model.input_bytes(i, m),
        )
        for i, c in enumerate(costs.components)
    ]
    return dataclasses.replace(costs, components=components)


def _best_marked(estimates: Sequence[Estimate]) -> list[Estimate]:
    best = min(estimates, key=lambda e: e.step_seconds)
    return [dataclasses.replace(e, is_best=e is best) for e in estimates]


def _placed(config: TrainConfig) -> Trainer:
    trainer = Trainer(config)
    trainer.place()
    return trainer
