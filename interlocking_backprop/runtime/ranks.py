"""A process per component, or per several neighbouring ones: `torchrun` on one machine or many.

Every rank carries out its own list of actions, as fast as the messages of its neighbours let it; nobody waits for all.
Rank 0 has the data. Targets travel with the activations, and the last rank has the loss.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from interlocking_backprop.engine.batch import Batch, Result
from interlocking_backprop.engine.component import Component
from interlocking_backprop.engine.joint_updates import refuse_on_ranks
from interlocking_backprop.engine.losses import Loss
from interlocking_backprop.engine.message import Packet
from interlocking_backprop.engine.state import OnGradients, Visit
from interlocking_backprop.engine.ties import Tie
from interlocking_backprop.engine.tree import map_tensors
from interlocking_backprop.runtime.guard import Guard
from interlocking_backprop.runtime.programs import Program, Programs
from interlocking_backprop.schedule.costs import Costs
from interlocking_backprop.schedule.placement import balanced_placement
from interlocking_backprop.schedule.schedule import Schedule
from interlocking_backprop.scheme.streams import Workload
from interlocking_backprop.transport.agreement import agree, from_rank_0
from interlocking_backprop.transport.announcement import Announcement, Operation
from interlocking_backprop.transport.channels import Channels, RankFailedError
from interlocking_backprop.transport.exchange import Session
from interlocking_backprop.transport.headers import Headers
from interlocking_backprop.transport.process_groups import World, join


class _Connected(NamedTuple):
    """What holds connections to other ranks."""

    world: World
    channels: Channels
    headers: Headers
    programs: Programs
    session: Session


class Ranks:
    """Runs this rank's components; a `Runtime`.

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
        refuse_on_ranks(components)
        world = join(device, timeout)
        self._rank, self._size, self._device = rank, size, device = world.rank, world.size, world.device
        agree(world, facts)
        costs = from_rank_0(world, costs)
        placement = balanced_placement(len(components), size, costs)
        self._own = [i for i, owner in enumerate(placement) if owner == rank]
        for i, component in enumerate(components):
            if i in self._own:
                component.to(device)
            else:
                component.discard()
        self._n_components = len(components)
        # Components with the same loss have the same shares, which are announced once: for each component its row.
        different = list(dict.fromkeys(losses))
        self._share_rows = [different.index(loss) for loss in losses]
        channels = Channels(world.groups, device)
        headers = Headers(world, channels, len(different) * most_microbatches)
        programs = Programs(components, losses, ties, placement, rank, device, channels, costs, max_graphs)
        self._connected: _Connected | None = _Connected(world, channels, headers, programs, Session(channels))
        self._guard = Guard(world, channels, timeout)
        self._latest: Program | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Refuses a copy, which would answer to the same messages."""
        raise ValueError(
            "a model on several ranks cannot be copied, for its connections to other ranks are there once; copy the "
            "components that this rank has instead, e.g. copy.deepcopy(model.components[model.local_components[0]])."
        )

    @property
    def rank(self) -> int:
        return self._rank

    @property
    def reads_data(self) -> bool:
        return self._rank == 0

    @property
    def n_ranks(self) -> int:
        return self._size

    @property
    def local_components(self) -> list[int]:
        return list(self._own)

    def devices(self) -> list[torch.device]:
        return [self._device if i in self._own else torch.device("meta") for i in range(self._n_components)]

    def schedule(self, workload: Workload, n_microbatches: int) -> Schedule:
        return self._open.programs.scheduled(workload, n_microbatches).schedule.named_for(workload.scheme)

    def run(
        self,
        workload: Workload,
        batch: Batch | None,
        visit: Visit | None = None,
        on_gradients: OnGradients | None = None,
        *,
        updates: bool = True,
    ) -> Result:
        operation = Operation.TRAINING_STEP if updates else Operation.GRADIENTS
        if workload.is_evaluation:
            operation = Operation.FORWARD if visit is None else Operation.MAP_EXITS
        with self._guard.doing(operation.call):
            own = Announcement(operation)
            if batch is not None:
                batch = batch._replace(packets=tuple(map(_kept, batch.packets)))
                own = self._announcement(operation, workload, batch)
            announced = self._announced(own)
            if batch is None:
                batch = self._batch(announced)
            program = self._open.programs.program(announced.program, workload, batch.n_microbatches, announced.digest)
            if program is not self._latest:
                self._finish_batches()
                self._latest = program
            self._guard.watch(program.executor)
            self._open.session.begin(program.exchange, program.executor.ages | {0})
            result = program.executor.run(batch, visit, on_gradients, updates=updates)
            self._open.session.end()
        return result

    def settle(self) -> None:
        # All ranks have the same programs, so they all know whether there is something to do.
        if self._latest is not None and self._latest.executor.is_delayed:
            with self._guard.doing(Operation.SETTLE.call):
                self._announced(Announcement(Operation.SETTLE))
                self._finish_batches()

    def _finish_batches(self) -> None:
        """Carries out what is left of the batches under way."""
        while self._latest is not None and (ages := self._latest.executor.ages):
            self._guard.watch(self._latest.executor)
            self._open.session.begin(self._latest.exchange, ages)
            self._latest.executor.settle_step()
            self._open.session.end()

    def gather(self, value: Any) -> list[Any]:
        values: list[Any] = [None] * self.n_ranks
        with self._guard.doing("model.gather()"), self._open.channels.connection((self.rank + 1) % self.n_ranks):
            dist.all_gather_object(values, value, group=self._open.world.groups.control)
        return values

    def post(self, key: str, value: Any) -> None:
        self._guard.post(key, value)

    def collect(self, key: str) -> list[Any] | None:
        return self._guard.collect(key)

    def close(self) -> None:
        if not self._guard.is_open:
            return
        if self._guard.has_failed:  # who is still on the way out may wait in a group
            self._guard.close()
            return
        with self._guard.doing(Operation.SHUTDOWN.call):
            world, channels, headers, _, session = self._open
            self._announced(Announcement(Operation.SHUTDOWN))
            self._finish_batches()
            session.drain()
            channels.flush()
            headers.close()
            dist.barrier(group=world.groups.control)
        self._guard.close()
        world.leave()
        # gloo closes a connection when its last user is gone, and takes a second for it: on all ranks now, and not
        # some time in a step of the next model.
        self._connected = None
        del world, channels, headers, session
        gc.collect()

    @property
    def _open(self) -> _Connected:
        if self._connected is None:
            raise RankFailedError("model.shutdown() has been called")
        return self._connected

    def _announcement(self, operation: Operation, workload: Workload, batch: Batch) -> Announcement:
        """What rank 0 says of a batch."""
        _, digest = self._open.programs.scheduled(workload, batch.n_microbatches)
        rows = {row: tuple(map(float, shares)) for row, shares in zip(self._share_rows, batch.shares, strict=False)}
        return Announcement(
            operation,
            self._open.programs.number(digest, batch.packets),
            digest,
            batch.n_microbatches,
            batch.seed,
            batch.step,
            batch.flag,
            tuple(rows[row] for row in sorted(rows)),
        )

    def _announced(self, own: Announcement) -> Announcement:
        """What rank 0 has said, which on the other ranks has to be what they expect."""
        announcement = self._open.headers.next(own)
        if announcement.operation is not own.operation:
            raise RuntimeError(
                f"rank {self.rank} calls {own.operation.call}, but rank 0 {announcement.operation.call}; all "
                "ranks have to make the same calls in the same order."
            )
        return announcement

    def _batch(self, announcement: Announcement) -> Batch:
        """What a rank without data knows of a batch."""
        shares = tuple(announcement.shares[row] for row in self._share_rows) if announcement.shares else ()
        return Batch((), announcement.n_microbatches, shares, announcement.seed, announcement.step, announcement.flag)


def _kept(packet: Packet) -> Packet:
    """Messages may leave after a call has returned, and the batch be overwritten by then."""
    return packet._replace(
        target=map_tensors(Tensor.clone, packet.target), network_input=map_tensors(Tensor.clone, packet.network_input)
    )
