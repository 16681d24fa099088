"""Batches in an order that a restart in mid-epoch, or another number of workers, does not change.

The order of an epoch is keyed by (seed, epoch), the augmentation of batch b by (seed, epoch, b). Nothing is drawn from
torch's global generator, and none of it is needed to go on from batch b.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from interlocking_backprop.data.split import BatchRequest, Split


def batches(
    split: Split,
    batch_size: int,
    *,
    seed: int = 0,
    epoch: int = 0,
    start: int = 0,
    shuffle: bool = False,
    num_workers: int = 0,
    pin_memory: bool = False,
) -> DataLoader[tuple[Tensor, Tensor]]:
    """The batches of one epoch, as pairs of inputs and targets. The last, smaller batch is kept.

    Args:
        split: what to read.
        batch_size: samples per batch.
        seed: of order and augmentation.
        epoch: which epoch it is; with the seed, the key of order and augmentation.
        start: the first batch to read, so as to go on in mid-epoch. ``len()`` counts the batches from there on.
        shuffle: whether to permute the samples.
        num_workers: processes that read ahead; 0 reads in this one. The batches are the same.
        pin_memory: whether batches are put into page-locked memory, for copies to an accelerator that do not block.
            Without an accelerator it has no effect.

    Raises:
        ValueError: if a number is out of its range.
    """
    for name, value, least in (
        ("batch_size", batch_size, 1),
        ("epoch", epoch, 0),
        ("start", start, 0),
        ("num_workers", num_workers, 0),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} is {value!r}; expected a whole number of at least {least}.")
    requests = _Requests(len(split), batch_size, seed, epoch, start, shuffle)
    if start > requests.n_batches:
        raise ValueError(f"start is {start}; expected at most {requests.n_batches}, the number of batches in an epoch.")
    return DataLoader(
        split,  # type: ignore[arg-type]  # a Dataset in all but name
        batch_sampler=requests,  # type: ignore[arg-type]
        collate_fn=_as_it_is,  # type: ignore[arg-type]  # what __getitems__ returns, not a list of samples
        num_workers=num_workers,
        pin_memory=pin_memory and torch.accelerator.is_available(),
        # Without one of its own the loader would draw its workers' seeds from the global generator.
        generator=torch.Generator(),
    )


@dataclass(frozen=True)
class _Requests:
    """The batch sampler of one epoch."""

    n_samples: int
    batch_size: int
    seed: int
    epoch: int
    start: int
    shuffle: bool

    @property
    def n_batches(self) -> int:
        return math.ceil(self.n_samples / self.batch_size)

    def __len__(self) -> int:
        return self.n_batches - self.start

    def __iter__(self) -> Iterator[BatchRequest]:
        if self.shuffle:
            generator = torch.Generator().manual_seed(_keyed("order", self.seed, self.epoch))
            order = torch.randperm(self.n_samples, generator=generator)
        else:
            order = torch.arange(self.n_samples)
        for b in range(self.start, self.n_batches):
            indices = order[b * self.batch_size : (b + 1) * self.batch_size].tolist()
            yield BatchRequest(_keyed("augmentation", self.seed, self.epoch, b), indices)


def _keyed(*key: int | str) -> int:
    digest = hashlib.blake2b(repr(key).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little")  # torch's CPU generator uses 32 bits of a seed


def _as_it_is(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return batch
