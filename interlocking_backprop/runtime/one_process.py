"""All components in this process: on one device, one after another; or each on a device, all at work at once.

With a device per component a single thread issues the work of all devices, in the order in which the simulator sees it
begin. On accelerators that only queues it, so the devices run side by side, and nothing here waits for them. There are
no threads to contend for the interpreter.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch

from interlocking_backprop.engine.batch import Batch, Result
from interlocking_backprop.engine.component import Component
from interlocking_backprop.engine.delayed_executor import executor_of
from interlocking_backprop.engine.executor import Executor
from interlocking_backprop.engine.losses import Loss
from interlocking_backprop.engine.state import OnGradients, Visit
from interlocking_backprop.engine.ties import Tie
from interlocking_backprop.runtime.runtime import N_KEPT
from interlocking_backprop.runtime.transfer import DeviceTransport
from interlocking_backprop.schedule.action import Action
from interlocking_backprop.schedule.costs import Costs
from interlocking_backprop.schedule.list_scheduling import list_schedule
from interlocking_backprop.schedule.order import depth_first
from interlocking_backprop.schedule.schedule import Schedule
from interlocking_backprop.schedule.simulate import merged_order
from interlocking_backprop.schedule.validate import validate
from interlocking_backprop.scheme.streams import Workload


class Program(NamedTuple):
    """What is carried out for one kind of batch."""

    schedule: Schedule
    executor: Executor
    transport: DeviceTransport | None


class OneProcess:
    """Runs a model in one process; a `Runtime`.

    Args:
        components: all of them.
        losses: of each.
        ties: the weights that they share.
        devices: of each; None if they are all where their parameters are, one after another.
        costs: what the order is found for, with a device per component.
        max_graphs: bounds the graphs alive on a device.
    """

    rank = 0
    n_ranks = 1
    reads_data = True

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
        self._program = lru_cache(maxsize=N_KEPT)(self._made)
        self._latest: Program | None = None
        self._posts: dict[str, Any] = {}
        for component, device in zip(components, devices or (), strict=False):
            component.to(device)

    def __getstate__(self) -> dict[str, Any]:
        """What a copy takes over (`copy.deepcopy`): not the programs, which compute with these very components."""
        return {name: value for name, value in vars(self).items() if name not in ("_program", "_latest")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._program = lru_cache(maxsize=N_KEPT)(self._made)
        self._latest = None

    @property
    def local_components(self) -> list[int]:
        return list(range(len(self._components)))

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

    def schedule(self, workload: Workload, n_microbatches: int) -> Schedule:
        schedule = self._program(workload, n_microbatches, tuple(self.devices())).schedule
        return schedule.named_for(workload.scheme)

    def run(
        self,
        workload: Workload,
        batch: Batch | None,
        visit: Visit | None = None,
        on_gradients: OnGradients | None = None,
        *,
        updates: bool = True,
    ) -> Result:
        assert batch is not None  # the only process reads the data
        program = self._program(workload, batch.n_microbatches, tuple(self.devices()))
        if not workload.is_evaluation and program is not self._latest:
            self.settle()
            self._latest = program
        try:
            return program.executor.run(batch, visit, on_gradients, updates=updates)
        except BaseException:
            if program.transport is not None:
                program.transport.clear()
            raise

    def settle(self) -> None:
        while self._latest is not None and self._latest.executor.ages:
            self._latest.executor.settle_step()

    def gather(self, value: Any) -> list[Any]:
        return [value]

    def post(self, key: str, value: Any) -> None:
        self._posts[key] = value

    def collect(self, key: str) -> list[Any] | None:
        return [self._posts.pop(key)] if key in self._posts else None

    def close(self) -> None:
        self.settle()

    def _made(self, workload: Workload, n_microbatches: int, devices: tuple[torch.device, ...]) -> Program:
        transport = None
        if self._devices is None:
            schedule = depth_first(workload, n_microbatches)
            actions: Sequence[Action] = schedule.actions[0]
        elif workload.is_evaluation:
            schedule = depth_first(workload, n_microbatches, range(workload.n_components))
            actions = merged_order(schedule)
            transport = DeviceTransport(devices)
        else:
            placement = range(workload.n_components)
            schedule = list_schedule(workload, n_microbatches, placement, self._costs, self._max_graphs)
            actions = merged_order(schedule, self._costs)
            transport = DeviceTransport(devices)
        validate(schedule)
        executor = executor_of(
            actions,
            workload,
            dict(enumerate(self._components)),
            dict(enumerate(devices)),
            self._losses,
            self._ties,
            transport,
        )
        return Program(schedule, executor, transport)
