"""A process per component, or per several neighbouring ones: `torchrun` on one machine or many.

Every rank carries out its own list of actions, as fast as the messages of its neighbours let it; nobody waits for all.
Rank 0 has the data. Targets travel with the activations, and the last rank has the loss.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from datetime import timedelta
from multiprocessing.util import Finalize
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from interlocking_backprop.engine.component import Component
from interlocking_backprop.engine.executor import Executor, Packet, Step
from interlocking_backprop.engine.losses import Loss
from interlocking_backprop.engine.ties import Tie
from interlocking_backprop.engine.tree import Tree, map_tensors
from interlocking_backprop.runtime.programs import Programs
from interlocking_backprop.schedule.costs import Costs
from interlocking_backprop.schedule.placement import balanced_placement
from interlocking_backprop.schedule.schedule import Schedule
from interlocking_backprop.scheme.streams import Workload
from interlocking_backprop.transport.agreement import agree, from_rank_0, serve_store
from interlocking_backprop.transport.announcement import Announcement, Operation
from interlocking_backprop.transport.channels import Channels, PeerLost, RankFailedError
from interlocking_backprop.transport.exchange import Arrivals, Plan
from interlocking_backprop.transport.headers import Headers
from interlocking_backprop.transport.process_groups import World, join
from interlocking_backprop.transport.watchdog import Watchdog

_OUTSIDE = "code outside of the model"


class RankRuntime:
    """Runs this rank's components.

    Args:
        components: of the whole model; those of other ranks are emptied.
        losses: of each.
        ties: the weights that they share.
        most_microbatches: M of a full batch.
        facts: what has to be the same on all ranks, by name.
        device: of this rank; None for the accelerator of its local rank, or else the CPU.
        costs: what order and placement are found for; those of rank 0 count.
        max_graphs: bounds the graphs alive on a rank.
        timeout: how long a rank may wait for another.
    """

    def __init__(
        self,
        components: Sequence[Component],
        losses: Sequence[Loss],
        ties: Sequence[Tie],
        most_microbatches: int,
        facts: dict[str, Any],
        device: torch.device | None,
        costs: Costs | None,
        max_graphs: int | None,
        timeout: timedelta,
    ) -> None:
        self._world: World = join(device, timeout)
        self._components = components
        agree(self._world, facts)
        self._costs: Costs | None = from_rank_0(self._world, costs)
        rank, size = self._world.rank, self._world.size
        self._placement = balanced_placement(len(components), size, self._costs)
        self._own = [i for i, owner in enumerate(self._placement) if owner == rank]
        for i, component in enumerate(components):
            if i in self._own:
                component.to(self._world.device)
            else:
                component.discard()
        self._channels = Channels(rank, self._world.groups, self._world.device)
        self._programs = Programs(
            components, losses, ties, self._placement, rank, self._world.device, self._channels, self._costs, max_graphs
        )
        # What has been made ready for the next training step.
        self._posted: tuple[Plan, Arrivals] | None = None
        self._headers = Headers(self._world, self._channels, most_microbatches)
        self._doing = _OUTSIDE
        self._executor: Executor | None = None
        self._is_open = True
        self._store = serve_store(self._world)
        self._watchdog = Watchdog(self._store, rank, size, timeout, self._activity)
        # Not atexit: children of multiprocessing end without it.
        self._at_exit = Finalize(None, self._leave, exitpriority=10)

    @property
    def rank(self) -> int:
        return self._world.rank

    @property
    def n_ranks(self) -> int:
        return self._world.size

    @property
    def local_components(self) -> list[int]:
        """Those of this rank."""
        return list(self._own)

    def gather(self, value: Any) -> list[Any]:
        """The values of all ranks; all call this."""
        values: list[Any] = [None] * self._world.size
        with self._guarded("model.gather()"), self._channels.connection((self.rank + 1) % self._world.size):
            dist.all_gather_object(values, value, group=self._world.groups.control)
        return values

    def post(self, key: str, value: Any) -> None:
        """Leaves a value for `collect`; nobody waits. It has to be one that JSON can hold."""
        self._store.set(f"post/{key}/{self.rank}", json.dumps(value))

    def collect(self, key: str) -> list[Any] | None:
        """What every rank has left under a key; None if some have not yet."""
        keys = [f"post/{key}/{rank}" for rank in range(self._world.size)]
        if not self._store.check(keys):
            return None
        values = [json.loads(self._store.get(k)) for k in keys]
        for k in keys:
            self._store.delete_key(k)
        return values

    def devices(self) -> list[torch.device]:
        """The device of each component, as far as this rank knows."""
        return [self._world.device if i in self._own else torch.device("meta") for i in range(len(self._components))]

    def schedule(self, workload: Workload, n_microbatches: int) -> Schedule:
        """The schedule of a step, of all ranks."""
        return self._programs.scheduled(workload, n_microbatches).schedule

    def train(self, workload: Workload, step: Step, flag: int) -> tuple[Future[Any], int]:
        """Carries out this rank's part of a step; ``step`` has packets on rank 0 alone.

        Returns:
            The loss, on the last rank, and the flag of rank 0.
        """
        with self._guarded(Operation.TRAINING_STEP.call):
            if self.rank == 0:
                step.packets = [_kept(packet) for packet in step.packets]
            announcement = self._announce_step(workload, step, flag)
            if self.rank > 0:
                auxiliary, final = announcement.weights
                step.number, step.weights = announcement.step, [auxiliary] * (len(self._components) - 1) + [final]
            program = self._programs.training(announcement, workload)
            plan, posted = program.plan, self._take_posted(program.plan)
            program.transport.arrivals = plan.post(self._channels) if posted is None else posted
            if plan.is_known:
                self._posted = plan, plan.post(self._channels)
            self._executor = program.executor
            assert self._executor is not None
            self._executor.run(step)
            if not plan.is_known:
                plan.is_known = True
                self._posted = plan, plan.post(self._channels)
            self._channels.next_step()
        future: Future[Any] = Future()
        future.set_result(step.losses.get(len(self._components) - 1))
        return future, announcement.flag

    def forward(self, inputs: Tree) -> Tree:
        """The output of the last component on the last rank; None elsewhere."""
        outputs: dict[int, Tree] = {}
        self._pass_up(Operation.FORWARD, inputs, None, lambda i, activation, _: outputs.update({i: activation}))
        return outputs.get(len(self._components) - 1)

    def map_exits(self, function: Callable[[Tree, Tree], Any], inputs: Tree, target: Tree) -> list[Any]:
        """``function(output, target)`` at every exit of this rank; None for those of others."""
        results: list[Any] = [None] * len(self._components)

        def visit(i: int, activation: Tree, own_target: Tree) -> None:
            component = self._components[i]
            if component.aux_net is not None or i == len(self._components) - 1:
                results[i] = function(component.exit(i, activation), own_target)

        self._pass_up(Operation.MAP_EXITS, inputs, target, visit)
        return results

    def close(self) -> None:
        """Ends the run on all ranks, which have to call it together."""
        if not self._is_open:
            return
        if self._watchdog.failure is None:
            with self._guarded(Operation.SHUTDOWN.call):
                self._announce(Announcement(Operation.SHUTDOWN))
                self._take_posted(None)
                self._channels.flush()
                self._headers.close()
                dist.barrier(group=self._world.groups.control)
        self._is_open = False
        self._at_exit.cancel()
        self._watchdog.close()
        if self._world.owns_default_group:
            dist.destroy_process_group()

    def _pass_up(
        self, operation: Operation, inputs: Tree, target: Tree, visit: Callable[[int, Tree, Tree], None]
    ) -> None:
        """Runs this rank's components; ``visit(i, output, target)`` sees each output."""
        with self._guarded(operation.call):
            packet = _kept(Packet(inputs, target, None))
            number, is_new = self._programs.number(operation, [packet]) if self.rank == 0 else (0, False)
            program = self._programs.evaluation(self._announce(Announcement(operation, number, is_new)).plan)
            plan, transport = program.plan, program.transport
            self._take_posted(None)
            if plan.is_known:
                transport.arrivals = plan.post(self._channels)
            if self.rank > 0:
                packet = transport.receive_packet(self._own[0], 0)
            packet = packet.to(self._world.device)
            for i in self._own:
                packet = packet._replace(activation=self._components[i].main_net(packet.activation))
                visit(i, packet.activation, packet.target)
            if self._own[-1] < len(self._components) - 1:
                transport.send_packet(self._own[-1], 0, packet)
            plan.is_known = True
            self._channels.next_step()

    def _announce_step(self, workload: Workload, step: Step, flag: int) -> Announcement:
        if self.rank > 0:
            return self._announce(Announcement(Operation.TRAINING_STEP))
        m = len(step.packets)
        scheduled = self._programs.scheduled(workload, m)
        number, is_new = self._programs.number(Operation.TRAINING_STEP, step.packets, scheduled.digest)
        return self._announce(
            Announcement(
                Operation.TRAINING_STEP,
                number,
                is_new,
                m,
                step.number,
                scheduled.digest,
                flag,
                weights=(tuple(map(float, step.weights[0])), tuple(map(float, step.weights[-1]))),
            )
        )

    def _announce(self, own: Announcement) -> Announcement:
        """Says what comes next, on rank 0; on the others, what rank 0 has said, which has to be what is expected."""
        announcement = self._headers.next(own)
        if announcement.operation is not own.operation:
            raise RuntimeError(
                f"rank {self.rank} calls {own.operation.call}, but rank 0 {announcement.operation.call}; all "
                "ranks have to make the same calls in the same order."
            )
        return announcement

    def _take_posted(self, plan: Plan | None) -> Arrivals | None:
        """What has been made ready for a plan; what has been for another one is got rid of."""
        posted, self._posted = self._posted, None
        if posted is None:
            return None
        if posted[0] is not plan:
            posted[0].drain(self._channels, posted[1])
            return None
        return posted[1]

    @contextlib.contextmanager
    def _guarded(self, doing: str) -> Iterator[None]:
        """Makes sure that all ranks end if this one fails, and that this one says why if another one does."""
        if not self._is_open or self._watchdog.failure is not None:
            raise RankFailedError(self._watchdog.failure or "model.shutdown() has been called")
        self._doing = doing
        try:
            yield
        except PeerLost as lost:
            cause = "its process has ended, or its machine is lost"
            failure = self._watchdog.wait_for_cause() or self._watchdog.report(lost.rank, cause)
            raise RankFailedError(f"{failure} ({lost})") from None
        except BaseException as error:
            place = f" (in {self._executor.current})" if self._executor and self._executor.current else ""
            self._watchdog.report(self.rank, f"{type(error).__name__}: {error}{place}")
            raise
        finally:
            self._doing = _OUTSIDE

    def _activity(self) -> tuple[str, tuple[int, float] | None]:
        action = self._executor.current if self._executor is not None else None
        return f"{self._doing}, action {action}" if action else self._doing, self._channels.waiting

    def _leave(self) -> None:
        """At the end of a process that has not called `close`: an error is reported, sends are completed."""
        error = getattr(sys, "last_value", None)
        if error is not None and self._watchdog.failure is None:
            self._watchdog.report(self.rank, f"{type(error).__name__}: {error} (outside of the model)")
        if self._watchdog.failure is None:
            with contextlib.suppress(PeerLost):
                self._channels.flush()
            self._watchdog.leave()
        if self._watchdog.failure is not None:
            os._exit(1)  # this process has done its part, but the run has failed


def _kept(packet: Packet) -> Packet:
    """Messages may leave after a call has returned, and the batch be overwritten by then."""
    return packet._replace(
        target=map_tensors(Tensor.clone, packet.target), network_input=map_tensors(Tensor.clone, packet.network_input)
    )
