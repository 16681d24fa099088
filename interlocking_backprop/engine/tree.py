"""Activations are a tensor or a nested tuple, list or dict of tensors; here is what is done to all their leaves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

Tree = Any
"""A tensor, or a (nested) tuple, list or dict of tensors and of other values, which are passed along."""


def map_tensors(function: Callable[[Tensor], Any], tree: Tree) -> Tree:
    """The same structure with ``function`` applied to every tensor."""
    if isinstance(tree, Tensor) or tree is None:  # by far the most frequent structures
        return None if tree is None else function(tree)
    return pytree.tree_map_only(Tensor, function, tree)


def tensors(tree: Tree) -> list[Tensor]:
    """All tensors of a structure, in a fixed order."""
    if isinstance(tree, Tensor) or tree is None:
        return [] if tree is None else [tree]
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, Tensor)]


def versions(tree: Tree) -> list[int]:
    """How often each tensor has been changed in place."""
    return [t._version for t in tensors(tree)]


def detached(tree: Tree) -> Tree:
    """The same values, cut off from the graph. Tensors that carried a gradient want one again."""
    return map_tensors(lambda t: t.detach().requires_grad_(t.requires_grad), tree)


def to_device(tree: Tree, device: torch.device) -> Tree:
    """The structure on a device, copies being cut off from the graph; those from pinned memory do not block."""
    if tree is None or (isinstance(tree, Tensor) and tree.device == device):
        return tree

    def moved(t: Tensor) -> Tensor:
        return t if t.device == device else t.detach().to(device, non_blocking=True).requires_grad_(t.requires_grad)

    return map_tensors(moved, tree)
