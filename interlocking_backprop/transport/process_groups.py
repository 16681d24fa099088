"""The processes of a model: who they are, and the groups through which they talk."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from datetime import timedelta

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class Groups:
    """Process groups, each with an order of messages of its own.

    Attributes:
        up: activations, to the next rank.
        down: streams, to the rank before; and the network's output, to any rank where a loss asks for it.
        shared: gradients of weights that components on several ranks share, to any rank.
        headers: announcements of what comes next, to the next rank; on the CPU.
        control: everything else that is said, on the CPU.
    """

    up: dist.ProcessGroup
    down: dist.ProcessGroup
    shared: dist.ProcessGroup
    headers: dist.ProcessGroup
    control: dist.ProcessGroup


@dataclass(frozen=True)
class World:
    """This process among those of the model.

    Attributes:
        rank: of this process.
        size: the number of processes.
        device: where this process computes.
        groups: how they talk.
        owns_default_group: whether the default process group was made here, to be ended here.
    """

    rank: int
    size: int
    device: torch.device
    groups: Groups
    owns_default_group: bool

    def leave(self) -> None:
        """Closes the connections; a default group that somebody else has made stays."""
        for field in fields(self.groups):
            dist.destroy_process_group(getattr(self.groups, field.name))
        if self.owns_default_group:
            dist.destroy_process_group()


def has_ranks() -> bool:
    """Whether this is one of several processes, started by torchrun or joined by ``init_process_group``."""
    if not dist.is_available():
        return False
    if dist.is_initialized():
        return dist.get_world_size() > 1
    return dist.is_torchelastic_launched() and int(os.environ.get("WORLD_SIZE", "1")) > 1


def join(device: torch.device | None, timeout: timedelta) -> World:
    """Joins the other processes. All of them have to call it.

    Args:
        device: where this process computes; None for the accelerator of its local rank, or else the CPU.
        timeout: how long to wait for the others.

    Raises:
        ValueError: if this machine has no accelerator for this process, but has some for others.
    """
    device = device or _default_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    owns = not dist.is_initialized()
    if owns:
        dist.init_process_group("gloo" if device.type == "cpu" else None, timeout=timeout)
    # A failing rank is noticed by its neighbours at once and by the watchdog; this is only a last resort.
    patient = timeout + timedelta(minutes=5)
    fast = dist.Backend.NCCL if device.type == "cuda" else dist.Backend.GLOO
    groups = [dist.new_group(backend=backend, timeout=patient) for backend in (fast, fast, fast, "gloo", "gloo")]
    return World(dist.get_rank(), dist.get_world_size(), device, Groups(*groups), owns)


def _default_device() -> torch.device:
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None:
        return torch.device("cpu")
    local_rank, n = (
        int(os.environ.get("LOCAL_RANK", dist.get_rank() if dist.is_initialized() else 0)),
        torch.accelerator.device_count(),
    )
    if local_rank >= n:
        raise ValueError(
            f"local rank {local_rank} has no accelerator: this machine has {n}; start at most {n} processes on it "
            f"(--nproc-per-node {n}), or pass devices=['cpu'] to all ranks."
        )
    return torch.device(accelerator.type, local_rank)
