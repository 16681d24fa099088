"""All components in this process: on one device, one after another; or each on a device, all at work at once.

With a device per component a single thread issues the work of all devices, in the order in which the simulator sees it
begin. On accelerators that only queues it, so the devices run side by side, and nothing here waits for them. There are
no threads to contend for the interpreter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

import torch
from torch import Tensor

from interlocking_backprop.engine.component import Component
from interlocking_backprop.engine.executor import Executor, Packet, Step
from interlocking_backprop.engine.graph import Gradient, Graph
from interlocking_backprop.engine.losses import Loss
from interlocking_backprop.engine.ties import Tie
from interlocking_backprop.engine.tree import Tree, to_device
from interlocking_backprop.runtime.transfer import Transfer
from interlocking_backprop.schedule.action import Action
from interlocking_backprop.schedule.costs import Costs
from interlocking_backprop.schedule.list_scheduling import list_schedule
from interlocking_backprop.schedule.order import depth_first
from interlocking_backprop.schedule.schedule import Schedule
from interlocking_backprop.schedule.simulate import merged_order
from interlocking_backprop.schedule.validate import validate
from interlocking_backprop.scheme.streams import Workload


class _Plan(NamedTuple):
    workload: Workload
    devices: list[torch.device]
    schedule: Schedule
    executor: Executor


class LocalRuntime:
    """Runs a model in one process.

    Args:
        components: all of them.
        losses: of each.
        ties: the weights that they share.
        devices: of each; None if they are all where their parameters are, one after another.
        costs: what the order is found for, with a device per component.
        max_graphs: bounds the graphs alive on a device.
    """

    def __init__(
        self,
        components: Sequence[Component],
        losses: Sequence[Loss],
        ties: Sequence[Tie],
        devices: Sequence[torch.device] | None = None,
        costs: Costs | None = None,
        max_graphs: int | None = None,
    ) -> None:
        self._components, self._losses, self._ties = components, losses, ties
        self._devices, self._costs, self._max_graphs = devices, costs, max_graphs
        self._plans: dict[int, _Plan] = {}
        self._posts: dict[str, Any] = {}
        for component, device in zip(components, devices or (), strict=False):
            component.to(device)

    def devices(self) -> list[torch.device]:
        """The device of each component; one without parameters is where the one below it is."""
        if self._devices is not None:
            return list(self._devices)
        own = [component.device for component in self._components]
        device = next((d for d in own if d is not None), torch.device("cpu"))
        filled = []
        for d in own:
            device = d or device
            filled.append(device)
        return filled

    @property
    def rank(self) -> int:
        """The only one."""
        return 0

    @property
    def n_ranks(self) -> int:
        """One."""
        return 1

    @property
    def local_components(self) -> list[int]:
        """All."""
        return list(range(len(self._components)))

    def schedule(self, workload: Workload, n_microbatches: int) -> Schedule:
        """The schedule of a step."""
        return self._plan(workload, n_microbatches).schedule

    def train(self, workload: Workload, step: Step, flag: int) -> tuple[Future[Tensor], int]:
        """Carries out a step; returns its loss and the flag."""
        self._plan(workload, len(step.packets)).executor.run(step)
        future: Future[Tensor] = Future()
        future.set_result(step.losses[len(self._components) - 1])
        return future, flag

    def forward(self, inputs: Tree) -> Tree:
        """The output of the last component."""
        for component, device in zip(self._components, self.devices(), strict=True):
            inputs = component.main_net(to_device(inputs, device))
        return inputs

    def map_exits(self, function: Callable[[Tree, Tree], Any], inputs: Tree, target: Tree) -> list[Any]:
        """``function(output, target)`` at every exit."""
        results: list[Any] = []
        for i, (component, device) in enumerate(zip(self._components, self.devices(), strict=True)):
            inputs = component.main_net(to_device(inputs, device))
            if component.aux_net is None and i < len(self._components) - 1:
                results.append(None)
            else:
                results.append(function(component.exit(i, inputs), to_device(target, device)))
        return results

    def gather(self, value: Any) -> list[Any]:
        """The values of all ranks."""
        return [value]

    def post(self, key: str, value: Any) -> None:
        """Leaves a value for `collect`."""
        self._posts[key] = value

    def collect(self, key: str) -> list[Any] | None:
        """What every rank has left under a key; None if some have not yet."""
        return [self._posts.pop(key)] if key in self._posts else None

    def close(self) -> None:
        """There is nothing to end."""

    def _plan(self, workload: Workload, n_microbatches: int) -> _Plan:
        known, devices = self._plans.get(n_microbatches), self.devices()
        if known is not None and known.workload == workload and known.devices == devices:
            return known
        transport = None
        if self._devices is None:
            schedule = depth_first(workload, n_microbatches)
            actions: Sequence[Action] = schedule.actions[0]
        else:
            placement = range(workload.n_components)
            schedule = list_schedule(workload, n_microbatches, placement, self._costs, self._max_graphs)
            actions = merged_order(schedule, self._costs)
            transport = LocalTransport(self._devices)
        validate(schedule)
        components = dict(enumerate(self._components))
        places = dict(enumerate(devices))
        executor = Executor(actions, workload, components, places, self._losses, self._ties, transport)
        plan = self._plans[n_microbatches] = _Plan(workload, devices, schedule, executor)
        return plan


class LocalTransport:
    """Messages between devices of one process: copies, begun where they are sent and waited for where they are used."""

    def __init__(self, devices: Sequence[torch.device]) -> None:
        self._devices = devices
        self._on_the_way: dict[tuple[int, int, int], Transfer] = {}

    def send_packet(self, i: int, m: int, packet: Packet) -> None:
        self._on_the_way[i + 1, m, -1] = Transfer(packet, self._devices[i + 1])

    def receive_packet(self, i: int, m: int) -> Packet:
        packet: Packet = self._on_the_way.pop((i, m, -1)).result()
        return packet

    def send_gradient(self, i: int, m: int, stream: int, gradient: Gradient) -> None:
        self._on_the_way[i - 1, m, stream] = Transfer(gradient, self._devices[i - 1])

    def receive_gradient(self, i: int, m: int, stream: int, graph: Graph) -> Gradient:
        gradient: Gradient = self._on_the_way.pop((i, m, stream)).result()
        return gradient

    def send_shared(self, i: int, j: int, gradients: Gradient) -> None:
        raise AssertionError("all components are at hand")

    def receive_shared(self, j: int, i: int) -> Gradient:
        raise AssertionError("all components are at hand")
