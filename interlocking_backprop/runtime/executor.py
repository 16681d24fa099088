"""Carries out the actions of a schedule, in their order and no other."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from interlocking_backprop.component import Component
from interlocking_backprop.losses import Loss
from interlocking_backprop.runtime.graph import Gradient, Graph, loss_backward
from interlocking_backprop.runtime.randomness import preserved, seed_device
from interlocking_backprop.runtime.shared_gradients import SharedGradients, SharedTransport
from interlocking_backprop.schedule.action import PASSES, Action, Kind
from interlocking_backprop.streams import ComponentWork, Pass, Workload
from interlocking_backprop.ties import Tie
from interlocking_backprop.tree import Tree, detached, map_tensors, tensors, to_device, versions


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
        return Packet(*(to_device(part, device) for part in self))


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

    def receive_gradient(self, i: int, m: int, stream: int, like: Sequence[Tensor]) -> Gradient:
        """Waits for a stream at the output of component i; ``like`` are the tensors that it is the gradient of."""


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
        self._actions = actions
        self._work = workload.components
        self._components = components
        self._devices = devices
        self._losses = losses
        self.current: Action | None = None
        # A graph is freed by the last of its backward passes; a joint pass may be one action or two.
        self._n_passes = Counter(a.component for a in actions if a.kind in PASSES and a.microbatch == 0)
        self._last_uses = _last_uses(actions, self._work)
        # What is at hand, by component and micro-batch: inputs, graphs, targets of losses to come, credit from above.
        self._packets: dict[tuple[int, int], Packet] = {}
        self._graphs: dict[tuple[int, int], Graph] = {}
        self._losses_due: dict[tuple[int, int], Packet] = {}
        self._credit: defaultdict[tuple[int, int], dict[int, Gradient]] = defaultdict(dict)
        self._shared = SharedGradients(workload, ties, components, transport)
        self._handlers = {
            Kind.FORWARD: self._forward,
            Kind.LOSS: self._loss,
            Kind.BACKWARD_INPUT: self._backward,
            Kind.BACKWARD_WEIGHT: self._backward,
            Kind.FULL_BACKWARD: self._backward,
            Kind.REDUCE_GRAD: self._reduce,
            Kind.UPDATE: self._update,
        }
        if transport is not None:
            self._transport = transport
            self._handlers |= {
                Kind.SEND_F: self._send_forward,
                Kind.RECV_F: self._receive_forward,
                Kind.SEND_B: self._send_backward,
                Kind.RECV_B: self._receive_backward,
            }
        # The most graphs alive at once, to hold against the simulator.
        self.peak_graphs = 0

    def run(self, step: Step) -> None:
        """Carries out a step and fills in its losses.

        An exception from a module, a loss or an optimizer passes through as it is. What the step had accumulated is
        dropped then; components that were updated before it stay updated.
        """
        self._packets.update({(0, m): packet for m, packet in enumerate(step.packets)})
        try:
            with torch.enable_grad(), preserved(set(self._devices.values())):
                for action in self._actions:
                    self.current = action
                    self._handlers[action.kind](action, step)
        except BaseException:
            for component in self._components.values():
                component.free_gradients()
            raise
        finally:
            self.current = None
            for state in (self._packets, self._graphs, self._losses_due, self._credit):
                state.clear()
            self._shared.clear()

    def _forward(self, action: Action, step: Step) -> None:
        i, m = _place(action)
        work, n_passes = self._work[i], self._n_passes[i]
        packet = self._packets.pop((i, m)).to(self._devices[i])
        inputs = packet.activation if work.streams else map_tensors(Tensor.detach, packet.activation)
        before = versions(inputs)
        seed_device(self._devices[i], step.seed, step.number, "F", i, m)
        with torch.set_grad_enabled(n_passes > 0):
            outputs = self._components[i].main_net(inputs)
        if i > 0 and before != versions(inputs):
            raise ValueError(
                f"component {i} changes its input in place, which is the output of component {i - 1} and still in use; "
                "make its first operation out of place, e.g. ReLU(inplace=False)."
            )
        if n_passes or work.computes_loss:
            self._graphs[i, m] = Graph(i, inputs, outputs, n_passes)
            self.peak_graphs = max(self.peak_graphs, len(self._graphs))
        if work.computes_loss:
            self._losses_due[i, m] = packet
        if i + 1 < len(self._work):
            self._packets[i + 1, m] = packet._replace(activation=detached(outputs))

    def _loss(self, action: Action, step: Step) -> None:
        i, m = _place(action)
        component, graph, packet = self._components[i], self._graphs[i, m], self._losses_due.pop((i, m))
        wants_gradient = self._work[i].uses_loss_gradient
        exit_input = detached(graph.outputs) if wants_gradient else map_tensors(Tensor.detach, graph.outputs)
        seed_device(self._devices[i], step.seed, step.number, "L", i, m)
        output = component.exit(i, exit_input)
        loss = self._losses[i](output, packet.target, map_tensors(Tensor.detach, graph.inputs), packet.network_input)
        leaves = [t for t in tensors(exit_input) if t.requires_grad]
        weight = step.weights[i][m]
        graph.loss_gradient = loss_backward(loss, weight, leaves, component.aux_parameters())
        weighted = loss.detach() * weight
        step.losses[i] = step.losses[i] + weighted if m else weighted
        self._retire(i, m)

    def _backward(self, action: Action, step: Step) -> None:
        i, m = _place(action)
        graph = self._graphs[i, m]
        done = _pass_of(action, self._work[i])
        # A joint pass may be carried out in two: its I, then its W.
        splits = done.kind == "B" and action.kind is not Kind.FULL_BACKWARD
        gradient = graph.gradient(done.source, self._credit[i + 1, m])
        for stream in self._last_uses[action]:
            if stream == _OWN_LOSS:
                graph.loss_gradient = []
            else:
                del self._credit[i + 1, m][stream]
        parameters = self._components[i].main_parameters()
        input_gradient = graph.backward(action.kind, gradient, parameters, splits=splits)
        if action.stream is not None:
            self._credit[i, m][action.stream] = input_gradient
        self._retire(i, m)

    def _reduce(self, action: Action, step: Step) -> None:
        self._shared.give(action.component)

    def _update(self, action: Action, step: Step) -> None:
        self._shared.take(action.component)
        self._components[action.component].update()

    def _send_forward(self, action: Action, step: Step) -> None:
        i, m = _place(action)
        self._transport.send_packet(i, m, self._packets.pop((i + 1, m)))

    def _receive_forward(self, action: Action, step: Step) -> None:
        i, m = _place(action)
        self._packets[i, m] = self._transport.receive_packet(i, m)

    def _send_backward(self, action: Action, step: Step) -> None:
        i, m = _place(action)
        assert action.stream is not None
        self._transport.send_gradient(i, m, action.stream, self._credit[i, m].pop(action.stream))

    def _receive_backward(self, action: Action, step: Step) -> None:
        i, m = _place(action)
        assert action.stream is not None
        like = [t for t in tensors(self._graphs[i, m].outputs) if t.requires_grad]
        self._credit[i + 1, m][action.stream] = self._transport.receive_gradient(i, m, action.stream, like)

    def _retire(self, i: int, m: int) -> None:
        """Lets go of a graph that has served everybody."""
        if self._graphs[i, m].is_used_up and (i, m) not in self._losses_due:
            del self._graphs[i, m]


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


def _place(action: Action) -> tuple[int, int]:
    assert action.microbatch is not None
    return action.component, action.microbatch
