"""What this rank carries out: for each kind of batch and scheme a schedule, its messages and an executor, made once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from interlocking_backprop.engine.component import Component
from interlocking_backprop.engine.executor import Executor, Packet, Place
from interlocking_backprop.engine.losses import Loss
from interlocking_backprop.engine.shared_gradients import between
from interlocking_backprop.engine.ties import Tie
from interlocking_backprop.engine.tree import tensors
from interlocking_backprop.schedule.action import Action, Kind
from interlocking_backprop.schedule.costs import Costs
from interlocking_backprop.schedule.dependencies import Dependencies
from interlocking_backprop.schedule.list_scheduling import list_schedule
from interlocking_backprop.schedule.schedule import Schedule
from interlocking_backprop.schedule.validate import validate
from interlocking_backprop.scheme.streams import Workload
from interlocking_backprop.transport.announcement import Announcement, Operation, digest
from interlocking_backprop.transport.channels import Channels
from interlocking_backprop.transport.exchange import PacketFormat, Plan, RankTransport
from interlocking_backprop.transport.packing import Layout, TensorFormat


@dataclass(frozen=True)
class Program:
    """What this rank does in an operation with certain formats.

    Attributes:
        plan: its messages.
        transport: takes them.
        executor: of a training step; None in an evaluation.
    """

    plan: Plan
    transport: RankTransport
    executor: Executor | None


class Scheduled(NamedTuple):
    """A schedule, and the number by which the ranks make sure that they follow the same one."""

    schedule: Schedule
    digest: int


class Programs:
    """The programs of one rank.

    Args:
        components: of the whole model.
        losses: of each.
        ties: the weights that they share.
        placement: for each component its rank.
        rank: of this process.
        device: where it computes.
        channels: its messages.
        costs: what orders are found for.
        max_graphs: bounds the graphs alive on a rank.
    """

    def __init__(
        self,
        components: Sequence[Component],
        losses: Sequence[Loss],
        ties: Sequence[Tie],
        placement: tuple[int, ...],
        rank: int,
        device: torch.device,
        channels: Channels,
        costs: Costs | None,
        max_graphs: int | None,
    ) -> None:
        self._components, self._losses, self._ties = components, losses, ties
        self._placement, self._rank, self._device, self._channels = placement, rank, device, channels
        self._own = [i for i, owner in enumerate(placement) if owner == rank]
        self._costs, self._max_graphs = costs, max_graphs
        self._schedules: dict[int, Scheduled] = {}
        self._programs: dict[int, Program] = {}
        # By operation, schedule and shapes: what else the packets may look like, each with its number.
        self._numbered: defaultdict[tuple[object, ...], list[tuple[int, list[PacketFormat]]]] = defaultdict(list)
        self._n_numbers = 0

    def number(self, operation: Operation, packets: Sequence[Packet], digest: int = 0) -> tuple[int, bool]:
        """The number by which an operation on such packets, by this schedule, goes, and whether it is new."""
        shapes = tuple(t.shape for packet in packets for part in packet for t in tensors(part))
        known = self._numbered[operation, digest, len(packets), shapes]
        for number, formats in known:
            if all(f.is_of(packet) for f, packet in zip(formats, packets, strict=True)):
                return number, False
        known.append((self._n_numbers, list(map(PacketFormat.of, packets))))
        self._n_numbers += 1
        return self._n_numbers - 1, True

    def scheduled(self, workload: Workload, n_microbatches: int) -> Scheduled:
        known = self._schedules.get(n_microbatches)
        if known is None or known.schedule.workload != workload:
            schedule = list_schedule(workload, n_microbatches, self._placement, self._costs, self._max_graphs)
            validate(schedule)
            text = [str(schedule), repr(workload.scheme.matrix.tolist())]
            known = self._schedules[n_microbatches] = Scheduled(schedule, digest(text))
        return known

    def training(self, announcement: Announcement, workload: Workload) -> Program:
        schedule, own_digest = self.scheduled(workload, announcement.n_microbatches)
        if own_digest != announcement.digest:
            raise RuntimeError(
                f"rank {self._rank} follows scheme {workload.scheme.name!r} by another schedule than rank 0; call "
                "set_scheme(), and freeze or unfreeze parameters, on all ranks alike."
            )
        program = self._programs.get(announcement.plan)
        if program is None:
            actions = schedule.actions[self._rank]
            incoming, outgoing = self._shared_layouts(schedule)
            plan = Plan(actions, self._placement, shared_in=incoming, shared_out=outgoing)
            transport = RankTransport(plan, self._channels)
            components = {i: self._components[i] for i in self._own}
            devices = dict.fromkeys(self._own, self._device)
            executor = Executor(actions, workload, components, devices, self._losses, self._ties, transport)
            program = self._programs[announcement.plan] = Program(plan, transport, executor)
        return program

    def evaluation(self, number: int) -> Program:
        if number not in self._programs:
            first, last = self._own[0], self._own[-1]
            actions = [Action(first, Kind.RECV_F, 0)] if first > 0 else []
            actions += [Action(last, Kind.SEND_F, 0)] if last < len(self._components) - 1 else []
            plan = Plan(actions, self._placement)
            self._programs[number] = Program(plan, RankTransport(plan, self._channels), None)
        return self._programs[number]

    def _shared_layouts(self, schedule: Schedule) -> tuple[dict[Place, Layout], dict[Place, Layout]]:
        """The gradients of shared weights that come in, and that go out, as a `Plan` has them."""
        dependencies = Dependencies(schedule.workload, schedule.n_microbatches, self._placement)
        ties = [tie for tie in self._ties if tie.components in schedule.workload.ties]
        incoming: dict[Place, Layout] = {}
        outgoing: dict[Place, Layout] = {}
        for rank, (j, kind, _, _) in schedule:
            for i in dependencies.receivers(j) if kind is Kind.REDUCE_GRAD else ():
                weights = [self._components[j].main_net.get_parameter(t.name_in(j)) for t in between(ties, i, j)]
                layout = Layout([TensorFormat(tuple(w.shape), w.dtype, requires_grad=False) for w in weights])
                if rank == self._rank:
                    outgoing[j, i] = layout
                elif self._placement[i] == self._rank:
                    incoming[j, i] = layout
        return incoming, outgoing
