"""A joint backward pass in two halves: the gradient of the inputs now, that of the weights when there is time.

The idea is that of zero-bubble pipelines (Qi et al., ICLR 2024): whoever waits below needs the input gradient alone,
and the weight gradients can fill a gap later. The second half does not walk through the component again. It starts from
the gradients that the first half met at the *junctions*, the nodes of the graph where a branch leaves for the weights:

        outputs ──► addmm ──► tanh ──► addmm ──► inputs        the spine: all that leads to the inputs
                      │                  │
                   weights            weights                  branches, left out by the first half

Both halves together cost what the joint pass costs, and give the same numbers to the bit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge
from torch.nn import Parameter

Gradients = tuple[Tensor | None, ...]


class SplitBackward:
    """A backward pass through the graph of a component, in two halves.

    Args:
        outputs: tensors that want a gradient.
        leaves: the inputs that want one.
        parameters: the weights that want one.
    """

    def __init__(self, outputs: Sequence[Tensor], leaves: Sequence[Tensor], parameters: Sequence[Parameter]) -> None:
        self._outputs, self._leaves, self._parameters = list(outputs), list(leaves), list(parameters)
        self._roots = [get_gradient_edge(output).node for output in self._outputs]
        self._branches = _branches(self._roots, self._leaves, self._parameters)
        self._gradient: list[Tensor] = []
        self._captured: dict[Node, Gradients] = {}

    def inputs(self, gradient: Sequence[Tensor]) -> list[Tensor]:
        """The first half: the gradient of the inputs, from that of the outputs."""
        self._gradient = list(gradient)
        junctions = self._branches.junctions if self._branches is not None else {}
        hooks = [node.register_prehook(partial(self._capture, node)) for node in junctions]
        try:
            return list(
                torch.autograd.grad(
                    self._outputs,
                    self._leaves,
                    self._gradient,
                    retain_graph=True,
                    allow_unused=True,
                    materialize_grads=True,
                )
            )
        finally:
            for hook in hooks:
                hook.remove()

    def weights(self, *, keep_graph: bool) -> None:
        """The second half: accumulates the gradients of the weights.

        Args:
            keep_graph: whether another pass is to come.
        """
        if self._branches is None:
            torch.autograd.backward(self._outputs, self._gradient, inputs=self._parameters, retain_graph=keep_graph)
            return
        for n, wanted in self._branches.roots.items():
            torch.autograd.backward(self._outputs[n], self._gradient[n], inputs=wanted, retain_graph=keep_graph)
        for node, wanted in self._branches.junctions.items():
            met = [(GradientEdge(node, n), g) for n, g in enumerate(self._captured.pop(node)) if g is not None]
            edges, gradients = zip(*met, strict=True)
            torch.autograd.backward(edges, gradients, inputs=wanted, retain_graph=keep_graph)

    def _capture(self, node: Node, gradients: Gradients) -> None:
        self._captured[node] = gradients


@dataclass(frozen=True)
class _Branches:
    """Where the weights are.

    Attributes:
        junctions: nodes on the way to the inputs, with the weights that branch off there.
        roots: indices of outputs that do not depend on the inputs, with the weights that they depend on.
    """

    junctions: dict[Node, list[Parameter]]
    roots: dict[int, list[Parameter]]


def _branches(roots: Sequence[Node], leaves: Sequence[Tensor], parameters: Sequence[Parameter]) -> _Branches | None:
    """Finds the branches; None if two of them share a weight, for then the halves cannot be told apart."""
    inputs = {get_gradient_edge(leaf).node for leaf in leaves}
    weights = {get_gradient_edge(parameter).node: parameter for parameter in parameters}
    spine: set[Node] = set()
    below: dict[Node, dict[Parameter, None]] = {}  # the weights that a node off the spine leads to
    order = _postorder(roots)
    for node in order:
        children = [child for child, _ in node.next_functions if child is not None]
        if node in inputs or any(child in spine for child in children):
            spine.add(node)
        elif node in weights:
            below[node] = {weights[node]: None}
        else:
            below[node] = {p: None for child in children for p in below[child]}
    junctions: dict[Node, list[Parameter]] = {}
    for node in reversed(order):
        if node in spine:
            found = {p: None for child, _ in node.next_functions if child in below for p in below[child]}
            if found:
                junctions[node] = list(found)
    detached = {n: list(below[root]) for n, root in enumerate(roots) if below.get(root)}
    owners = Counter(p for found in (*junctions.values(), *detached.values()) for p in found)
    return _Branches(junctions, detached) if all(count == 1 for count in owners.values()) else None


def _postorder(roots: Sequence[Node]) -> list[Node]:
    """All nodes, each behind those that it leads to."""
    order: dict[Node, None] = {}
    stack = [(root, False) for root in reversed(roots)]
    entered: set[Node] = set()
    while stack:
        node, is_left = stack.pop()
        if is_left:
            order[node] = None
        elif node not in entered:
            entered.add(node)
            stack.append((node, True))
            stack.extend((child, False) for child, _ in node.next_functions if child is not None)
    return list(order)
