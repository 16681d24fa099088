"""Greedy list scheduling: of the actions that could run, a free rank carries out the one that a rule prefers."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from interlocking_backprop.schedule.action import PASSES, Kind
from interlocking_backprop.schedule.clock import TOLERANCE, advances
from interlocking_backprop.schedule.precedence import Precedence
from interlocking_backprop.schedule.rules import Rule


class GreedyStep(NamedTuple):
    """A step of ranks that choose by a rule.

    Attributes:
        order: the numbers of all actions and joins, in an order in which they can be carried out one by one; those of a
            rank are in the order that it has chosen.
        times: when each action and join ended.
        ends: when each rank ended the step.
    """

    order: list[int]
    times: list[float]
    ends: list[float]


class GreedyScheduler:
    """Ranks that choose by a rule, step after step.

    Args:
        precedence: what waits for what.
        rule: how a rank chooses.

    Attributes:
        was_held_up: whether a forward pass had to wait until fewer graphs were alive.
    """

    def __init__(self, precedence: Precedence, rule: Rule) -> None:
        self.was_held_up = False
        self._precedence = precedence
        dependencies, actions = precedence.dependencies, precedence.actions
        m = dependencies.n_microbatches
        self._most_graphs = rule.most_graphs(dependencies.workload, m)
        # The place of each action in the order of preference: ranks compare places.
        keys = [rule.priority(action, dependencies) for action in actions]
        self._preferred = sorted(range(len(actions)), key=keys.__getitem__)
        self._place = [0] * len(actions)
        for place, n in enumerate(self._preferred):
            self._place[n] = place
        # Late passes keep graphs of several batches alive, and to wait for their end could be to wait for ever.
        self._is_bounded = self._most_graphs < m and not dependencies.ages
        self._component = [a.component for a in actions]
        self._is_forward = [a.kind is Kind.FORWARD for a in actions]
        self._is_pass = [a.kind in PASSES for a in actions]
        self._n_passes = [0] * (dependencies.workload.n_components * m)
        for graph, is_pass in zip(precedence.graph, self._is_pass, strict=True):
            self._n_passes[graph] += is_pass

    def run(self, n_steps: int) -> GreedyStep:
        """The last of several steps that follow one another without a flush.

        What a step comes to depends on when its ranks begin it, and so it is the last one already if these times have
        all moved on alike since the step before: those to come are the same.

        Raises:
            ValueError: if the ranks come to wait for one another for ever.
        """
        across = [(source, back) for _, source, back, _ in self._precedence.across]
        most_back = max((back for _, back in across), default=0)
        past: list[list[float]] = []  # the times of the steps so far
        begins = state = [0.0] * self._precedence.n_ranks
        while True:
            step = self._step(begins, past)
            past.append(step.times)
            waited_for = [past[-b][n] for n, back in across if back <= len(past) for b in range(1, back + 1)]
            before, state = state, [*step.ends, *waited_for]
            if len(past) == n_steps:
                return step
            if len(past) > most_back:
                least, most = advances(before, state)
                if most - least <= TOLERANCE * most:
                    return step
            begins = step.ends

    def _step(self, begins: Sequence[float], past: Sequence[Sequence[float]]) -> GreedyStep:
        """One step.

        Args:
            begins: when each rank begins it.
            past: the times of the steps before.
        """
        precedence, preferred, place = self._precedence, self._preferred, self._place
        rank, duration, followers = precedence.rank, precedence.duration, precedence.followers
        n_actions = len(precedence.actions)
        missing = precedence.n_awaited.copy()
        ready = [0.0] * len(rank)
        for n, source, steps_back, delay in precedence.across:
            if steps_back <= len(past):
                ready[n] = max(ready[n], past[-steps_back][source] + delay)
        times = [0.0] * len(rank)
        free = list(begins)
        at_hand: list[list[int]] = [[] for _ in free]  # places of the actions that a rank could carry out next
        coming: list[list[tuple[float, int]]] = [[] for _ in free]  # of those that it could from a time on
        events = [(time, r) for r, time in enumerate(free)]  # the times at which a rank may find something to do
        for n in range(n_actions):
            if missing[n] == 0:
                coming[rank[n]].append((ready[n], place[n]))
                events.append((ready[n], rank[n]))
        for heap in (events, *coming):
            heapify(heap)
        alive = [0] * precedence.dependencies.workload.n_components
        passes_left = self._n_passes.copy()
        held_up: list[list[int]] = [[] for _ in alive]  # places of forward passes for which too many graphs are alive
        order: list[int] = []
        while events:
            now, r = heappop(events)
            if now < free[r]:
                continue
            here, later = at_hand[r], coming[r]
            while later and later[0][0] <= now:
                heappush(here, heappop(later)[1])
            while here:
                chosen = preferred[heappop(here)]
                if not self._is_bounded or not self._is_forward[chosen]:
                    break
                i = self._component[chosen]
                if alive[i] < self._most_graphs:
                    break
                held_up[i].append(place[chosen])
                self.was_held_up = True
            else:
                continue
            if self._is_bounded:
                i, graph = self._component[chosen], precedence.graph[chosen]
                if self._is_forward[chosen]:
                    alive[i] += passes_left[graph] > 0
                elif self._is_pass[chosen]:
                    passes_left[graph] -= 1
                    if passes_left[graph] == 0:
                        alive[i] -= 1
                        while held_up[i]:
                            heappush(here, held_up[i].pop())
            free[r] = times[chosen] = end = now + duration[chosen]
            heappush(events, (end, r))
            done = [chosen]
            for source in done:
                order.append(source)
                for n, delay in followers[source]:
                    time = times[source] + delay
                    if time > ready[n]:
                        ready[n] = time
                    else:
                        time = ready[n]
                    missing[n] -= 1
                    if missing[n]:
                        continue
                    if n >= n_actions:  # a join
                        times[n] = time
                        done.append(n)
                        continue
                    q = rank[n]
                    if time < free[q] or (q == r and time == end):
                        heappush(at_hand[q], place[n])  # there when the rank is free
                    else:
                        heappush(coming[q], (time, place[n]))
                        heappush(events, (time, q))
        if len(order) < len(rank):
            raise ValueError("by this rule the ranks wait for one another for ever; use another one of RULES.")
        return GreedyStep(order, times, free)
