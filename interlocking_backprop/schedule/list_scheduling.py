"""The order for several ranks: a static list for each, found by list scheduling on the cost model.

A rank that is free takes, of the actions that could run, the one that comes first by a rule; played for several steps
in a row, this gives an order for each rank. No rule is best for every scheme, depth and latency, so a few are tried and
the order that the simulator likes best is kept:

- forward first (``L F I W``): feeds the ranks above early; input gradients next, because others wait for them, weight
  gradients last, as filler. With two micro-batches it reaches the limit for N-wise schemes of any depth;
- credit first (``L I F W``): serves the ranks below early, as zero-bubble schedules do;
- backward first (``L I W F``): as few graphs alive as possible, as 1F1B does.

Each with the joint backward pass whole or in two (input gradients early, weight gradients as filler), and with more or
fewer graphs alive at a time.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from interlocking_backprop.schedule.action import PASSES, Action, Kind
from interlocking_backprop.schedule.costs import Costs
from interlocking_backprop.schedule.dependencies import Dependencies
from interlocking_backprop.schedule.messages import with_messages
from interlocking_backprop.schedule.schedule import Schedule
from interlocking_backprop.schedule.simulate import message_time, simulate
from interlocking_backprop.scheme.streams import Workload


@dataclass(frozen=True)
class Rule:
    """How a free rank chooses.

    Attributes:
        order: the kinds, the one to prefer first. ``B`` counts as ``I`` where a rank below waits for its stream, else
            as ``W``.
        by_microbatch: prefers the earlier micro-batch to the better kind.
        split: carries joint backward passes out in two.
        window: bounds the graphs that a component keeps alive, as a multiple of the scheme's reach; 0 for no bound. In
            e2e, 1 is what 1F1B and ZB-H1 keep at most, 2 what ZB-H2 does (Qi et al., ICLR 2024).
    """

    order: str
    by_microbatch: bool
    split: bool
    window: int

    def most_graphs(self, workload: Workload, n_microbatches: int) -> int:
        """The most graphs that a component may keep alive: with more, it begins no forward pass."""
        reaches = [p.last_loss - i + 1 for i, work in enumerate(workload.components) for p in work.passes]
        bound = self.window * max(reaches, default=1)
        return min(bound, n_microbatches) if bound else n_microbatches


# In the order of the memory that they need, so that the search ends with the leanest of those that reach the limit.
RULES = [
    Rule(order, by_microbatch, split, window)
    for window, by_microbatch in ((1, False), (1, True), (2, False), (0, False))
    for order in ("LFIWU", "LIFWU", "LIWFU")
    for split in (True, False)
]


def list_schedule(
    workload: Workload,
    n_microbatches: int,
    placement: Sequence[int],
    costs: Costs | None = None,
    max_graphs: int | None = None,
    rules: Sequence[Rule] = RULES,
) -> Schedule:
    """The best order found for a workload on several ranks.

    Args:
        workload: the scheme and the network.
        n_microbatches: M.
        placement: for each component its rank.
        costs: of the components; by default all equal, 1 for ``F`` and ``I``, 2 for ``W`` and ``B``.
        max_graphs: the most graphs, of a component and a micro-batch each, that a rank may keep alive.
        rules: what is tried.

    Returns:
        The schedule with the shortest step; of equals (to 0.1 %) the one with the fewest graphs alive.

    Raises:
        ValueError: if no order keeps so few graphs alive.
    """
    costs = costs or Costs.uniform(workload.n_components, split_weight=1.0)
    whole = Dependencies(workload, n_microbatches, tuple(placement))
    busy: defaultdict[int, float] = defaultdict(float)
    for action in whole.owed():
        busy[placement[action.component]] += costs.duration(action)
    best: tuple[float, int, Schedule] | None = None
    leanest: int | None = None
    tried: set[tuple[str, bool, bool, int]] = set()
    for rule in rules:
        key = (rule.order, rule.by_microbatch, rule.split, rule.most_graphs(workload, n_microbatches))
        if key in tried:
            continue
        tried.add(key)
        schedule = _order(workload, n_microbatches, tuple(placement), costs, rule)
        simulation = simulate(schedule, costs, timeline_steps=0)
        time, peak = simulation.step_time, max(simulation.peak_graphs)
        leanest = peak if leanest is None else min(leanest, peak)
        if max_graphs is not None and peak > max_graphs:
            continue
        if best is None or time < best[0] * 0.999 or (time <= best[0] * 1.001 and peak < best[1]):
            best = (time, peak, schedule)
        if time <= max(busy.values()) * 1.001:
            break  # the rank that has the most to do is never idle
    if best is None:
        raise ValueError(
            f"max_graphs is {max_graphs}, but scheme {workload.scheme.name!r} with {n_microbatches} micro-batches "
            f"keeps at least {leanest} graphs alive on a rank; allow so many, or use a shorter horizon."
        )
    return best[2]


def _order(workload: Workload, n_microbatches: int, placement: tuple[int, ...], costs: Costs, rule: Rule) -> Schedule:
    """The order that a rule leads to, once the steps follow one another steadily."""
    joint = (i for i, w in enumerate(workload.components) if w.weight_pass is not None and w.weight_pass.kind == "B")
    split = frozenset(joint) if rule.split else frozenset()
    dependencies = Dependencies(workload, n_microbatches, placement, split)
    orders = Game(dependencies, costs, rule).play(n_steps=6)
    return Schedule(workload, n_microbatches, placement, with_messages(orders, dependencies))


class Game:
    """Ranks that choose greedily, step after step.

    Args:
        dependencies: what must precede what.
        costs: how long everything takes.
        rule: how a rank chooses.
    """

    def __init__(self, dependencies: Dependencies, costs: Costs, rule: Rule) -> None:
        self._placement = dependencies.placement
        self._actions = [a for a in dependencies.owed() if not a.kind.is_communication]
        index = {action: n for n, action in enumerate(self._actions)}
        self._rank = [self._placement[a.component] for a in self._actions]
        self._duration = [costs.duration(a, follows_split=a.component in dependencies.split) for a in self._actions]
        self._priority = [_priority(a, dependencies, rule) for a in self._actions]
        # For each action what it leads to, and how long the message takes that goes there.
        self._successors: list[list[tuple[int, float]]] = [[] for _ in self._actions]
        self._n_prerequisites = [0] * len(self._actions)
        for n, action in enumerate(self._actions):
            for source, delay in _sources(action, dependencies, costs):
                self._successors[index[source]].append((n, delay))
                self._n_prerequisites[n] += 1
        self._n_of_rank = Counter(self._rank)
        self._n_passes = Counter(a.component for a in self._actions if a.kind in PASSES and a.microbatch == 0)
        self._most_graphs = rule.most_graphs(dependencies.workload, dependencies.n_microbatches)

    def play(self, n_steps: int) -> list[list[Action]]:
        """The order of each rank in the last of several steps, played without a flush between them.

        Raises:
            ValueError: if the rule leads nowhere.
        """
        players = [_Player() for _ in self._n_of_rank]
        steps: dict[int, _Step] = {}
        events = [(0.0, rank) for rank in range(len(players))]
        while events:
            now, rank = heapq.heappop(events)
            player = players[rank]
            if player.step == n_steps or now < player.free_at:
                continue
            if player.step not in steps:
                steps[player.step] = _Step(self._n_prerequisites, self._rank)
            step = steps[player.step]
            chosen, wake = self._choose(step, rank, player, now)
            if chosen is None:
                if wake is not None:
                    heapq.heappush(events, (wake, rank))
                continue
            step.waiting[rank].remove(chosen)
            self._count_graphs(self._actions[chosen], player)
            player.free_at = now + self._duration[chosen]
            for n, delay in self._successors[chosen]:
                if step.satisfy(n, player.free_at + delay):
                    step.waiting[self._rank[n]].append(n)
                    heapq.heappush(events, (step.ready[n], self._rank[n]))
            heapq.heappush(events, (player.free_at, rank))
            player.order.append(self._actions[chosen])
            if len(player.order) == self._n_of_rank[rank]:
                player.step += 1
                player.orders.append(player.order)
                player.order = []
        if any(player.step < n_steps for player in players):
            raise ValueError("the rule leads to a deadlock")
        return [player.orders[-1] for player in players]

    def _choose(self, step: _Step, rank: int, player: _Player, now: float) -> tuple[int | None, float | None]:
        """The action to take now, or else the time at which there may be one."""
        options = [n for n in step.waiting[rank] if not self._is_blocked(self._actions[n], player)]
        at_hand = [n for n in options if step.ready[n] <= now]
        if at_hand:
            return min(at_hand, key=self._priority.__getitem__), None
        return None, min((step.ready[n] for n in options), default=None)

    def _is_blocked(self, action: Action, player: _Player) -> bool:
        i = action.component
        return action.kind is Kind.FORWARD and player.alive[i] >= self._most_graphs

    def _count_graphs(self, action: Action, player: _Player) -> None:
        i, m = action.component, action.microbatch
        if action.kind is Kind.FORWARD and self._n_passes[i]:
            player.alive[i] += 1
            player.passes_left[i, m] = self._n_passes[i]
        elif action.kind in PASSES:
            player.passes_left[i, m] -= 1
            player.alive[i] -= player.passes_left[i, m] == 0


class _Player:
    """A rank in the game."""

    def __init__(self) -> None:
        self.step = 0
        self.free_at = 0.0
        self.order: list[Action] = []
        self.orders: list[list[Action]] = []
        self.alive: Counter[int] = Counter()
        self.passes_left: dict[tuple[int, int | None], int] = {}


class _Step:
    """What has happened of one step: the prerequisites that each action misses, and when it can begin."""

    def __init__(self, n_prerequisites: Sequence[int], ranks: Sequence[int]) -> None:
        self._missing = list(n_prerequisites)
        self.ready = [0.0] * len(n_prerequisites)
        self.waiting: defaultdict[int, list[int]] = defaultdict(list)
        for n, count in enumerate(n_prerequisites):
            if count == 0:
                self.waiting[ranks[n]].append(n)

    def satisfy(self, n: int, time: float) -> bool:
        """Notes that a prerequisite is there from a time on; whether it was the last one."""
        self.ready[n] = max(self.ready[n], time)
        self._missing[n] -= 1
        return self._missing[n] == 0


def _priority(action: Action, dependencies: Dependencies, rule: Rule) -> tuple[int, ...]:
    if action.kind is Kind.REDUCE_GRAD:
        return (-1, action.component)  # takes no time, and others wait for it
    kind = action.kind.value
    if kind == "B":
        kind = "I" if action.component > 0 and dependencies.crosses(action.component - 1) else "W"
    m = -1 if action.microbatch is None else action.microbatch
    place = rule.order.index(kind)
    # On a rank with several components the upper one goes first backward: its credit is what the lower one waits for.
    depth = action.component if kind in "FL" else -action.component
    first = (m, place) if rule.by_microbatch else (place, m)
    return (*first, depth, action.stream or 0)


def _sources(action: Action, dependencies: Dependencies, costs: Costs) -> Iterator[tuple[Action, float]]:
    """The compute actions that an action waits for, with the time that each one's message takes."""
    own = dependencies.placement[action.component]
    for needed in dependencies.prerequisites(action):
        if needed.kind.is_communication:
            send = dependencies.prerequisites(needed)[0]
            yield dependencies.prerequisites(send)[0], sum(message_time(send, costs))
        elif needed.kind is Kind.REDUCE_GRAD and dependencies.placement[needed.component] != own:
            yield needed, sum(message_time(needed, costs))
        else:
            yield needed, 0.0
    # Gradients accumulate in the order of the micro-batches.
    if action.kind in (Kind.LOSS, Kind.BACKWARD_WEIGHT, Kind.FULL_BACKWARD) and action.microbatch:
        yield action._replace(microbatch=action.microbatch - 1), 0.0
