"""What goes into a step and what comes out of it; and how a batch is cut into micro-batches.

Each micro-batch is weighted by its share of the batch, so that any number of them gives the same gradient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor
from torch.utils import _pytree as pytree

from interlocking_backprop.engine.losses import Loss
from interlocking_backprop.engine.message import Packet
from interlocking_backprop.engine.tree import Tree, map_tensors, tensors

Shares = Sequence[float | Tensor]
"""Of the micro-batches in the mean of a loss over the batch; they sum to 1."""


class Batch(NamedTuple):
    """What a program is run on.

    Attributes:
        packets: for each micro-batch what component 0 receives; empty where component 0 is in another process.
        n_microbatches: into how many parts the batch is cut.
        shares: for each component the shares of the micro-batches in its loss; none in an evaluation.
        seed: the model's; with the number of the step it keys the random numbers.
        step: how many training steps came before.
        flag: a number of the user's that goes to all ranks.
    """

    packets: tuple[Packet, ...]
    n_microbatches: int = 1
    shares: tuple[Shares, ...] = ()
    seed: int = 0
    step: int = 0
    flag: int = 0


class Result(NamedTuple):
    """What has become of a batch in this process.

    Attributes:
        losses: by component the loss that it computes here: the mean over the batch, without dimensions, detached.
        exits: in an evaluation, by component what was made of the output at its exit here.
        flag: the batch's.
    """

    losses: Mapping[int, Tensor]
    exits: Mapping[int, Any]
    flag: int = 0


def cut(
    inputs: Tree, targets: Tree, n_microbatches: int, losses: Sequence[Loss], seed: int, step: int, flag: int
) -> Batch:
    """Cuts a batch into micro-batches, each with its share in every loss.

    Args:
        inputs: x_0, samples along dimension 0. A batch of fewer samples than micro-batches is cut into single samples.
        targets: whatever the losses take, samples along dimension 0.
        n_microbatches: M.
        losses: of each component.
        seed: see `Batch`, as for the two that follow.
        step: how many training steps came before.
        flag: a number of the user's.

    Raises:
        ValueError: if the batch is empty or its tensors differ in their leading sizes.
    """
    size = batch_size(inputs)
    n = min(n_microbatches, size)
    parts = list(zip(split(inputs, n, size), split(targets, n, size), strict=True))
    asked_for = any(loss.wants_network_input for loss in losses)
    packets = [Packet(x, target, map_tensors(Tensor.detach, x) if asked_for else None) for x, target in parts]
    sizes = [size // n + (m < size % n) for m in range(n)]
    shares = {loss: loss.shares([target for _, target in parts], sizes) for loss in set(losses)}
    return Batch(tuple(packets), n, tuple(shares[loss] for loss in losses), seed, step, flag)


def batch_size(inputs: Tree) -> int:
    """The number of samples: the leading size of the tensors of a batch.

    Tensors without dimensions and tensors with leading size 1 are shared by all samples.

    Raises:
        ValueError: if there is no tensor with a batch dimension, or the leading sizes differ.
    """
    sizes = sorted({t.size(0) for t in tensors(inputs) if t.dim() > 0})
    if not sizes:
        raise ValueError("the inputs hold no tensor with a batch dimension; expected samples along dimension 0.")
    if len(sizes) > 2 or (len(sizes) == 2 and sizes[0] != 1):
        shapes = ", ".join(str(tuple(t.shape)) for t in tensors(inputs))
        raise ValueError(
            f"the tensors of the batch have different leading sizes (shapes {shapes}); expected dimension 0 to be the "
            "batch everywhere, or to be 1 for what all samples share."
        )
    if sizes[-1] == 0:
        raise ValueError("the batch is empty; expected at least one sample.")
    return sizes[-1]


def split(tree: Tree, n_microbatches: int, size: int) -> list[Tree]:
    """Cuts a batch of ``size`` samples into micro-batches that differ by at most one sample, the larger ones first.

    Raises:
        ValueError: if a tensor has neither ``size`` samples along dimension 0, nor one that all share.
    """
    if n_microbatches == 1:
        return [tree]

    def parts(t: Tensor) -> tuple[Tensor, ...]:
        if t.dim() == 0 or (t.size(0) == 1 and size > 1):
            return (t,) * n_microbatches
        if t.size(0) != size:
            raise ValueError(
                f"a tensor of the targets has shape {tuple(t.shape)}, the inputs have {size} samples; expected "
                "dimension 0 to be the batch (or 1 for what all samples share)."
            )
        return t.tensor_split(n_microbatches)

    leaves, structure = pytree.tree_flatten(tree)
    columns = [parts(leaf) if isinstance(leaf, Tensor) else (leaf,) * n_microbatches for leaf in leaves]
    return [pytree.tree_unflatten([column[m] for column in columns], structure) for m in range(n_microbatches)]
