"""What a schedule takes when it is run step after step, without a flush between them: time, bubbles, memory, messages.

Each rank carries out its list in order. A send ends at once and its message arrives after the latency and its transfer;
a receive waits for it. Step t+1 of a rank follows its step t, whatever step the other ranks are at, so the ranks drift
apart as far as the messages let them, and after a few steps every step takes the same time.

Pairwise, K = 3, one micro-batch; ``F`` and ``I`` take 1, ``W`` and ``B`` 2, and the next step is in small letters:

            0              5              10
    rank 0  F0 .........W0--- f0 .........w0---
    rank 1        F0 I0 ......W0--- f0 i0 ......w0---
    rank 2           F0 B0--- .........f0 b0---
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import NamedTuple

import numpy as np

from interlocking_backprop.schedule.action import Action, Kind
from interlocking_backprop.schedule.clock import Clock, Entry, place
from interlocking_backprop.schedule.costs import Costs
from interlocking_backprop.schedule.memory import peak_memory
from interlocking_backprop.schedule.schedule import Schedule
from interlocking_backprop.schedule.validate import execution_order


class Interval(NamedTuple):
    """An action in time."""

    rank: int
    step: int
    action: Action
    start: float
    end: float


@dataclass(frozen=True)
class Simulation:
    """What `simulate` found. Times are in the unit of the costs.

    Attributes:
        step_time: the time from one step to the next, in the steady state.
        busy: for each rank the time per step in which it computes.
        peak_graphs: for each rank the most graphs (of a component and a micro-batch) alive at once.
        peak_bytes: for each rank the most bytes of saved activations, weight gradients, weights of past updates that
            graphs refer to, and network outputs that losses ask for, alive at once.
        n_messages: for each rank the messages that it sends per step.
        message_bytes: for each rank the bytes that it sends per step.
        timeline: the actions that take time, of the last steps that were simulated.
    """

    step_time: float
    busy: tuple[float, ...]
    peak_graphs: tuple[int, ...]
    peak_bytes: tuple[float, ...]
    n_messages: tuple[int, ...]
    message_bytes: tuple[float, ...]
    timeline: tuple[Interval, ...]

    @property
    def limit(self) -> float:
        """The busy time of the fullest rank: no order can be faster."""
        return max(self.busy)

    @property
    def utilization(self) -> tuple[float, ...]:
        """For each rank the share of the time in which it computes."""
        return tuple(b / self.step_time if self.step_time else 1.0 for b in self.busy)

    @property
    def bubble(self) -> float:
        """The share of all ranks' time that is idle."""
        return 1.0 - sum(self.utilization) / len(self.busy)


def simulate(schedule: Schedule, costs: Costs, max_steps: int = 200, timeline_steps: int = 3) -> Simulation:
    """Runs a schedule on a model of time.

    Args:
        schedule: a valid schedule.
        costs: what its components cost.
        max_steps: the most steps to run, if the times do not become periodic before.
        timeline_steps: the number of steps, the last ones, that the timeline shows.

    Raises:
        ScheduleError: if the schedule is in deadlock.
    """
    order = execution_order(schedule)
    clock = Clock(_program(schedule, order, costs), schedule.n_ranks)
    # The steps are shorter as long as no late credit is on its way, so what it is awaited for must repeat, too.
    ends = [np.array([*clock.now, *clock.waited_for])]
    while (period := _period(ends, clock.periods)) is None and len(ends) <= max_steps:
        clock.step()
        ends.append(np.array([*clock.now, *clock.waited_for]))
    span = period or max((len(ends) - 1) // 2, 1)
    step_time = float((ends[-1] - ends[-1 - span])[: schedule.n_ranks].max()) / span
    durations = _durations(schedule, costs)
    timeline = []
    for step in range(len(ends) - 1, len(ends) - 1 + timeline_steps):
        clock.step()
        for action, begin in zip(order, clock.begins, strict=True):
            if durations[action] > 0:
                rank = schedule.placement[action.component]
                timeline.append(Interval(rank, step, action, begin, begin + durations[action]))
    memory = [peak_memory(actions, costs, schedule.workload) for actions in schedule.actions]
    sent = [[a for a in actions for _ in range(schedule.dependencies.n_messages(a))] for actions in schedule.actions]
    return Simulation(
        step_time=step_time,
        busy=tuple(sum(durations[a] for a in actions) for actions in schedule.actions),
        peak_graphs=tuple(graphs for graphs, _ in memory),
        peak_bytes=tuple(size for _, size in memory),
        n_messages=tuple(map(len, sent)),
        message_bytes=tuple(sum(map(costs.message_bytes, actions)) for actions in sent),
        timeline=tuple(timeline),
    )


def merged_order(schedule: Schedule, costs: Costs | None = None) -> list[Action]:
    """The actions of all ranks as one list, in the order in which they begin, for a process that issues them all."""
    order = execution_order(schedule)
    costs = costs or Costs.uniform(schedule.n_components, split_weight=1.0)
    clock = Clock(_program(schedule, order, costs), schedule.n_ranks)
    for _ in range(4):
        clock.step()
    begins = zip(clock.begins, order, strict=True)
    return [
        action for _, action in sorted(begins, key=itemgetter(0))
    ]  # stable: what depends on another stays behind it


def _durations(schedule: Schedule, costs: Costs) -> dict[Action, float]:
    """How long each action keeps its rank busy."""
    split = schedule.dependencies.split
    return {a: costs.duration(a, follows_split=a.component in split) for _, a in schedule}


def _program(schedule: Schedule, order: Sequence[Action], costs: Costs) -> list[Entry]:
    """The program of a clock that carries out a schedule, messages and all.

    Args:
        schedule: the schedule.
        order: its actions in an order in which they can be carried out one by one; its places are their numbers.
        costs: what they cost.
    """
    dependencies, placement = schedule.dependencies, schedule.placement
    durations = _durations(schedule, costs)
    numbers = {action: n for n, action in enumerate(order)}
    # Messages of one rank in one direction share a link.
    links: dict[tuple[int, Kind], int] = {}
    program = []
    for n, action in enumerate(order):
        rank = placement[action.component]
        awaited = []
        for needed in dependencies.prerequisites(action):
            if placement[needed.component] != rank:
                # Updates may wait for others elsewhere without a message.
                is_message = dependencies.n_messages(needed) > 0
                before = dependencies.steps_before(action, needed)
                where = place(numbers[needed], len(order), steps_back=before, message=is_message)
                awaited.append((where, costs.latency if is_message else 0.0))
        n_messages = dependencies.n_messages(action)
        if n_messages:
            link = links.setdefault((rank, action.kind), len(links))
            transfer = n_messages * costs.occupancy(action)
            program.append(Entry(n, rank, durations[action], awaited, link, transfer))
        else:
            program.append(Entry(n, rank, durations[action], awaited))
    return program


def _period(ends: list[np.ndarray], periods: Iterable[int]) -> int | None:
    """The least number of steps after which all times have moved on alike, three times in a row, if any.

    Args:
        ends: for each step the times at which the ranks ended it, and those that later steps wait for.
        periods: that are possible, in ascending order.
    """
    for period in periods:
        if len(ends) > 4 * period + 4:
            advances = np.diff(ends[-1 - 3 * period :: period], axis=0)
            if np.allclose(advances, advances[-1].mean(), rtol=1e-9, atol=1e-12):
                return period
    return None
