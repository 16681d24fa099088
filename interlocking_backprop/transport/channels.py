"""Messages between ranks: posted early, waited for late.

Activations go up in one process group, streams and the network's output down in another, so that neither direction
waits for the other; gradients of shared weights, which may go to any rank, have a third. Between two ranks the messages
of a group arrive in the order in which they are sent; schedules are validated for that, and nothing else identifies a
message.
"""

from __future__ import annotations

import pickle
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from interlocking_backprop.transport.process_groups import Groups


class RankFailedError(RuntimeError):
    """Another rank has failed; the message names it and the cause as far as it is known."""


class PeerLost(Exception):  # noqa: N818  (turned into a RankFailedError by whoever knows the cause)
    """The connection to a neighbour broke.

    Attributes:
        rank: the neighbour.
    """

    def __init__(self, rank: int, reason: str) -> None:
        super().__init__(f"the connection to rank {rank} broke ({reason})")
        self.rank = rank


class Channels:
    """The messages of one rank.

    Args:
        groups: the process groups that they go through.
        device: where tensors arrive.

    Attributes:
        groups: the process groups that they go through.
        device: where tensors arrive, and are sent from.
        waiting: the neighbour that this rank waits for and since when (`time.monotonic`), for the watchdog; else None.
    """

    def __init__(self, groups: Groups, device: torch.device) -> None:
        self.groups, self.device = groups, device
        self.waiting: tuple[int, float] | None = None
        # Buffers are kept until they have been sent: those of the step before, and those of this one.
        self._sent: deque[list[tuple[dist.Work, Tensor, int]]] = deque([[], []])

    def send(self, data: Tensor, peer: int, group: dist.ProcessGroup) -> None:
        """Sends a contiguous tensor without waiting."""
        self._sent[-1].append((self._post(dist.isend, data, peer, group), data, peer))

    def receive(self, data: Tensor, peer: int, group: dist.ProcessGroup) -> dist.Work:
        """Makes ready to receive what `send` sends."""
        return self._post(dist.irecv, data, peer, group)

    def send_object(self, value: Any, peer: int, group: dist.ProcessGroup) -> None:
        """Sends anything that pickles, without waiting; for what is said once."""
        data = torch.frombuffer(bytearray(pickle.dumps(value)), dtype=torch.uint8).to(self.device)
        self.send(torch.tensor([len(data)], device=self.device), peer, group)
        self.send(data, peer, group)

    def receive_object(self, peer: int, group: dist.ProcessGroup) -> Any:
        """Waits for what `send_object` sent."""
        size = torch.empty(1, dtype=torch.int64, device=self.device)
        self.wait(self.receive(size, peer, group), peer)
        data = torch.empty(int(size), dtype=torch.uint8, device=self.device)
        self.wait(self.receive(data, peer, group), peer)
        return pickle.loads(data.cpu().numpy().tobytes())

    def send_header(self, header: Tensor, peer: int) -> dist.Work:
        """Sends the announcement of an operation to a neighbour without waiting."""
        return self._post(dist.isend, header, peer, self.groups.headers)

    def expect_header(self, header: Tensor, peer: int) -> dist.Work:
        """Makes ready to receive an announcement."""
        return self._post(dist.irecv, header, peer, self.groups.headers)

    def wait(self, work: dist.Work, peer: int) -> None:
        """Waits for a message (on an accelerator its stream does, not the host).

        Raises:
            PeerLost: if the connection broke.
        """
        # As in a `Connection`, but without what a context manager costs: this is done for every message.
        self.waiting = peer, time.monotonic()
        try:
            work.wait()
        except RuntimeError as error:
            raise PeerLost(peer, _reason(error)) from None
        finally:
            self.waiting = None

    def next_step(self) -> None:
        """Waits until what was sent a step ago has arrived, and lets go of it."""
        for work, _, peer in self._sent.popleft():
            self.wait(work, peer)
        self._sent.append([])

    def _post(
        self, operation: Callable[..., dist.Work | None], data: Tensor, peer: int, group: dist.ProcessGroup
    ) -> dist.Work:
        """Begins to send or to receive."""
        self.waiting = peer, time.monotonic()
        # A profiler would note the end of a message; where that comes after its own, it would write into freed memory.
        is_profiled = torch._C._autograd._profiler_enabled()
        if is_profiled:
            torch._C._autograd._enable_record_function(False)
        try:
            work = operation(data, None, group, 0, peer)
        except RuntimeError as error:
            raise PeerLost(peer, _reason(error)) from None
        finally:
            self.waiting = None
            if is_profiled:
                torch._C._autograd._enable_record_function(True)
        assert work is not None  # None is for ranks outside the group
        return work

    def connection(self, peer: int) -> Connection:
        """A context in which a neighbour is needed."""
        return Connection(self, peer)

    def flush(self) -> None:
        """Waits until everything that was sent has arrived."""
        self.next_step()
        self.next_step()


class Connection:
    """Marks the time in which a neighbour is needed, and names it if it is lost."""

    __slots__ = ("_channels", "_peer")

    def __init__(self, channels: Channels, peer: int) -> None:
        self._channels, self._peer = channels, peer

    def __enter__(self) -> None:
        self._channels.waiting = (self._peer, time.monotonic())

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._channels.waiting = None
        if isinstance(error, RuntimeError):
            raise PeerLost(self._peer, _reason(error)) from None


def _reason(error: RuntimeError) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
