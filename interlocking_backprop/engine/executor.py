"""Carries out the actions of a schedule, in their order and no other.

What each action takes part in is found out once, when an executor is made; a step calls, one after another, what has
been made ready. What a step has at hand meanwhile is a `State`, which begins and ends with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor
from torch.profiler import record_function

from interlocking_backprop.engine.batch import Batch, Result
from interlocking_backprop.engine.component import Component
from interlocking_backprop.engine.copied_heads import CopiedHeads
from interlocking_backprop.engine.failures import add_place, add_shapes, changed_in_place, changes_in_place
from interlocking_backprop.engine.graph import Graph, loss_backward
from interlocking_backprop.engine.joint_updates import JointUpdates
from interlocking_backprop.engine.last_uses import OWN_LOSS, last_uses_of, pass_of
from interlocking_backprop.engine.loss_comparison import Comparison, Part
from interlocking_backprop.engine.losses import Loss, part_of_mean
from interlocking_backprop.engine.message import Packet, Transport
from interlocking_backprop.engine.message_actions import message_action
from interlocking_backprop.engine.randomness import generator_of, preserved, seed
from interlocking_backprop.engine.shared_gradients import SharedGradients
from interlocking_backprop.engine.state import OnGradients, Place, State, Visit
from interlocking_backprop.engine.ties import Tie
from interlocking_backprop.engine.tree import Tree, detached, map_tensors, tensors, versions
from interlocking_backprop.schedule.action import PASSES, Action, Kind
from interlocking_backprop.schedule.network_output import Use, output_uses
from interlocking_backprop.scheme.streams import Source, Workload


class Executor:
    """Carries out actions on the components that are at hand in this process.

    Args:
        actions: of one step, in their order.
        workload: the scheme and the network.
        components: those at hand, by index.
        devices: for each of them where it computes.
        losses: the loss of each component of the model.
        ties: the weights that components of the model share.
        transport: for the messages among the actions.

    Attributes:
        is_delayed: whether passes of earlier batches are among the actions.
        current: the action that is being carried out, for whoever watches; None between steps.
    """

    is_delayed = False

    def __init__(
        self,
        actions: Sequence[Action],
        workload: Workload,
        components: Mapping[int, Component],
        devices: Mapping[int, torch.device],
        losses: Sequence[Loss],
        ties: Sequence[Tie] = (),
        transport: Transport | None = None,
    ) -> None:
        self.current: Action | None = None
        self._work = workload.components
        self._trains = not workload.is_evaluation
        self._components, self._devices, self._losses = components, devices, losses
        # Training steps seed generators, which are put back after each; evaluations draw from them like any other code.
        self._generators = {i: generator_of(device) for i, device in devices.items()}
        self._drawn_from = set(self._generators.values()) if self._trains else set()
        self._shared = SharedGradients(workload, ties, components, transport)
        self._copies = CopiedHeads(workload, components, transport)
        # A graph is freed by the last of its backward passes; a joint pass may be one action or two.
        self._n_passes = Counter(a.component for a in actions if a.kind in PASSES and a.microbatch == 0)
        self._joint = JointUpdates(components, ties)
        self._updated = [action.component for action in actions if action.kind is Kind.UPDATE]
        self._updates_together = workload.updates == "together"
        asking = [i for i in components if self._work[i].computes_loss and losses[i].wants_network_output]
        self._output_uses = output_uses(actions, asking, len(self._work))
        self._keeps_output = any(use.holder == len(self._work) - 1 for use in self._output_uses.values())
        last_uses = last_uses_of(actions, self._work)
        self._program = [(action, self._made_ready(action, last_uses, transport)) for action in actions]

    @property
    def ages(self) -> frozenset[int]:
        """How many steps ago, seen from the next one, the batches were of which passes are left: none here."""
        return frozenset()

    def settle_step(self) -> None:
        """Carries out what the next step would do for batches of the past, and no more: nothing is updated."""

    def run(
        self,
        batch: Batch,
        visit: Visit | None = None,
        on_gradients: OnGradients | None = None,
        *,
        updates: bool = True,
    ) -> Result:
        """Carries out a batch.

        An exception from a module, a loss, an optimizer or a function of the user's passes through as it is, with a
        note that says where it was raised. What the step had accumulated is dropped then; components that were updated
        before it stay updated.

        Args:
            batch: with packets if component 0 is at hand.
            visit: called with the output at each exit of an evaluation, and the targets.
            on_gradients: called in a training step where all gradients of a component are there, before its update.
            updates: whether components are updated; if not, their gradients are dropped there.
        """
        state = State(batch, visit, on_gradients, updates)
        with self._attended(batch.n_microbatches):
            self._carry_out({0: state})
        return Result(state.losses, state.exits, batch.flag)

    @contextmanager
    def _attended(self, n_microbatches: int) -> Iterator[None]:
        """What surrounds the actions: settings of autograd and of generators, and what becomes of an exception."""
        try:
            with torch.set_grad_enabled(self._trains), preserved(self._drawn_from):
                yield
        except BaseException as error:
            if isinstance(error, Exception) and self.current is not None:
                add_place(error, self.current, n_microbatches)
            self._abandon()
            raise
        finally:
            self.current = None

    def _abandon(self) -> None:
        """Drops what a step that has failed had accumulated."""
        for component in self._components.values() if self._trains else ():
            component.free_gradients()

    def _carry_out(self, states: Mapping[int, State]) -> None:
        """Carries out a step, for batches of so many steps ago; actions for one that is not there are left out."""
        is_profiled = torch._C._autograd._profiler_enabled()
        for action, carry_out in self._program:
            state = states.get(action.age)
            if state is None:
                continue
            self.current = action
            if is_profiled:
                with record_function(str(action)):
                    carry_out(state)
            else:
                carry_out(state)

    def _made_ready(
        self, action: Action, last_uses: Mapping[Action, Sequence[int]], transport: Transport | None
    ) -> Callable[[State], None]:
        """What is called to carry out an action."""
        i, kind, m, stream, _ = action
        if kind is Kind.REDUCE_GRAD:
            return partial(self._reduce, i)
        if kind in (Kind.GIVE, Kind.COPY):
            return partial(self._copy, i, kind)
        if m is None:
            return partial(self._update_with_others if self._updates_together else self._update, i)
        place = (i, m)
        if kind in PASSES:
            done = pass_of(action, self._work[i])
            # A joint pass may be carried out in two: its I, then its W.
            half_of = done.weights if done.kind == "B" and kind is not Kind.FULL_BACKWARD else None
            yields = None if kind is Kind.BACKWARD_WEIGHT else stream
            return partial(self._backward, place, kind, yields, done.source, half_of, last_uses[action])
        if kind is Kind.FORWARD:
            return partial(self._forward if self._trains else self._infer, place)
        if kind is Kind.LOSS:
            return partial(self._loss, place, self._output_uses.get(action))
        if kind is Kind.EXIT:
            return partial(self._exit, place)
        assert transport is not None
        return message_action(action, transport, self._output_uses.get(action))

    def _forward(self, place: Place, state: State) -> None:
        i, m = place
        work, n_passes = self._work[i], self._n_passes[i]
        packet = state.packets.pop(place).to(self._devices[i])
        inputs = packet.activation if work.streams else map_tensors(Tensor.detach, packet.activation)
        before = versions(inputs)
        seed(self._generators[i], state.batch.seed, state.batch.step, "F", i, m)
        if n_passes:
            outputs = self._through(i, inputs)
        else:
            with torch.no_grad():
                outputs = self._through(i, inputs)
        if i > 0 and before != versions(inputs):
            raise changed_in_place(i)
        if n_passes or work.computes_loss:
            state.graphs[place] = Graph(i, inputs, outputs, n_passes)
        if work.computes_loss:
            state.at_exit[place] = packet
        if i + 1 < len(self._work):
            # What goes to another process is cut off from the graph on the way.
            activation = detached(outputs) if i + 1 in self._components else outputs
            state.packets[i + 1, m] = Packet(activation, packet.target, packet.network_input)
        elif self._keeps_output:
            state.outputs[place] = map_tensors(Tensor.detach, outputs)

    def _infer(self, place: Place, state: State) -> None:
        """A forward pass of an evaluation: no graph, and random numbers as they come."""
        i, m = place
        packet = state.packets.pop(place).to(self._devices[i])
        packet = packet._replace(activation=self._through(i, packet.activation))
        if self._work[i].evaluates_exit:
            state.at_exit[place] = packet
        state.packets[i + 1, m] = packet

    def _through(self, i: int, inputs: Tree) -> Tree:
        """The output of a main net."""
        try:
            return self._components[i].main_net(inputs)
        except Exception as error:
            if i > 0 and changes_in_place(error, self._components[i].main_net, inputs):
                raise changed_in_place(i) from error
            add_shapes(error, f"component {i} got", inputs)
            raise

    def _at_exit(self, i: int, activation: Tree) -> Tree:
        """What comes out at a head, or at the end of the network."""
        try:
            return self._components[i].exit(i, activation)
        except Exception as error:
            add_shapes(error, f"head {i} got", activation)
            raise

    def _exit(self, place: Place, state: State) -> None:
        i, _ = place
        packet = state.at_exit.pop(place)
        output = self._at_exit(i, packet.activation)
        state.exits[i] = output if state.visit is None else state.visit(output, packet.target)

    def _loss(self, place: Place, of_output: Use | None, state: State) -> None:
        i, m = place
        component, graph, packet = self._components[i], state.graphs[place], state.at_exit.pop(place)
        wants_gradient = self._work[i].uses_loss_gradient
        exit_input = detached(graph.outputs) if wants_gradient else map_tensors(Tensor.detach, graph.outputs)
        seed(self._generators[i], state.batch.seed, state.batch.step, "L", i, m)
        output = self._at_exit(i, exit_input)
        function, share = self._losses[i], state.batch.shares[i][m]
        inputs = map_tensors(Tensor.detach, graph.inputs) if function.wants_component_input else None
        network_output = None if of_output is None else state.network_output(of_output, m)
        try:
            loss = function(output, packet.target, inputs, packet.network_input, network_output, i)
        except Exception as error:
            add_shapes(error, f"loss {i} got an output and a target:", (output, packet.target))
            raise
        leaves = [t for t in tensors(exit_input) if t.requires_grad]
        factor = component.loss_factor(share, loss) if state.updates else share
        graph.loss_gradient = loss_backward(loss, factor, leaves, component.aux_parameters())
        if not function.is_known and (n := state.batch.n_microbatches) > 1:
            comparison = state.comparisons.setdefault(function, Comparison(function, i, n))
            if comparison.component == i:
                comparison.add(Part(output, packet.target, inputs, packet.network_input, network_output, share))
        part = part_of_mean(loss.detach(), share)
        state.losses[i] = state.losses[i] + part if m else part
        self._retire(place, graph, state)

    def _backward(
        self,
        place: Place,
        kind: Kind,
        stream: int | None,
        source: Source,
        half_of: int | None,
        last_uses: Sequence[int],
        state: State,
    ) -> None:
        i, m = place
        graph, received = state.graphs[place], state.streams[i + 1, m]
        gradient = graph.gradient(source, received)
        for used in last_uses:
            if used == OWN_LOSS:
                graph.loss_gradient = []
            else:
                del received[used]
        input_gradient = graph.backward(kind, gradient, self._components[i].main_parameters, half_of=half_of)
        if stream is not None:
            state.streams[place][stream] = input_gradient
        self._retire(place, graph, state)

    def _reduce(self, i: int, state: State) -> None:
        self._shared.give(i, state.shared)

    def _copy(self, i: int, kind: Kind, state: State) -> None:
        (self._copies.give if kind is Kind.GIVE else self._copies.take)(i, state.shared)

    def _update(self, i: int, state: State) -> None:
        self._shared.take(i, state.shared)
        self._show_gradients(i, state)
        if state.updates:
            self._components[i].update()
        else:
            self._components[i].free_gradients()

    def _update_with_others(self, i: int, state: State) -> None:
        if i == self._updated[0]:
            for j in self._updated:
                self._shared.take(j, state.shared)
            overflows = state.updates and not self._joint.unscale(self._updated)
            for j in sorted(self._updated) if not overflows else ():
                self._show_gradients(j, state)
            state.updates = state.updates and not overflows
            if state.updates:
                self._joint.clip(self._updated)
        if state.updates:
            self._components[i].update()
        else:
            self._components[i].free_gradients()

    def _show_gradients(self, i: int, state: State) -> None:
        if state.on_gradients is not None:
            # What the function draws, noise say, depends on neither order nor placement, and changes nothing else.
            with torch.no_grad(), preserved([self._generators[i]]):
                seed(self._generators[i], state.batch.seed, state.batch.step, "U", i)
                if parameters := [p for p in self._components[i].parameters() if p.grad is not None]:
                    state.on_gradients(i, parameters)

    def _retire(self, place: Place, graph: Graph, state: State) -> None:
        """Lets go of a graph that has served everybody."""
        if graph.is_used_up and place not in state.at_exit:
            del state.graphs[place]
