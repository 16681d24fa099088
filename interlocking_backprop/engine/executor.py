"""Carries out the actions of a schedule, in their order and no other."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from interlocking_backprop.engine.component import Component
from interlocking_backprop.engine.graph import Gradient, Graph, loss_backward
from interlocking_backprop.engine.losses import Loss
from interlocking_backprop.engine.randomness import generator_of, preserved, seed
from interlocking_backprop.engine.shared_gradients import SharedGradients, SharedTransport
from interlocking_backprop.engine.ties import Tie
from interlocking_backprop.engine.tree import Tree, detached, map_tensors, tensors, to_device, versions
from interlocking_backprop.schedule.action import PASSES, Action, Kind
from interlocking_backprop.scheme.streams import ComponentWork, Pass, Source, Workload

Place = tuple[int, int]
"""A component and a micro-batch."""


class Packet(NamedTuple):
    """What travels up from component to component with each micro-batch.

    Attributes:
        activation: the input of the next component.
        target: what the losses above compare with.
        network_input: x_0, where a loss above asks for it; else None.
    """

    activation: Tree
    target: Tree
    network_input: Tree

    def to(self, device: torch.device) -> Packet:
        """The packet on a device."""
        activation, target, network_input = self
        return Packet(to_device(activation, device), to_device(target, device), to_device(network_input, device))


class Transport(SharedTransport, Protocol):
    """Takes messages to components that are elsewhere, and brings theirs.

    The arguments are those of the action: the component that sends or receives, the micro-batch and the stream.
    """

    def send_packet(self, i: int, m: int, packet: Packet) -> None:
        """Sends what component i + 1 needs for its forward pass."""

    def receive_packet(self, i: int, m: int) -> Packet:
        """Waits for what component i needs for its forward pass."""

    def send_gradient(self, i: int, m: int, stream: int, gradient: Gradient) -> None:
        """Sends a stream at the input of component i to component i - 1."""

    def receive_gradient(self, i: int, m: int, stream: int, graph: Graph) -> Gradient:
        """Waits for a stream at the output of component i, whose graph this is."""


@dataclass
class Step:
    """One training step: what goes in, and the losses that come out.

    Attributes:
        seed: the model's; with the number of the step it keys the random numbers.
        number: how many steps came before.
        packets: for each micro-batch what component 0 receives; empty where component 0 is elsewhere.
        weights: for each component the shares of the micro-batches in its loss over the batch; they sum to 1.
        losses: for each component at hand that computes a loss its mean over the batch, detached.
    """

    seed: int
    number: int
    packets: Sequence[Packet]
    weights: Sequence[Sequence[float | Tensor]]
    losses: dict[int, Tensor] = field(default_factory=dict)


class Executor:
    """Carries out actions on the components that are at hand in this process.

    What an action takes part in is found out once, here; a step only calls what has been made ready for each.

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
        self._work = workload.components
        self._components = components
        self._devices = devices
        self._generators = {i: generator_of(device) for i, device in devices.items()}
        self._losses = losses
        self.current: Action | None = None
        # A graph is freed by the last of its backward passes; a joint pass may be one action or two.
        self._n_passes = Counter(a.component for a in actions if a.kind in PASSES and a.microbatch == 0)
        # What is at hand, by component and micro-batch: inputs, graphs, targets of losses to come, credit from above.
        self._packets: dict[Place, Packet] = {}
        self._graphs: dict[Place, Graph] = {}
        self._losses_due: dict[Place, Packet] = {}
        self._credit: defaultdict[Place, dict[int, Gradient]] = defaultdict(dict)
        self._shared = SharedGradients(workload, ties, components, transport)
        self._transport = transport
        last_uses = _last_uses(actions, self._work)
        self._program = [(action, self._made_ready(action, last_uses)) for action in actions]
        # The most graphs alive at once, to hold against the simulator.
        self.peak_graphs = 0

    def run(self, step: Step) -> None:
        """Carries out a step and fills in its losses.

        An exception from a module, a loss or an optimizer passes through as it is. What the step had accumulated is
        dropped then; components that were updated before it stay updated.
        """
        self._packets.update({(0, m): packet for m, packet in enumerate(step.packets)})
        try:
            with torch.enable_grad(), preserved(set(self._generators.values())):
                for action, carry_out in self._program:
                    self.current = action
                    carry_out(step)
        except BaseException:
            for component in self._components.values():
                component.free_gradients()
            raise
        finally:
            self.current = None
            for state in (self._packets, self._graphs, self._losses_due, self._credit):
                state.clear()
            self._shared.clear()

    def _made_ready(self, action: Action, last_uses: Mapping[Action, Sequence[int]]) -> Callable[[Step], None]:
        """What is called to carry out an action."""
        i, kind, _, stream = action
        if kind is Kind.UPDATE:
            return partial(self._update, i)
        if kind is Kind.REDUCE_GRAD:
            return partial(self._reduce, i)
        place = _place(action)
        if kind in PASSES:
            done = _pass_of(action, self._work[i])
            # A joint pass may be carried out in two: its I, then its W.
            splits = done.kind == "B" and kind is not Kind.FULL_BACKWARD
            return partial(self._backward, place, kind, stream, done.source, splits, last_uses[action])
        if kind is Kind.FORWARD:
            return partial(self._forward, place)
        if kind is Kind.LOSS:
            return partial(self._loss, place)
        assert self._transport is not None
        if kind is Kind.SEND_F:
            return partial(self._send_forward, self._transport, place)
        if kind is Kind.RECV_F:
            return partial(self._receive_forward, self._transport, place)
        assert stream is not None
        if kind is Kind.SEND_B:
            return partial(self._send_backward, self._transport, place, stream)
        return partial(self._receive_backward, self._transport, place, stream)

    def _forward(self, place: Place, step: Step) -> None:
        i, m = place
        work, n_passes = self._work[i], self._n_passes[i]
        packet = self._packets.pop(place).to(self._devices[i])
        inputs = packet.activation if work.streams else map_tensors(Tensor.detach, packet.activation)
        before = versions(inputs)
        seed(self._generators[i], step.seed, step.number, "F", i, m)
        if n_passes:
            outputs = self._components[i].main_net(inputs)
        else:
            with torch.no_grad():
                outputs = self._components[i].main_net(inputs)
        if i > 0 and before != versions(inputs):
            raise ValueError(
                f"component {i} changes its input in place, which is the output of component {i - 1} and still in use; "
                "make its first operation out of place, e.g. ReLU(inplace=False)."
            )
        if n_passes or work.computes_loss:
            self._graphs[place] = Graph(i, inputs, outputs, n_passes)
            self.peak_graphs = max(self.peak_graphs, len(self._graphs))
        if work.computes_loss:
            self._losses_due[place] = packet
        if i + 1 < len(self._work):
            # What goes to another process is cut off from the graph on the way.
            activation = detached(outputs) if i + 1 in self._components else outputs
            self._packets[i + 1, m] = Packet(activation, packet.target, packet.network_input)

    def _loss(self, place: Place, step: Step) -> None:
        i, m = place
        component, graph, packet = self._components[i], self._graphs[place], self._losses_due.pop(place)
        wants_gradient = self._work[i].uses_loss_gradient
        exit_input = detached(graph.outputs) if wants_gradient else map_tensors(Tensor.detach, graph.outputs)
        seed(self._generators[i], step.seed, step.number, "L", i, m)
        output = component.exit(i, exit_input)
        loss = self._losses[i](output, packet.target, map_tensors(Tensor.detach, graph.inputs), packet.network_input)
        leaves = [t for t in tensors(exit_input) if t.requires_grad]
        weight = step.weights[i][m]
        graph.loss_gradient = loss_backward(loss, weight, leaves, component.aux_parameters())
        weighted = loss.detach() * weight
        step.losses[i] = step.losses[i] + weighted if m else weighted
        self._retire(place, graph)

    def _backward(
        self,
        place: Place,
        kind: Kind,
        stream: int | None,
        source: Source,
        splits: bool,
        last_uses: Sequence[int],
        step: Step,
    ) -> None:
        i, m = place
        graph, credit = self._graphs[place], self._credit[i + 1, m]
        gradient = graph.gradient(source, credit)
        for used in last_uses:
            if used == _OWN_LOSS:
                graph.loss_gradient = []
            else:
                del credit[used]
        input_gradient = graph.backward(kind, gradient, self._components[i].main_parameters, splits=splits)
        if stream is not None:
            self._credit[place][stream] = input_gradient
        self._retire(place, graph)

    def _reduce(self, i: int, step: Step) -> None:
        self._shared.give(i)

    def _update(self, i: int, step: Step) -> None:
        self._shared.take(i)
        self._components[i].update()

    def _send_forward(self, transport: Transport, place: Place, step: Step) -> None:
        i, m = place
        transport.send_packet(i, m, self._packets.pop((i + 1, m)))

    def _receive_forward(self, transport: Transport, place: Place, step: Step) -> None:
        self._packets[place] = transport.receive_packet(*place)

    def _send_backward(self, transport: Transport, place: Place, stream: int, step: Step) -> None:
        i, m = place
        transport.send_gradient(i, m, stream, self._credit[place].pop(stream))

    def _receive_backward(self, transport: Transport, place: Place, stream: int, step: Step) -> None:
        i, m = place
        self._credit[i + 1, m][stream] = transport.receive_gradient(i, m, stream, self._graphs[place])

    def _retire(self, place: Place, graph: Graph) -> None:
        """Lets go of a graph that has served everybody."""
        if graph.is_used_up and place not in self._losses_due:
            del self._graphs[place]


# In the place of a stream: the gradient of the component's own loss.
_OWN_LOSS = -1


def _last_uses(actions: Sequence[Action], work: Sequence[ComponentWork]) -> dict[Action, list[int]]:
    """For each backward pass the streams, and the gradient of the loss, that no later one starts from."""
    last: dict[Action, list[int]] = {}
    used: set[tuple[int, int, int]] = set()
    for action in reversed(actions):
        if action.kind in PASSES:
            i, m = _place(action)
            source = _pass_of(action, work[i]).source
            needed = [stream for stream, _ in source.streams] + ([_OWN_LOSS] if source.loss else [])
            last[action] = [stream for stream in needed if (i, m, stream) not in used]
            used.update((i, m, stream) for stream in needed)
    return last


def _pass_of(action: Action, work: ComponentWork) -> Pass:
    found = work.weight_pass if action.stream is None else work.input_pass(action.stream)
    assert found is not None
    return found


def _place(action: Action) -> Place:
    assert action.microbatch is not None
    return action.component, action.microbatch
