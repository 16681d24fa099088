"""What one rank carries out: for each kind of batch a program, made once.

Only so many programs are kept. All ranks ask for the same ones in the same order, so what one rank has forgotten the
others have, too, and the next time the formats of its messages go ahead of them again.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch

from interlocking_backprop.engine.component import Component
from interlocking_backprop.engine.delayed_executor import executor_of
from interlocking_backprop.engine.executor import Executor
from interlocking_backprop.engine.losses import Loss
from interlocking_backprop.engine.message import Packet
from interlocking_backprop.engine.ties import Tie
from interlocking_backprop.engine.tree import tensors
from interlocking_backprop.runtime.runtime import N_KEPT
from interlocking_backprop.schedule.costs import Costs
from interlocking_backprop.schedule.list_scheduling import list_schedule
from interlocking_backprop.schedule.order import depth_first
from interlocking_backprop.schedule.schedule import Schedule
from interlocking_backprop.schedule.validate import validate
from interlocking_backprop.scheme.coefficients import Scheme
from interlocking_backprop.scheme.streams import Workload
from interlocking_backprop.transport.announcement import digest
from interlocking_backprop.transport.channels import Channels
from interlocking_backprop.transport.exchange import Exchange
from interlocking_backprop.transport.packing import Format

_N_PROGRAMS = 8 * N_KEPT  # a schedule has one for each shape of the inputs


class Program(NamedTuple):
    """What this rank does for batches of one kind: its actions, and the messages among them."""

    executor: Executor
    exchange: Exchange


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
        self._costs, self._max_graphs = costs, max_graphs
        self.scheduled = lru_cache(maxsize=N_KEPT)(self._scheduled)
        self._program = lru_cache(maxsize=_N_PROGRAMS)(self._made)
        # By schedule and shapes, the latest last: what else the packets may look like, each with its number.
        self._numbered: dict[tuple[object, ...], list[tuple[int, list[Format]]]] = {}
        self._n_numbers = 0

    def number(self, digest: int, packets: Sequence[Packet]) -> int:
        """The number by which the program for such packets, by the schedule of this digest, goes."""
        shapes = tuple(t.shape for packet in packets for part in packet for t in tensors(part))
        key = (digest, len(packets), shapes)
        known = self._numbered[key] = self._numbered.pop(key, [])
        if len(self._numbered) > _N_PROGRAMS:
            del self._numbered[next(iter(self._numbered))]
        for number, formats in known:
            if all(f.is_of(packet) for f, packet in zip(formats, packets, strict=True)):
                return number
        known.append((self._n_numbers, list(map(Format.of, packets))))
        self._n_numbers += 1
        return self._n_numbers - 1

    def program(self, number: int, workload: Workload, n_microbatches: int, digest: int) -> Program:
        """The program of a number.

        Args:
            number: that rank 0 has given it.
            workload: that is carried out.
            n_microbatches: M.
            digest: of the schedule that rank 0 follows.

        Raises:
            RuntimeError: if this rank follows another schedule than rank 0.
        """
        own_digest = self.scheduled(workload, n_microbatches).digest
        if own_digest != digest:
            raise RuntimeError(
                f"rank {self._rank} follows scheme {workload.scheme.name!r} by another schedule than rank 0; call "
                "set_scheme(), and freeze or unfreeze parameters, on all ranks alike, and ask for the same exits."
            )
        return self._program(number, workload, n_microbatches)

    def _made(self, number: int, workload: Workload, n_microbatches: int) -> Program:
        schedule = self.scheduled(workload, n_microbatches).schedule
        exchange = Exchange(schedule, self._rank, self._channels, repeats=not workload.is_evaluation)
        own = schedule.components_of(self._rank)
        components = {i: self._components[i] for i in own}
        devices = dict.fromkeys(own, self._device)
        actions = schedule.actions[self._rank]
        executor = executor_of(actions, workload, components, devices, self._losses, self._ties, exchange)
        return Program(executor, exchange)

    def _scheduled(self, workload: Workload, n_microbatches: int) -> Scheduled:
        if workload.is_evaluation:
            schedule = depth_first(workload, n_microbatches, self._placement)
        else:
            schedule = list_schedule(workload, n_microbatches, self._placement, self._costs, self._max_graphs)
        validate(schedule)
        return Scheduled(schedule, digest([str(schedule), repr(_matrices(workload.scheme))]))


def _matrices(scheme: Scheme) -> list[object]:
    return [scheme.matrix.tolist(), *((age, matrix.tolist()) for age, matrix in scheme.delayed.items())]
