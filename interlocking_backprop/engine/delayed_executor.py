"""Carries out schedules in which credit comes late: passes of earlier batches, and gradients for later updates.

Each batch has a state of its own, which stays until the last of its passes. An action of age d belongs to the state of
d steps ago; while there is none, at the beginning, it is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from interlocking_backprop.engine.executor import Executor
from interlocking_backprop.engine.graph import Graph
from interlocking_backprop.engine.last_uses import pass_of
from interlocking_backprop.engine.message import Transport
from interlocking_backprop.engine.past_weights import PastWeights, move
from interlocking_backprop.engine.state import Place, State
from interlocking_backprop.schedule.action import PASSES, Action, Kind
from interlocking_backprop.scheme.streams import Pass, Workload


def executor_of(actions: Sequence[Action], workload: Workload, *others: Any) -> Executor:
    """The executor that a workload needs; the arguments are those of `Executor`."""
    is_delayed = workload.max_delay > 0 or workload.carried
    return (DelayedExecutor if is_delayed else Executor)(actions, workload, *others)


class DelayedExecutor(Executor):
    """An executor of a workload that delays credit; the arguments are those of `Executor`."""

    is_delayed = True

    def __init__(self, actions: Sequence[Action], workload: Workload, *others: Any) -> None:
        self._reach = max((action.age for action in actions), default=0)
        self._outliving = {action.component for action in actions if action.age}
        self._reduced = {action.component for action in actions if action.kind is Kind.REDUCE_GRAD}
        self._under_way: dict[int, State] = {}
        self._step = 0
        super().__init__(actions, workload, *others)

    @property
    def ages(self) -> frozenset[int]:
        """How many steps ago, seen from the next one, the batches were of which passes are left."""
        return frozenset(self._step - step for step in self._under_way)

    def settle_step(self) -> None:
        """Carries out what the next step would do for batches of the past, and no more: nothing is updated."""
        with self._attended(max(state.batch.n_microbatches for state in self._under_way.values())):
            self._carry_out({})

    def _abandon(self) -> None:
        super()._abandon()
        self._under_way.clear()

    def _carry_out(self, states: Mapping[int, State]) -> None:
        if states:
            self._step = states[0].batch.step
            self._under_way[self._step] = states[0]
        super()._carry_out({self._step - step: state for step, state in self._under_way.items()})
        self._under_way.pop(self._step - self._reach, None)
        self._step += 1

    def _made_ready(
        self, action: Action, last_uses: Mapping[Action, Sequence[int]], transport: Transport | None
    ) -> Callable[[State], None]:
        ready = super()._made_ready(action, last_uses, transport)
        i, m = action.component, action.microbatch
        if action.kind in PASSES:
            assert m is not None
            if action.kind is not Kind.BACKWARD_INPUT:
                ready = partial(self._weight_gradient, (i, m), pass_of(action, self._work[i]), ready)
            if action.age:
                ready = partial(self._with_past_weights, i, ready)
        return ready

    def _forward(self, place: Place, state: State) -> None:
        i, _ = place
        if i not in self._outliving:
            super()._forward(place, state)
            return
        if i not in state.past_weights:
            state.past_weights[i] = PastWeights(self._components[i].main_parameters())
        with state.past_weights[i].saved():
            super()._forward(place, state)

    def _with_past_weights(self, i: int, carry_out: Callable[[State], None], state: State) -> None:
        with state.past_weights[i].restored():
            carry_out(state)

    def _weight_gradient(self, place: Place, done: Pass, carry_out: Callable[[State], None], state: State) -> None:
        i, m = place
        component, weights = self._components[i], done.weights
        assert weights is not None
        component.exchange_gradients(state.weight_gradients.pop((i, weights), None))
        carry_out(state)
        gradients = component.exchange_gradients(None)
        if m + 1 < state.batch.n_microbatches:
            state.weight_gradients[i, weights] = gradients
        else:
            component.credit.add(state.batch.step, weights, done.uses, gradients)

    def _reduce(self, i: int, state: State) -> None:
        self._components[i].credit.take(state.batch.step)
        super()._reduce(i, state)

    def _update(self, i: int, state: State) -> None:
        self._make_ready_to_update(i, state)
        super()._update(i, state)

    def _update_with_others(self, i: int, state: State) -> None:
        if i == self._updated[0]:
            for j in self._updated:
                self._make_ready_to_update(j, state)
        super()._update_with_others(i, state)

    def _make_ready_to_update(self, i: int, state: State) -> None:
        if i not in self._reduced:
            self._components[i].credit.take(state.batch.step)
        if any(i == j for other in self._under_way.values() for j, _ in other.graphs):
            move(self._components[i].main_parameters())

    def _retire(self, place: Place, graph: Graph, state: State) -> None:
        super()._retire(place, graph, state)
        i, _ = place
        if i in state.past_weights and all(i != j for j, _ in state.graphs):
            del state.past_weights[i]
