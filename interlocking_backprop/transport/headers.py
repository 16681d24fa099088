"""Announcements on their way from rank to rank, one made ready ahead."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from interlocking_backprop.transport.announcement import Announcement, Operation
from interlocking_backprop.transport.channels import Channels
from interlocking_backprop.transport.process_groups import World


class Headers:
    """Passes announcements on, from rank 0 up.

    Args:
        world: the ranks.
        channels: of this one.
        most_shares: in an announcement.
    """

    def __init__(self, world: World, channels: Channels, most_shares: int) -> None:
        self._rank, self._last = world.rank, world.size - 1
        self._channels, self._size = channels, Announcement.size(most_shares)
        self._sent: tuple[dist.Work, Tensor] | None = None
        self._next = self._expect() if self._rank > 0 else None

    def next(self, own: Announcement) -> Announcement:
        """The next announcement: this rank's own on rank 0, that of rank 0 elsewhere. It is passed on."""
        if self._next is None:
            header = own.to_tensor(self._size)
        else:
            work, header = self._next
            self._channels.wait(work, self._rank - 1)
        if self._rank < self._last:
            self.close()
            self._sent = self._channels.send_header(header, self._rank + 1), header
        if self._next is None:
            return own
        announcement = Announcement.from_tensor(header)
        self._next = self._expect() if announcement.operation is not Operation.SHUTDOWN else None
        return announcement

    def close(self) -> None:
        """Waits until the last announcement has been taken."""
        if self._sent is not None:
            self._channels.wait(self._sent[0], self._rank + 1)
            self._sent = None

    def _expect(self) -> tuple[dist.Work, Tensor]:
        header = torch.empty(self._size, dtype=torch.float64)
        return self._channels.expect_header(header, self._rank - 1), header
