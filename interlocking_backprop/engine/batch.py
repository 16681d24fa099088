"""A batch is cut into micro-batches, each weighted by its share, so that any number of them gives the same gradient."""

from __future__ import annotations

from torch import Tensor
from torch.utils import _pytree as pytree

from interlocking_backprop.engine.tree import Tree, tensors


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
