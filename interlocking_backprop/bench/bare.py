"""The same order of passes and messages in a bare loop: what the host itself takes, without a runtime around it.

It knows the schedule and the shapes beforehand, checks nothing, and has no targets, losses of heads, random numbers,
optimizer or watchdog. Receives are posted a step ahead, sends waited for a step later, one group a direction.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from interlocking_backprop.bench.emulated import EmulatedComponent
from interlocking_backprop.schedule.action import Action, Kind
from interlocking_backprop.schedule.schedule import Schedule

Message = tuple[dist.Work, Tensor]


def bare_times(schedule: Schedule, rank: int, unit: float, n_steps: int) -> list[float]:
    """When each step ended on this rank, in seconds; a component per rank, no joint pass in two halves.

    Args:
        schedule: of all ranks.
        rank: of this process.
        unit: of the components, seconds.
        n_steps: how many.
    """
    component = EmulatedComponent(unit)
    weights = list(component.parameters())
    work = schedule.workload.components[rank]
    up, down = dist.new_group(), dist.new_group()
    actions = schedule.actions[rank]

    def post() -> dict[Action, Message]:
        posted = {}
        for action in actions:
            if action.kind in (Kind.RECV_F, Kind.RECV_B):
                buffer = torch.empty(1, 8)
                forward = action.kind is Kind.RECV_F
                peer = rank - 1 if forward else rank + 1
                posted[action] = (_posted(dist.irecv(buffer, peer, group=up if forward else down)), buffer)
        return posted

    ends = []
    following = post()
    sent: list[list[Message]] = [[], []]
    for _ in range(n_steps):
        arriving, following = following, post()
        inputs: dict[int | None, Tensor] = {}
        outputs: dict[int | None, Tensor] = {}
        streams: dict[Action, Tensor] = {}
        for action in actions:
            _, kind, m, stream, _ = action
            if kind in (Kind.RECV_F, Kind.RECV_B):
                message = arriving.pop(action)
                message[0].wait()
                if kind is Kind.RECV_F:
                    inputs[m] = message[1].requires_grad_(bool(work.streams))
                else:
                    streams[action] = message[1]
            elif kind is Kind.FORWARD:
                outputs[m] = component(inputs.get(m, torch.zeros(1, 8)))
            elif kind in (Kind.SEND_F, Kind.SEND_B):
                value = outputs[m].detach() if kind is Kind.SEND_F else streams[action]
                forward = kind is Kind.SEND_F
                peer = rank + 1 if forward else rank - 1
                sent[-1].append((_posted(dist.isend(value, peer, group=up if forward else down)), value))
            elif kind in (Kind.BACKWARD_INPUT, Kind.BACKWARD_WEIGHT, Kind.FULL_BACKWARD):
                wanted: list[Tensor] = [] if kind is Kind.BACKWARD_INPUT else list(weights)
                wanted += [] if kind is Kind.BACKWARD_WEIGHT else [inputs[m]]
                gradients = torch.autograd.grad(outputs[m], wanted, torch.ones(1, 8), retain_graph=True)
                if stream is not None:
                    streams[Action(rank, Kind.SEND_B, m, stream)] = gradients[-1]
        for message in sent.pop(0):
            message[0].wait()
        sent.append([])
        ends.append(time.perf_counter())
    _drain(actions, rank, following, up, down)
    return ends


def _drain(
    actions: Sequence[Action], rank: int, posted: dict[Action, Message], up: dist.ProcessGroup, down: dist.ProcessGroup
) -> None:
    """Gives the receives that were posted ahead something to receive."""
    sends = []
    for action in actions:
        if action.kind in (Kind.SEND_F, Kind.SEND_B):
            forward = action.kind is Kind.SEND_F
            value = torch.zeros(1, 8)
            peer = rank + 1 if forward else rank - 1
            sends.append((_posted(dist.isend(value, peer, group=up if forward else down)), value))
    for work, _ in (*posted.values(), *sends):
        work.wait()


def _posted(work: dist.Work | None) -> dist.Work:
    assert work is not None
    return work
