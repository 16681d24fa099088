"""Carries out the actions of a schedule, in their order and no other.

What each action takes part in is found out once, when an executor is made; a step calls, one after another, what has
been made ready. What a step has at hand meanwhile is a `State`, which begins and ends with it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.profiler import record_function

from interlocking_backprop.engine.batch import Batch, Result
from interlocking_backprop.engine.component import Component
from interlocking_backprop.engine.failures import add_place, add_shapes, changes_in_place
from interlocking_backprop.engine.graph import Graph, loss_backward
from interlocking_backprop.engine.loss_comparison import Comparison, Part
from interlocking_backprop.engine.losses import Loss, part_of_mean
from interlocking_backprop.engine.message import Gradient, Message, Packet, Transport
from interlocking_backprop.engine.randomness import generator_of, preserved, seed
from interlocking_backprop.engine.shared_gradients import SharedGradients
from interlocking_backprop.engine.ties import Tie
from interlocking_backprop.engine.tree import Tree, detached, map_tensors, tensors, versions
from interlocking_backprop.schedule.action import PASSES, Action, Kind
from interlocking_backprop.scheme.streams import ComponentWork, Pass, Source, Workload

Place = tuple[int, int]
"""A component and a micro-batch."""

Visit = Callable[[Tree, Tree], Any]
"""What an evaluation makes of the output at an exit and the targets."""


class State:
    """What is at hand while a batch is carried out, by component and micro-batch.

    Attributes:
        batch: that is carried out.
        visit: called at the exits of an evaluation.
        packets: the inputs of forward passes to come.
        graphs: those alive.
        at_exit: targets, and outputs in an evaluation, for losses and exits to come.
        streams: for each place those at its input, by index.
        shared: gradients of shared weights on their way between components at hand.
        losses: by component, summed up so far.
        exits: by component, what was made of the output at its exit.
        comparisons: of the batch with its parts, for losses that nobody knows.
    """

    def __init__(self, batch: Batch, visit: Visit | None) -> None:
        self.batch, self.visit = batch, visit
        self.packets = {(0, m): packet for m, packet in enumerate(batch.packets)}
        self.graphs: dict[Place, Graph] = {}
        self.at_exit: dict[Place, Packet] = {}
        self.streams: defaultdict[Place, dict[int, Gradient]] = defaultdict(dict)
        self.shared: dict[Message, Gradient] = {}
        self.losses: dict[int, Tensor] = {}
        self.exits: dict[int, Any] = {}
        self.comparisons: dict[Loss, Comparison] = {}


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
        current: the action that is being carried out, for whoever watches; None between steps.
    """

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
        # A graph is freed by the last of its backward passes; a joint pass may be one action or two.
        self._n_passes = Counter(a.component for a in actions if a.kind in PASSES and a.microbatch == 0)
        last_uses = _last_uses(actions, self._work)
        self._program = [(action, self._made_ready(action, last_uses, transport)) for action in actions]

    def run(self, batch: Batch, visit: Visit | None = None) -> Result:
        """Carries out a batch.

        An exception from a module, a loss or an optimizer passes through as it is, with a note that says where it was
        raised. What the step had accumulated is dropped then; components that were updated before it stay updated.

        Args:
            batch: with packets if component 0 is at hand.
            visit: called with the output at each exit of an evaluation, and the targets.
        """
        state = State(batch, visit)
        is_profiled = torch._C._autograd._profiler_enabled()
        try:
            with torch.set_grad_enabled(self._trains), preserved(self._drawn_from):
                for action, carry_out in self._program:
                    self.current = action
                    if is_profiled:
                        with record_function(str(action)):
                            carry_out(state)
                    else:
                        carry_out(state)
        except BaseException as error:
            if isinstance(error, Exception) and self.current is not None:
                add_place(error, self.current, batch.n_microbatches)
            for component in self._components.values() if self._trains else ():
                component.free_gradients()
            raise
        finally:
            self.current = None
        return Result(state.losses, state.exits, batch.flag)

    def _made_ready(
        self, action: Action, last_uses: Mapping[Action, Sequence[int]], transport: Transport | None
    ) -> Callable[[State], None]:
        """What is called to carry out an action."""
        i, kind, m, stream = action
        if m is None:
            return partial(self._update if kind is Kind.UPDATE else self._reduce, i)
        place = (i, m)
        if kind in PASSES:
            done = _pass_of(action, self._work[i])
            # A joint pass may be carried out in two: its I, then its W.
            splits = done.kind == "B" and kind is not Kind.FULL_BACKWARD
            return partial(self._backward, place, kind, stream, done.source, splits, last_uses[action])
        if kind is Kind.FORWARD:
            return partial(self._forward if self._trains else self._infer, place)
        if kind is Kind.LOSS:
            return partial(self._loss, place)
        if kind is Kind.EXIT:
            return partial(self._exit, place)
        assert transport is not None
        if kind is Kind.SEND_F:
            return partial(self._send_forward, transport.sender(Message(i, i + 1, m)), (i + 1, m))
        if kind is Kind.RECV_F:
            return partial(self._receive_forward, transport.receiver(Message(i - 1, i, m)), place)
        assert stream is not None
        if kind is Kind.SEND_B:
            return partial(self._send_backward, transport.sender(Message(i, i - 1, m, stream)), place, stream)
        return partial(self._receive_backward, transport.receiver(Message(i + 1, i, m, stream)), (i + 1, m), stream)

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
            raise _changed_in_place(i)
        if n_passes or work.computes_loss:
            state.graphs[place] = Graph(i, inputs, outputs, n_passes)
        if work.computes_loss:
            state.at_exit[place] = packet
        if i + 1 < len(self._work):
            # What goes to another process is cut off from the graph on the way.
            activation = detached(outputs) if i + 1 in self._components else outputs
            state.packets[i + 1, m] = Packet(activation, packet.target, packet.network_input)

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
                raise _changed_in_place(i) from error
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

    def _loss(self, place: Place, state: State) -> None:
        i, m = place
        component, graph, packet = self._components[i], state.graphs[place], state.at_exit.pop(place)
        wants_gradient = self._work[i].uses_loss_gradient
        exit_input = detached(graph.outputs) if wants_gradient else map_tensors(Tensor.detach, graph.outputs)
        seed(self._generators[i], state.batch.seed, state.batch.step, "L", i, m)
        output = self._at_exit(i, exit_input)
        function, share = self._losses[i], state.batch.shares[i][m]
        inputs = map_tensors(Tensor.detach, graph.inputs) if function.wants_component_input else None
        try:
            loss = function(output, packet.target, inputs, packet.network_input, i)
        except Exception as error:
            add_shapes(error, f"loss {i} got an output and a target:", (output, packet.target))
            raise
        leaves = [t for t in tensors(exit_input) if t.requires_grad]
        graph.loss_gradient = loss_backward(loss, share, leaves, component.aux_parameters())
        if not function.is_known and (n := state.batch.n_microbatches) > 1:
            comparison = state.comparisons.setdefault(function, Comparison(function, i, n))
            if comparison.component == i:
                comparison.add(Part(output, packet.target, inputs, packet.network_input, share))
        part = part_of_mean(loss.detach(), share)
        state.losses[i] = state.losses[i] + part if m else part
        self._retire(place, graph, state)

    def _backward(
        self,
        place: Place,
        kind: Kind,
        stream: int | None,
        source: Source,
        splits: bool,
        last_uses: Sequence[int],
        state: State,
    ) -> None:
        i, m = place
        graph, received = state.graphs[place], state.streams[i + 1, m]
        gradient = graph.gradient(source, received)
        for used in last_uses:
            if used == _OWN_LOSS:
                graph.loss_gradient = []
            else:
                del received[used]
        input_gradient = graph.backward(kind, gradient, self._components[i].main_parameters, splits=splits)
        if stream is not None:
            state.streams[place][stream] = input_gradient
        self._retire(place, graph, state)

    def _reduce(self, i: int, state: State) -> None:
        self._shared.give(i, state.shared)

    def _update(self, i: int, state: State) -> None:
        self._shared.take(i, state.shared)
        self._components[i].update()

    def _send_forward(self, send: Callable[[Packet], None], above: Place, state: State) -> None:
        send(state.packets.pop(above))

    def _receive_forward(self, receive: Callable[[], Packet], place: Place, state: State) -> None:
        state.packets[place] = receive()

    def _send_backward(self, send: Callable[[Gradient], None], place: Place, stream: int, state: State) -> None:
        send(state.streams[place].pop(stream))

    def _receive_backward(self, receive: Callable[[], Gradient], above: Place, stream: int, state: State) -> None:
        state.streams[above][stream] = receive()

    def _retire(self, place: Place, graph: Graph, state: State) -> None:
        """Lets go of a graph that has served everybody."""
        if graph.is_used_up and place not in state.at_exit:
            del state.graphs[place]


# In the place of a stream: the gradient of the component's own loss.
_OWN_LOSS = -1


def _changed_in_place(i: int) -> ValueError:
    return ValueError(
        f"component {i} changes its input in place, which is the output of component {i - 1} and still in use; make "
        "its first operation out of place, e.g. ReLU(inplace=False)."
    )


def _last_uses(actions: Sequence[Action], work: Sequence[ComponentWork]) -> dict[Action, list[int]]:
    """For each backward pass the streams, and the gradient of the loss, that no later one starts from."""
    last: dict[Action, list[int]] = {}
    used: set[tuple[int, int | None, int]] = set()
    for action in reversed(actions):
        if action.kind in PASSES:
            i, m = action.component, action.microbatch
            source = _pass_of(action, work[i]).source
            needed = [stream for stream, _ in source.streams] + ([_OWN_LOSS] if source.loss else [])
            last[action] = [stream for stream in needed if (i, m, stream) not in used]
            used.update((i, m, stream) for stream in needed)
    return last


def _pass_of(action: Action, work: ComponentWork) -> Pass:
    found = work.weight_pass if action.stream is None else work.input_pass(action.stream)
    assert found is not None
    return found
