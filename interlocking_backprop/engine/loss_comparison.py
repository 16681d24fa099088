"""Whether a loss of the first batch as a whole is the mean of those of its micro-batches.

A loss that nobody knows is taken for a mean over the samples. If it is something else, a mean over the tokens that are
not padding, say, or one that compares samples with one another, then a step depends on how many micro-batches there
are, and nothing else would tell. So the first batch is looked at twice, value and gradient.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from interlocking_backprop.engine.loss_counts import loss_name
from interlocking_backprop.engine.losses import Loss, part_of_mean
from interlocking_backprop.engine.tree import Tree, map_tensors, tensors


class Part(NamedTuple):
    """What a loss was called with for a micro-batch, and the micro-batch's share."""

    output: Tree
    target: Tree
    component_input: Tree
    network_input: Tree
    network_output: Tree
    share: float | Tensor


class Comparison:
    """Of a batch with its parts, as soon as all of them are there.

    Args:
        loss: that is compared, once.
        component: whose loss it is.
        n_microbatches: how many parts there will be.
    """

    def __init__(self, loss: Loss, component: int, n_microbatches: int) -> None:
        self.component = component
        self._loss, self._n, self._parts = loss, n_microbatches, list[Part]()

    def add(self, part: Part) -> None:
        """Keeps a part; the last one is compared with the whole, and a difference becomes a warning."""
        self._parts.append(part._replace(output=map_tensors(Tensor.detach, part.output)))
        if len(self._parts) < self._n:
            return
        name = f"the loss {loss_name(self._loss.function)} of component {self.component}"
        try:
            loss = copy.deepcopy(self._loss)  # it may remember what it has been called with
            whole, parts = self._whole(loss), self._of_parts(loss)
            # Half of the digits of what has the fewest.
            tolerance = max(torch.finfo(t.dtype).eps for t in (whole.value, *whole.gradients)) ** 0.5
            difference, noise = whole.difference(parts), max(whole.difference(self._whole(loss)))
        except Exception as error:
            self._loss.settle()
            warnings.warn(
                f"{name} could not be called with the first batch as a whole, to be compared with its {self._n} "
                f"micro-batches ({type(error).__name__}: {error}). See that it is a mean over the samples, or has a "
                "method n_samples(target).",
                stacklevel=2,
            )
            return
        if not bool(whole.value.isfinite()):
            return  # nothing can be said yet
        self._loss.settle()
        # What draws random numbers differs from itself.
        if noise > tolerance or max(difference) <= tolerance:
            return
        warnings.warn(
            f"{name} gives {whole.value.item():.6g} for the first batch, but {parts.value.item():.6g} for its "
            f"{self._n} micro-batches put together, and gradients at its output that differ by {difference[1]:.1%}. "
            "So training depends on n_microbatches. If the loss is a mean over something else than samples (targets "
            "that are not ignored, weights of classes), give it a method n_samples(target) that counts them. If it "
            "compares samples with one another (pairs of views), put what belongs together into one sample, along a "
            "further dimension, or use n_microbatches=1.",
            stacklevel=2,
        )

    def _whole(self, loss: Loss) -> _Outcome:
        columns = zip(*(part[:-1] for part in self._parts), strict=True)
        return _outcome(loss, Part._make([*map(_joined, columns), 1.0]), self.component)

    def _of_parts(self, loss: Loss) -> _Outcome:
        outcomes = [_outcome(loss, part, self.component) for part in self._parts]
        value = torch.stack([outcome.value for outcome in outcomes]).sum()
        return _Outcome(value, [_together(column) for column in zip(*(o.gradients for o in outcomes), strict=True)])


class _Outcome(NamedTuple):
    """The value of a loss, and its gradients at the output."""

    value: Tensor
    gradients: list[Tensor]

    def difference(self, other: _Outcome) -> tuple[float, float]:
        """That of the values, and of the gradients, relative to the larger one; inf where one is nan."""
        gradients = [_flat(outcome.gradients) for outcome in (self, other)]
        return _relative(self.value, other.value), _relative(*gradients)


def _outcome(loss: Loss, part: Part, component: int) -> _Outcome:
    with torch.enable_grad():
        output = map_tensors(lambda t: t.detach().requires_grad_(t.is_floating_point()), part.output)
        leaves = [t for t in tensors(output) if t.requires_grad]
        value = loss(output, *part[1:-1], component)
    gradients: Sequence[Tensor] = ()
    if leaves and value.requires_grad:
        gradients = torch.autograd.grad(value, leaves, allow_unused=True, materialize_grads=True)
    return _Outcome(part_of_mean(value.detach(), part.share), [part_of_mean(g, part.share) for g in gradients])


def _joined(trees: Sequence[Tree]) -> Tree:
    """The batch that micro-batches were cut from."""
    flat = [pytree.tree_flatten(tree) for tree in trees]
    columns = zip(*(leaves for leaves, _ in flat), strict=True)
    return pytree.tree_unflatten([_together(column) for column in columns], flat[0][1])


def _together(leaves: Sequence[Tree]) -> Tree:
    """Leaves along dimension 0; what all samples share stays as it is."""
    first = leaves[0]
    if not isinstance(first, Tensor) or first.dim() == 0:
        return first
    is_shared = all(leaf.shape == first.shape and leaf.data_ptr() == first.data_ptr() for leaf in leaves)
    return first if is_shared else torch.cat(list(leaves))


def _flat(gradients: Sequence[Tensor]) -> Tensor:
    return torch.cat([g.flatten() for g in gradients]) if gradients else torch.zeros(1)


def _relative(a: Tensor, b: Tensor) -> float:
    scale = max(float(torch.linalg.vector_norm(t)) for t in (a, b))
    difference = float(torch.linalg.vector_norm(a - b))
    return 0.0 if difference == 0 else difference / scale if difference == difference else float("inf")
