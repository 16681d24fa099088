"""Tensors as messages: any dtype will do, as bytes if need be; small ones together, because a message costs more."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from interlocking_backprop.engine.message import Gradient, Packet
from interlocking_backprop.engine.tree import Tree, map_tensors, tensors

# Tensors up to this many bytes travel together; to copy more costs more than another message.
_SMALL = 1 << 16
_ALIGNMENT = 16
# What every backend sends as it is; anything else goes as bytes.
_NATIVE = frozenset([torch.float32, torch.float64, torch.float16, torch.int32, torch.int64, torch.int8, torch.uint8])


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
        return math.prod(self.shape, start=self.dtype.itemsize)

    def is_of(self, value: object) -> bool:
        """Whether that is what a tensor looks like."""
        return (
            isinstance(value, Tensor)
            and value.dtype is self.dtype
            and value.requires_grad is self.requires_grad
            and value.shape == self.shape
        )


class Format:
    """What a packet or a gradient looks like before it is there, and how its tensors travel.

    It is made once for all values that look the same: what there is to find out about them is found out here.

    Args:
        tree: the packet, or the gradient, with a `TensorFormat` in the place of every tensor.
    """

    def __init__(self, tree: Packet | list[TensorFormat]) -> None:
        self.tree = tree
        self._is_packet = isinstance(tree, Packet)
        self._is_flat = all(part is None or isinstance(part, TensorFormat) for part in tree)
        self._tensors = [f for part in tree for f in _formats(part)]
        self._strides = [_strides(f.shape) for f in self._tensors]
        # Empty tensors do not travel; neighbours that are small share a message.
        groups = _groups([f.n_bytes for f in self._tensors])
        self._messages = [self._places(group) for group in groups]
        self._sizes = [sum(_aligned(self._tensors[n].n_bytes) for n in group) for group in groups]
        # By far the most frequent: a gradient. The way through the general case costs half as much again.
        self._is_single = len(self._tensors) == len(groups) == 1
        travelling = {n for group in groups for n in group}
        self._empty = [n for n in range(len(self._tensors)) if n not in travelling]

    @classmethod
    def of(cls, value: Packet | Gradient) -> Format:
        parts = [map_tensors(TensorFormat.of, part) for part in value]
        return cls(Packet(*parts) if isinstance(value, Packet) else parts)

    def is_of(self, value: Packet | Gradient) -> bool:
        """Whether that is what a value looks like."""
        if self._is_flat:
            pairs = zip(self.tree, value, strict=True)
            return all(part is None if form is None else form.is_of(part) for form, part in pairs)
        return Format.of(value).tree == self.tree

    def pack(self, value: Packet | Gradient) -> list[Tensor]:
        """The messages that a value of this format travels in."""
        values = value
        if self._is_packet:
            values = [t.detach() if t.requires_grad else t for part in value for t in tensors(part)]
        if self._is_single:
            return [_message(values[0].contiguous())]
        return [_joined([values[n] for n, _ in places]) for places in self._messages]

    def receive(self, device: torch.device) -> tuple[list[Tensor], list[Tensor]]:
        """The tensors that will be there when the messages have arrived, and the messages to receive into."""
        formats, strides = self._tensors, self._strides
        if self._is_single:
            tensor = torch.empty(formats[0].shape, dtype=formats[0].dtype, device=device)
            return [tensor], [_message(tensor)]
        found: dict[int, Tensor] = {}
        messages = []
        for places, size in zip(self._messages, self._sizes, strict=True):
            if len(places) == 1:
                n = places[0][0]
                found[n] = torch.empty(formats[n].shape, dtype=formats[n].dtype, device=device)
                messages.append(_message(found[n]))
                continue
            message = torch.empty(size, dtype=torch.uint8, device=device)
            for n, offset in places:
                elements = message.view(formats[n].dtype)
                # With .data each gets a version counter of its own: to autograd they are tensors like any others.
                found[n] = elements.as_strided(formats[n].shape, strides[n], offset).data
            messages.append(message)
        for n in self._empty:
            found[n] = torch.empty(formats[n].shape, dtype=formats[n].dtype, device=device)
        return [found[n] for n in range(len(formats))], messages

    def filled(self, values: list[Tensor]) -> Packet | Gradient:
        """The value, from its tensors."""
        if not self._is_packet:
            return values
        remaining = iter(values)
        return Packet(*(_filled(part, remaining) for part in self.tree))

    def zeros(self, device: torch.device) -> Packet | Gradient:
        """A value of this format that holds zeros."""
        return self.filled([torch.zeros(f.shape, dtype=f.dtype, device=device) for f in self._tensors])

    def __str__(self) -> str:
        shown = self.tree.activation if isinstance(self.tree, Packet) else self.tree
        return str(pytree.tree_map_only(TensorFormat, lambda f: f"{tuple(f.shape)} {f.dtype}", shown))

    def _places(self, group: Sequence[int]) -> list[tuple[int, int]]:
        """The tensors in a message: their indices, and where they begin, in elements of theirs."""
        places, begin = [], 0
        for n in group:
            places.append((n, begin // self._tensors[n].dtype.itemsize))
            begin += _aligned(self._tensors[n].n_bytes)
        return places


def _formats(tree: Tree) -> list[TensorFormat]:
    if isinstance(tree, TensorFormat) or tree is None:
        return [] if tree is None else [tree]
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, TensorFormat)]


def _filled(tree: Tree, values: Iterator[Tensor]) -> Tree:
    """The structure with tensors in the place of their formats."""
    if tree is None:
        return None
    if isinstance(tree, TensorFormat):
        value = next(values)
        return value.requires_grad_() if tree.requires_grad else value
    return pytree.tree_map_only(TensorFormat, lambda f: _filled(f, values), tree)


def _joined(values: Sequence[Tensor]) -> Tensor:
    """Tensors as one message; one alone is not copied."""
    if len(values) == 1:
        return _message(values[0].contiguous())
    pieces = []
    for value in values:
        piece = _bytes(value.contiguous())
        pieces.append(piece)
        gap = _aligned(piece.numel()) - piece.numel()
        if gap:
            pieces.append(piece.new_zeros(gap))
    return torch.cat(pieces)


def _message(value: Tensor) -> Tensor:
    """A contiguous tensor, as it can be sent."""
    return value if value.dtype in _NATIVE else _bytes(value)


def _bytes(value: Tensor) -> Tensor:
    """The memory of a contiguous tensor."""
    return value.view(-1).view(torch.uint8)


def _strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Of a contiguous tensor."""
    return torch.empty(shape, device="meta").stride()


def _groups(sizes: Sequence[int]) -> list[list[int]]:
    """Which tensors share a message."""
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
