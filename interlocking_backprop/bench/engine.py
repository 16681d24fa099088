"""How close the engine comes to the limit: measured units per step against the simulator's, on emulated components."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor, nn

from interlocking_backprop.bench.bare import bare_times
from interlocking_backprop.bench.emulated import EmulatedComponent, emulated_costs, wake_on_time
from interlocking_backprop.bench.peers import PEERS, peer_times
from interlocking_backprop.bench.processes import Ranks
from interlocking_backprop.build import build_model
from interlocking_backprop.model import InterlockingBackpropModel
from interlocking_backprop.schedule.least_delays import least_delays
from interlocking_backprop.schedule.list_scheduling import list_schedule
from interlocking_backprop.schedule.rules import RULES
from interlocking_backprop.schedule.schedule import Schedule
from interlocking_backprop.schedule.simulate import simulate
from interlocking_backprop.scheme.coefficients import Scheme
from interlocking_backprop.scheme.streams import Workload
from interlocking_backprop.scheme.text import parse_scheme

ENGINE, BARE = "engine", "bare loop"


@dataclass(frozen=True)
class Case:
    """What is measured.

    Attributes:
        runner: "engine", "bare loop", or one of PyTorch's schedules.
        scheme: as text.
        n_components: K, each on a rank.
        n_microbatches: M.
    """

    runner: str
    scheme: str
    n_components: int
    n_microbatches: int

    @property
    def parsed(self) -> Scheme:
        """The scheme itself; ``~`` stands for the least delays with so many micro-batches."""
        return parse_scheme(self.scheme, self.n_components, partial(least_delays, n_microbatches=self.n_microbatches))


@dataclass(frozen=True)
class Measurement:
    """Times are in units for one micro-batch: the time of a component's forward pass.

    Attributes:
        case: what was measured.
        units: the time from one step to the next, the mean over the steps.
        std: its standard deviation over the steps.
        n_steps: how many steps were counted.
        limit: the time that the simulator gives for the schedule; for PyTorch's schedules that of the engine's.
        busy: the busy time of the fullest component: no order is faster.
        cpu_seconds: CPU time of a rank per step, the mean over the ranks.
    """

    case: Case
    units: float
    std: float
    n_steps: int
    limit: float
    busy: float
    cpu_seconds: float

    @property
    def ratio(self) -> float:
        """Measured over limit."""
        return self.units / self.limit


def cases(
    schemes: Sequence[str], components: Sequence[int], microbatches: Sequence[int], *, peers: bool, bare: bool
) -> list[Case]:
    """All combinations; PyTorch's schedules beside end-to-end backpropagation."""
    found = []
    for k in components:
        for scheme in schemes:
            for m in microbatches:
                found.append(Case(ENGINE, scheme, k, m))
                if bare and not found[-1].parsed.max_delay:  # it knows no batches of the past
                    found.append(Case(BARE, scheme, k, m))
                if peers and scheme == "e2e":
                    found += [Case(peer, scheme, k, m) for peer in PEERS if peer != "torch 1F1B" or m >= k]
    return found


def measure(cases: Sequence[Case], unit: float, n_steps: int) -> list[Measurement]:
    """Measures cases of one number of components in the same processes.

    Args:
        cases: all with the same ``n_components``.
        unit: seconds of a component's forward pass of a micro-batch.
        n_steps: steps that count; those before the steady state come on top.
    """
    with Ranks(cases[0].n_components, _measure_on_rank, list(cases), unit, n_steps) as ranks:
        per_rank = ranks.results(timeout=3600)
    return [_combined(case, [times[n] for times in per_rank], unit) for n, case in enumerate(cases)]


def _combined(case: Case, times: Sequence[tuple[list[float], float]], unit: float) -> Measurement:
    k, m = case.n_components, case.n_microbatches
    # In the steady state all ranks keep the same pace; the last one's steps are those of the whole.
    ends, _ = times[-1]
    steps = [(b - a) / unit / m for a, b in itertools.pairwise(ends)]
    pace = max((ends[-1] - ends[0]) for ends, _ in times) / (len(ends) - 1) / unit / m
    workload = Workload.of(case.parsed)
    simulation = simulate(_schedule(case, workload), emulated_costs(k), timeline_steps=0)
    return Measurement(
        case=case,
        units=pace,
        std=statistics.stdev(steps) if len(steps) > 1 else 0.0,
        n_steps=len(steps),
        limit=simulation.step_time / m,
        busy=simulation.limit / m,
        cpu_seconds=statistics.mean(cpu for _, cpu in times),
    )


def _schedule(case: Case, workload: Workload) -> Schedule:
    rules = [rule for rule in RULES if not rule.split] if case.runner == BARE else RULES
    k = case.n_components
    return list_schedule(workload, case.n_microbatches, range(k), emulated_costs(k), rules=rules)


def _measure_on_rank(
    rank: int, size: int, cases: Sequence[Case], unit: float, n_steps: int
) -> list[tuple[list[float], float]]:
    """For each case when its counted steps ended, and the CPU seconds of a step."""
    wake_on_time()
    results = []
    for case in cases:
        warmup = size + 2
        dist.barrier()
        cpu = time.process_time()
        if case.runner == ENGINE:
            ends = _engine_times(case, rank, unit, warmup + n_steps)
        elif case.runner == BARE:
            schedule = _schedule(case, Workload.of(case.parsed))
            ends = bare_times(schedule, rank, unit, warmup + n_steps)
        else:
            ends = peer_times(case.runner, rank, size, case.n_microbatches, unit, warmup + n_steps)
        results.append((ends[warmup - 1 :], (time.process_time() - cpu) / (warmup + n_steps)))
    return results


def _engine_times(case: Case, rank: int, unit: float, n_steps: int) -> list[float]:
    model = emulated_model(case.scheme, case.n_components, case.n_microbatches, unit)
    model.enable_model_parallel(costs=emulated_costs(case.n_components, unit))
    batch = torch.zeros(case.n_microbatches, 8) if rank == 0 else None
    ends = []
    for _ in range(n_steps):
        model.training_step(batch, batch)
        ends.append(time.perf_counter())
    model.shutdown()
    return ends


def emulated_model(scheme: str, k: int, m: int, unit: float) -> InterlockingBackpropModel:
    """A model of emulated components, with heads that cost nothing."""

    def loss(output: Tensor, target: Tensor) -> Tensor:
        return output.mean()

    main_nets = [EmulatedComponent(unit) for _ in range(k)]
    parsed = Case(ENGINE, scheme, k, m).parsed
    heads = [nn.Identity() if parsed.uses[:, j].any() else None for j in range(k - 1)]
    return build_model(main_nets, heads, parsed, lambda p: torch.optim.SGD(p, lr=0.0), loss, n_microbatches=m)
