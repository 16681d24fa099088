"""What the ranks do next, said by rank 0 and passed on from rank to rank.

Rank 0 alone has the batch, so it alone knows whether the shapes are those of the last step, how many micro-batches
there are and how they are weighted. Before each operation it sends a header of a fixed size up the ranks, ahead of
everything else. It also shows at once if the ranks do not make the same calls.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

import torch
from torch import Tensor

_FIELDS = 7


class Operation(IntEnum):
    """What all ranks do together; the names are those of the model's methods."""

    TRAINING_STEP = 1
    FORWARD = 2
    MAP_EXITS = 3
    SHUTDOWN = 4

    @property
    def call(self) -> str:
        return f"model.{self.name.lower()}()" if self is not Operation.FORWARD else "model(inputs)"


class Announcement(NamedTuple):
    """The header of an operation.

    Attributes:
        operation: what is done.
        plan: number of the formats and the schedule that it follows; rank 0 counts.
        is_new: whether it is the first time: formats are still to be told.
        n_microbatches: M of this batch.
        step: the number of the training step.
        digest: of the schedule, for ranks that follow another one to notice.
        flag: a number of the user's.
        weights: for the auxiliary losses, and for the network's, the shares of the micro-batches.
    """

    operation: Operation
    plan: int = 0
    is_new: bool = False
    n_microbatches: int = 0
    step: int = 0
    digest: int = 0
    flag: int = 0
    weights: tuple[tuple[float, ...], tuple[float, ...]] = ((), ())

    @staticmethod
    def size(most_microbatches: int) -> int:
        """The numbers in a header."""
        return _FIELDS + 2 * most_microbatches

    def to_tensor(self, most_microbatches: int) -> Tensor:
        """As a header: float64 (7 + 2 M,), in which whole numbers up to 2^53 are exact."""
        fields = [self.operation, self.plan, self.is_new, self.n_microbatches, self.step, self.digest, self.flag]
        shares = [[*some, *[0.0] * (most_microbatches - len(some))] for some in self.weights]
        return torch.tensor([*fields, *shares[0], *shares[1]], dtype=torch.float64)

    @classmethod
    def from_tensor(cls, header: Tensor) -> Announcement:
        """The reverse of `to_tensor`."""
        values = header.tolist()
        operation, plan, is_new, m, step, digest, flag = map(int, values[:_FIELDS])
        shares = values[_FIELDS:]
        final = len(shares) // 2
        weights = (tuple(shares[:m]), tuple(shares[final : final + m]))
        return cls(Operation(operation), plan, bool(is_new), m, step, digest, flag, weights)


def digest(parts: Sequence[str]) -> int:
    """A number of 53 bits for some text."""
    value = hashlib.blake2b("\n".join(parts).encode(), digest_size=8).digest()
    return int.from_bytes(value, "little") >> 11
