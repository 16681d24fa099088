"""Tensors as messages: each as its bytes, so any dtype will do; small ones together, because a message costs more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from interlocking_backprop.tree import Tree, map_tensors

# Tensors up to this many bytes travel together; to copy more costs more than another message.
_SMALL = 1 << 16
_ALIGNMENT = 16


@dataclass(frozen=True)
class TensorFormat:
    """What a tensor looks like before it is there."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    requires_grad: bool

    @classmethod
    def of(cls, tensor: Tensor) -> TensorFormat:
        return cls(tuple(tensor.shape), tensor.dtype, tensor.requires_grad)

    @property
    def n_bytes(self) -> int:
        n = self.dtype.itemsize
        for size in self.shape:
            n *= size
        return n


def format_of(tree: Tree) -> Tree:
    """The structure with a `TensorFormat` in the place of every tensor."""
    return map_tensors(TensorFormat.of, tree)


def packed(values: Sequence[Tensor]) -> list[Tensor]:
    """The messages that tensors travel in, as bytes."""
    messages = []
    for group in _groups([t.nbytes for t in values]):
        if len(group) == 1:
            messages.append(values[group[0]].contiguous().reshape(-1).view(torch.uint8))
            continue
        sizes = [values[n].nbytes for n in group]
        message = torch.empty(sum(map(_aligned, sizes)), dtype=torch.uint8, device=values[group[0]].device)
        begin = 0
        for n, size in zip(group, sizes, strict=True):
            message[begin : begin + size] = values[n].contiguous().reshape(-1).view(torch.uint8)
            begin += _aligned(size)
        messages.append(message)
    return messages


def unpacked(formats: Sequence[TensorFormat], device: torch.device) -> tuple[list[Tensor], list[Tensor]]:
    """The tensors that will be there when the messages have arrived, and the messages to receive into."""
    tensors = [torch.empty(f.shape, dtype=f.dtype, device=device) if f.n_bytes == 0 else None for f in formats]
    messages = []
    for group in _groups([f.n_bytes for f in formats]):
        sizes = [formats[n].n_bytes for n in group]
        total = sum(map(_aligned, sizes)) if len(group) > 1 else sizes[0]
        message = torch.empty(total, dtype=torch.uint8, device=device)
        begin = 0
        for n, size in zip(group, sizes, strict=True):
            f = formats[n]
            # With .data each gets a version counter of its own: to autograd they are tensors like any others.
            tensors[n] = message[begin : begin + size].view(f.dtype).view(f.shape).data
            begin += _aligned(size)
        messages.append(message)
    return [t for t in tensors if t is not None], messages


def _groups(sizes: Sequence[int]) -> list[list[int]]:
    """Which tensors share a message: neighbours that are small; empty ones do not travel."""
    groups: list[list[int]] = []
    together = 0
    for n, size in enumerate(sizes):
        if size == 0:
            continue
        if groups and together + size <= _SMALL:
            groups[-1].append(n)
            together += size
        else:
            groups.append([n])
            together = size
    return groups


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
