"""What a schedule takes when it is run step after step, without a flush between them: time, bubbles, memory, messages.

Each rank carries out its list in order. A send ends at once and its message arrives after the latency and its transfer;
a receive waits for it. Step t+1 of a rank follows its step t, whatever the other ranks are at, so the ranks drift apart
as far as the messages let them, and after a few steps every step takes the same time.

    pairwise, K = 3, M = 1: costs F 1, I 1, W 2, B 2
      rank 0  F0 . . . . . . W0 W0 U  F0 …
      rank 1     F1 I1 . .   W1 W1    …         each rank's F(t+1) waits for its own U(t) alone
      rank 2           F2 B2 B2 …
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from interlocking_backprop.schedule.action import PASSES, Action, Kind
from interlocking_backprop.schedule.costs import Costs
from interlocking_backprop.schedule.dependencies import Dependencies
from interlocking_backprop.schedule.schedule import Schedule
from interlocking_backprop.schedule.validate import execution_order, split_components

# What needs the graph of a forward pass, or its output.
_USES = (Kind.LOSS, *PASSES)

# What sends a message, if whoever it is for is on another rank.
_SENDS = (Kind.SEND_F, Kind.SEND_B, Kind.REDUCE_GRAD)


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
        step_time: from one step to the next, in the steady state.
        busy: for each rank the time per step in which it computes.
        peak_graphs: for each rank the most graphs (of a component and a micro-batch) alive at once.
        peak_bytes: for each rank the most bytes of saved activations and weight gradients alive at once.
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
        schedule: valid.
        costs: of its components.
        max_steps: how many steps at most, if the times do not become periodic before.
        timeline_steps: how many of the last steps the timeline shows.

    Raises:
        ScheduleError: if the schedule is in deadlock.
    """
    clock = _Clock(schedule, costs)
    ends: list[np.ndarray] = [clock.now.copy()]
    while len(ends) <= max_steps and not _is_periodic(ends):
        clock.step()
        ends.append(clock.now.copy())
    span = _period(ends)
    step_time = float((ends[-1] - ends[-1 - span]).max()) / span
    timeline = [interval for _ in range(timeline_steps) for interval in clock.step()]
    memory = [_peaks(schedule, rank, costs) for rank in range(schedule.n_ranks)]
    messages = [_messages(schedule, rank, costs) for rank in range(schedule.n_ranks)]
    return Simulation(
        step_time=step_time,
        busy=tuple(sum(clock.durations[a] for a in actions) for actions in schedule.actions),
        peak_graphs=tuple(graphs for graphs, _ in memory),
        peak_bytes=tuple(size for _, size in memory),
        n_messages=tuple(n for n, _ in messages),
        message_bytes=tuple(size for _, size in messages),
        timeline=tuple(timeline),
    )


def merged_order(schedule: Schedule, costs: Costs | None = None) -> list[Action]:
    """The actions of all ranks as one list, in the order in which they begin, for a process that issues them all."""
    clock = _Clock(schedule, costs or Costs.uniform(schedule.n_components, split_weight=1.0))
    for _ in range(4):
        clock.step()
    return sorted(clock.begins, key=clock.begins.__getitem__)  # stable: what depends on another stays behind it


def durations(schedule: Schedule, costs: Costs) -> dict[Action, float]:
    """How long each action keeps its rank busy; a ``W`` behind the ``I`` of its own stream may cost less."""
    split = split_components(schedule)
    return {action: costs.duration(action, follows_split=action.component in split) for _, action in schedule}


class _Clock:
    """Carries out step after step; `now` is the time that each rank has come to, `begins` when each action began."""

    def __init__(self, schedule: Schedule, costs: Costs) -> None:
        self.durations = durations(schedule, costs)
        self.now = np.zeros(schedule.n_ranks)
        self.begins: dict[Action, float] = {}
        self._step = 0
        # Messages of one rank in one direction share a link; here is when it is free again.
        self._links: defaultdict[tuple[int, Kind], float] = defaultdict(float)
        dependencies = Dependencies(
            schedule.workload, schedule.n_microbatches, schedule.placement, split_components(schedule)
        )
        # (rank, action, its duration, the time of a message, the sends that it waits for, how many messages it sends)
        self._program = [
            (
                schedule.placement[action.component],
                action,
                self.durations[action],
                message_time(action, costs),
                _awaited(action, dependencies),
                _n_messages(action, dependencies),
            )
            for action in execution_order(schedule, dependencies)
        ]

    def step(self) -> list[Interval]:
        now = self.now
        arrivals: dict[Action, float] = {}
        intervals = []
        for rank, action, duration, transfer, awaited, n_messages in self._program:
            for send in awaited:
                now[rank] = max(now[rank], arrivals[send])
            self.begins[action] = float(now[rank])
            if n_messages:
                link = (rank, action.kind)
                begin = max(now[rank], self._links[link])
                self._links[link] = begin + n_messages * transfer.occupancy
                arrivals[action] = self._links[link] + transfer.latency
            if duration > 0:
                intervals.append(Interval(rank, self._step, action, float(now[rank]), float(now[rank] + duration)))
                now[rank] += duration
        self._step += 1
        return intervals


def _awaited(action: Action, dependencies: Dependencies) -> list[Action]:
    """The sends of other ranks that an action waits for."""
    own = dependencies.placement[action.component]
    needed = dependencies.prerequisites(action)
    return [a for a in needed if a.kind in _SENDS and dependencies.placement[a.component] != own]


def _n_messages(action: Action, dependencies: Dependencies) -> int:
    """How many messages to other ranks an action sends."""
    if action.kind is Kind.REDUCE_GRAD:
        return len(dependencies.receivers(action.component))
    return int(action.kind in _SENDS)


class MessageTime(NamedTuple):
    """The time of a message: how long it occupies its link, and how long it is on the way beside that."""

    occupancy: float
    latency: float


def message_time(action: Action, costs: Costs) -> MessageTime:
    """The transfer of a send; nothing for any other action."""
    if action.kind not in _SENDS:
        return MessageTime(0.0, 0.0)
    return MessageTime(message_bytes(action, costs) / costs.bandwidth, costs.latency)


def message_bytes(action: Action, costs: Costs) -> float:
    """The bytes of a send: an activation, a stream, as large as the activation that it is for, or shared gradients."""
    if action.kind is Kind.REDUCE_GRAD:
        return costs.components[action.component].shared_bytes
    boundary = action.component if action.kind is Kind.SEND_F else action.component - 1
    return costs.components[boundary].output_bytes


def _is_periodic(ends: list[np.ndarray]) -> bool:
    return _period(ends, default=0) > 0


def _period(ends: list[np.ndarray], default: int | None = None) -> int:
    """The least number of steps after which all ranks have advanced by the same time, three times in a row.

    If there is none yet: the second half of all steps, or the default.
    """
    n = len(ends) - 1
    for period in (1, 2, 3, 4):
        if n >= 4 * period + 4:
            advances = [ends[-1 - i * period] - ends[-1 - (i + 1) * period] for i in range(3)]
            mean = advances[0].mean()
            if all(np.allclose(a, mean, rtol=1e-9, atol=1e-12) for a in advances):
                return period
    return max(n // 2, 1) if default is None else default


def _peaks(schedule: Schedule, rank: int, costs: Costs) -> tuple[int, float]:
    """The most graphs, and the most bytes of saved activations and weight gradients, alive on a rank at once."""
    uses_left: dict[tuple[int, int], int] = defaultdict(int)
    for action in schedule.actions[rank]:
        if action.kind in _USES and action.microbatch is not None:
            uses_left[action.component, action.microbatch] += 1
    graphs: set[tuple[int, int]] = set()
    gradients: set[int] = set()
    most, most_bytes = 0, 0.0
    for i, kind, m, _ in schedule.actions[rank]:
        if kind is Kind.FORWARD and m is not None and uses_left[i, m]:
            graphs.add((i, m))
        if kind in (Kind.BACKWARD_WEIGHT, Kind.FULL_BACKWARD):
            gradients.add(i)
        most = max(most, len(graphs))
        size = sum(costs.components[j].saved_bytes for j, _ in graphs)
        most_bytes = max(most_bytes, size + sum(costs.components[j].gradient_bytes for j in gradients))
        if kind in _USES and m is not None:
            uses_left[i, m] -= 1
            if uses_left[i, m] == 0:
                graphs.discard((i, m))
        if kind is Kind.UPDATE:
            gradients.discard(i)
    return most, most_bytes


def _messages(schedule: Schedule, rank: int, costs: Costs) -> tuple[int, float]:
    dependencies = Dependencies(schedule.workload, schedule.n_microbatches, schedule.placement)
    sends = [a for a in schedule.actions[rank] for _ in range(_n_messages(a, dependencies))]
    return len(sends), sum(message_bytes(a, costs) for a in sends)
