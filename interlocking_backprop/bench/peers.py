"""PyTorch's own pipeline schedules on the same emulated components, for end-to-end backpropagation."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor
from torch.distributed.pipelining import (
    PipelineStage,
    Schedule1F1B,
    ScheduleGPipe,
    ScheduleInterleavedZeroBubble,
)

from interlocking_backprop.bench.emulated import EmulatedComponent

PEERS = ("torch GPipe", "torch 1F1B", "torch zero bubble")


def peer_times(name: str, rank: int, size: int, n_microbatches: int, unit: float, n_steps: int) -> list[float]:
    """When each step ended on this rank, in seconds.

    Args:
        name: one of `PEERS`.
        rank: of this process.
        size: the number of ranks.
        n_microbatches: M.
        unit: of the components, seconds.
        n_steps: how many.
    """
    component = EmulatedComponent(unit)
    sample = torch.zeros(1, 8)
    stage = PipelineStage(
        component,
        rank,
        size,
        torch.device("cpu"),
        input_args=(sample.clone().requires_grad_(rank > 0),),
        output_args=(sample.clone().requires_grad_(),),
    )

    def loss(output: Tensor, target: Tensor) -> Tensor:
        return output.mean()

    schedule: Any
    if name == "torch zero bubble":
        schedule = ScheduleInterleavedZeroBubble([stage], n_microbatches, loss_fn=loss)
    else:
        kind = {"torch GPipe": ScheduleGPipe, "torch 1F1B": Schedule1F1B}[name]
        schedule = kind(stage, n_microbatches, loss_fn=loss)
    optimizer = torch.optim.SGD(component.parameters(), lr=0.0)
    batch = torch.zeros(n_microbatches, 8)
    ends = []
    for _ in range(n_steps):
        optimizer.zero_grad()
        if rank == 0:
            schedule.step(batch)
        elif rank == size - 1:
            schedule.step(target=batch)
        else:
            schedule.step()
        optimizer.step()
        ends.append(time.perf_counter())
    return ends
