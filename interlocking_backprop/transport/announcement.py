"""What the ranks do next, said by rank 0 and passed on from rank to rank.

Rank 0 alone has the batch, so it alone knows whether the shapes are those of the last step, how many micro-batches
there are and what their shares are. Before each operation it sends a header of a fixed size up the ranks, ahead of
everything else. It also shows at once if the ranks do not make the same calls.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

import torch
from torch import Tensor

_FIELDS = 9
_SEED_PART = 2**32


class Operation(IntEnum):
    """What all ranks do together; the names are those of the model's methods."""

    TRAINING_STEP = 1
    FORWARD = 2
    MAP_EXITS = 3
    SHUTDOWN = 4
    GRADIENTS = 5
    SETTLE = 6

    @property
    def call(self) -> str:
        return f"model.{self.name.lower()}()" if self is not Operation.FORWARD else "model(inputs)"


class Announcement(NamedTuple):
    """The header of an operation.

    Attributes:
        operation: what is done.
        program: the number of the program by which it is done; rank 0 counts.
        digest: of the program's schedule, for ranks that follow another one to notice.
        n_microbatches: M of this batch.
        seed: see `Batch`, as for all that follow.
        step: how many training steps came before.
        flag: a number of the user's.
        shares: of the micro-batches, in each of the model's different losses.
    """

    operation: Operation
    program: int = 0
    digest: int = 0
    n_microbatches: int = 0
    seed: int = 0
    step: int = 0
    flag: int = 0
    shares: tuple[tuple[float, ...], ...] = ()

    @staticmethod
    def size(most_shares: int) -> int:
        """The numbers in a header with so many shares at most."""
        return _FIELDS + most_shares

    def to_tensor(self, size: int) -> Tensor:
        """As a header: float64 (size,), in which whole numbers up to 2^53 are exact; seeds go in two parts."""
        high, low = divmod(self.seed, _SEED_PART)
        values: list[float] = [
            self.operation,
            self.program,
            self.digest,
            self.n_microbatches,
            high,
            low,
            self.step,
            self.flag,
        ]
        values += [len(self.shares), *(share for row in self.shares for share in row)]
        return torch.tensor([*values, *[0.0] * (size - len(values))], dtype=torch.float64)

    @classmethod
    def from_tensor(cls, header: Tensor) -> Announcement:
        """The reverse of `to_tensor`."""
        values = header.tolist()
        operation, program, digest, m, high, low, step, flag, n_rows = map(int, values[:_FIELDS])
        shares = tuple(tuple(values[_FIELDS + n * m : _FIELDS + (n + 1) * m]) for n in range(n_rows))
        return cls(Operation(operation), program, digest, m, high * _SEED_PART + low, step, flag, shares)


def digest(parts: Sequence[str]) -> int:
    """A number of 53 bits for some text."""
    value = hashlib.blake2b("\n".join(parts).encode(), digest_size=8).digest()
    return int.from_bytes(value, "little") >> 11
