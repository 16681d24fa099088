"""Before they begin, the ranks make sure that they have built the same model."""

from __future__ import annotations

import os
import socket
from datetime import timedelta
from typing import Any

import torch.distributed as dist
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from interlocking_backprop.transport.process_groups import World


def agree(world: World, facts: dict[str, Any]) -> None:
    """Compares facts that have to be the same on all ranks.

    Args:
        world: the ranks.
        facts: by the name under which a difference is reported.

    Raises:
        ValueError: on every rank, naming what differs and where.
    """
    everybody: list[Any] = [None] * world.size
    dist.all_gather_object(everybody, facts, group=world.groups.control)
    for rank, theirs in enumerate(everybody):
        for name, value in everybody[0].items():
            if theirs.get(name) != value:
                raise ValueError(
                    f"rank {rank} differs from rank 0 in its {name}: {_short(theirs.get(name))} in place of "
                    f"{_short(value)}; every rank has to build the same model with the same versions."
                )


def from_rank_0(world: World, value: Any) -> Any:
    """The value that rank 0 has."""
    box = [value]
    dist.broadcast_object_list(box, group=world.groups.control, group_src=0)
    return box[0]


def serve_store(world: World) -> TCPStore:
    """A store that all ranks share; rank 0 serves it."""
    timeout = timedelta(seconds=60)
    address: tuple[str, int] | None = None
    own: TCPStore | None = None
    if world.rank == 0:
        host = os.environ.get("MASTER_ADDR") or _own_address()
        own = TCPStore(host, 0, is_master=True, wait_for_workers=False, timeout=timeout)
        address = (host, own.port)
    host, port = from_rank_0(world, address)
    return own or TCPStore(host, port, is_master=False, timeout=timeout)


def _own_address() -> str:
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError:  # a machine that does not know its own name has no others to talk to
        return "127.0.0.1"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else text[:200] + "…"
