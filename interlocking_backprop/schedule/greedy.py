"""Greedy list scheduling: of the actions that could run, a free rank carries out the one that a rule prefers."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from interlocking_backprop.schedule.action import PASSES, Action, Kind
from interlocking_backprop.schedule.costs import Costs
from interlocking_backprop.schedule.dependencies import Dependencies
from interlocking_backprop.schedule.rules import Rule


class GreedyScheduler:
    """Simulates ranks that choose by a rule, step after step.

    Args:
        dependencies: what must precede what.
        costs: how long everything takes.
        rule: how a rank chooses.
    """

    def __init__(self, dependencies: Dependencies, costs: Costs, rule: Rule) -> None:
        self._actions = [a for a in dependencies.owed() if not a.kind.is_communication]
        index = {action: n for n, action in enumerate(self._actions)}
        self._rank = [dependencies.placement[a.component] for a in self._actions]
        self._duration = [costs.duration(a, follows_split=a.component in dependencies.split) for a in self._actions]
        self._priority = [rule.priority(a, dependencies) for a in self._actions]
        # For each action those that need it, and how long its message is on the way to them.
        self._successors: list[list[tuple[int, float]]] = [[] for _ in self._actions]
        self._n_needed = [0] * len(self._actions)
        for n, action in enumerate(self._actions):
            for source, delay in _sources(action, dependencies, costs):
                self._successors[index[source]].append((n, delay))
                self._n_needed[n] += 1
        self._n_of_rank = Counter(self._rank)
        self._n_passes = Counter(a.component for a in self._actions if a.kind in PASSES and a.microbatch == 0)
        self._most_graphs = rule.most_graphs(dependencies.workload, dependencies.n_microbatches)

    def orders(self, n_steps: int) -> list[list[Action]]:
        """The order of each rank in the last of several steps that follow one another without a flush.

        Raises:
            ValueError: if the ranks come to wait for one another for ever.
        """
        ranks = [_Rank() for _ in self._n_of_rank]
        steps: dict[int, _Step] = {}
        events = [(0.0, r) for r in range(len(ranks))]  # the times at which a rank may find something to do
        while events:
            now, r = heapq.heappop(events)
            rank = ranks[r]
            if rank.step == n_steps or now < rank.free_at:
                continue
            if rank.step not in steps:
                steps[rank.step] = _Step(self._n_needed, self._rank)
            step = steps[rank.step]
            options = [n for n in step.waiting[r] if not self._is_blocked(self._actions[n], rank)]
            at_hand = [n for n in options if step.ready[n] <= now]
            if not at_hand:
                if options:
                    heapq.heappush(events, (min(step.ready[n] for n in options), r))
                continue
            chosen = min(at_hand, key=self._priority.__getitem__)
            step.waiting[r].remove(chosen)
            self._count_graphs(self._actions[chosen], rank)
            rank.free_at = now + self._duration[chosen]
            for n, delay in self._successors[chosen]:
                if step.satisfy(n, rank.free_at + delay):
                    step.waiting[self._rank[n]].append(n)
                    heapq.heappush(events, (step.ready[n], self._rank[n]))
            heapq.heappush(events, (rank.free_at, r))
            rank.order.append(self._actions[chosen])
            if len(rank.order) == self._n_of_rank[r]:
                rank.step += 1
                rank.order = rank.order if rank.step == n_steps else []
        if any(rank.step < n_steps for rank in ranks):
            raise ValueError("by this rule the ranks wait for one another for ever; use another one of RULES.")
        return [rank.order for rank in ranks]

    def _is_blocked(self, action: Action, rank: _Rank) -> bool:
        return action.kind is Kind.FORWARD and rank.n_alive[action.component] >= self._most_graphs

    def _count_graphs(self, action: Action, rank: _Rank) -> None:
        i, m = action.component, action.microbatch
        if action.kind is Kind.FORWARD and self._n_passes[i]:
            rank.n_alive[i] += 1
            rank.passes_left[i, m] = self._n_passes[i]
        elif action.kind in PASSES:
            rank.passes_left[i, m] -= 1
            rank.n_alive[i] -= rank.passes_left[i, m] == 0


class _Rank:
    """What a rank has come to: its step, its order in it so far, and for each component how many graphs are alive."""

    def __init__(self) -> None:
        self.step = 0
        self.free_at = 0.0
        self.order: list[Action] = []
        self.n_alive: Counter[int] = Counter()
        self.passes_left: dict[tuple[int, int | None], int] = {}


class _Step:
    """What has happened of one step, over all ranks.

    Attributes:
        ready: for each action when it can begin, as far as that is known.
        waiting: for each rank the actions that have all they need, or will have it at a known time.
    """

    def __init__(self, n_needed: Sequence[int], ranks: Sequence[int]) -> None:
        self._missing = list(n_needed)
        self.ready = [0.0] * len(n_needed)
        self.waiting: defaultdict[int, list[int]] = defaultdict(list)
        for n, count in enumerate(n_needed):
            if count == 0:
                self.waiting[ranks[n]].append(n)

    def satisfy(self, n: int, time: float) -> bool:
        """Notes that something an action needs is there from a time on; returns whether that was the last thing."""
        self.ready[n] = max(self.ready[n], time)
        self._missing[n] -= 1
        return self._missing[n] == 0


def _sources(action: Action, dependencies: Dependencies, costs: Costs) -> Iterator[tuple[Action, float]]:
    """The compute actions that an action waits for, with the time that the message of each takes."""
    rank = dependencies.placement[action.component]
    for needed in dependencies.prerequisites(action):
        if needed.kind.is_communication:
            send = needed.other_end
            yield dependencies.prerequisites(send)[0], costs.occupancy(send) + costs.latency
        elif needed.kind in (Kind.REDUCE_GRAD, Kind.GIVE) and dependencies.placement[needed.component] != rank:
            yield needed, costs.occupancy(needed) + costs.latency
        else:
            yield needed, 0.0
    # Gradients accumulate in the order of the micro-batches.
    if action.kind in (Kind.LOSS, Kind.BACKWARD_WEIGHT, Kind.FULL_BACKWARD) and action.microbatch:
        yield action._replace(microbatch=action.microbatch - 1), 0.0
