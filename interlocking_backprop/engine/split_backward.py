"""A joint backward pass in two halves: the gradient of the inputs now, that of the weights when there is time.

The idea is that of zero-bubble pipelines (Qi et al., ICLR 2024): whoever waits below needs the input gradient alone,
and the weight gradients can fill a gap later. The second half does not walk through the component again. It starts from
the gradients that the first half met at the *junctions*, the nodes of the graph where a branch leaves for the weights:

        outputs ──► addmm ──► tanh ──► addmm ──► inputs        the spine: all that leads to the inputs
                      │                  │
                   weights            weights                  branches, left out by the first half

Both halves together cost what the joint pass costs, and give the same numbers to the bit. Autograd hands over what a
junction gets before the hooks on that tensor see it; so hooks that change gradients do so in each half, once.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge
from torch.nn import Parameter


class SplitBackward:
    """A backward pass through the graph of a component, in two halves.

    Args:
        outputs: tensors that want a gradient.
        leaves: the inputs that want one.
        parameters: the weights that want one.
    """

    def __init__(self, outputs: Sequence[Tensor], leaves: Sequence[Tensor], parameters: Sequence[Parameter]) -> None:
        self._outputs, self._leaves, self._parameters = list(outputs), list(leaves), list(parameters)
        self._branches = _branches(self._outputs, self._leaves, self._parameters)
        self._gradient: list[Tensor] = []
        self._met: deque[Tensor | None] = deque()

    def inputs(self, gradient: Sequence[Tensor]) -> list[Tensor]:
        """The first half: the gradient of the inputs, from that of the outputs."""
        self._gradient = list(gradient)
        junctions = self._branches.junctions if self._branches is not None else []
        wanted = [*self._leaves, *(edge for junction in junctions for edge in junction.edges)]
        found = torch.autograd.grad(
            self._outputs,
            wanted,  # type: ignore[arg-type]  # tensors and edges may be mixed
            self._gradient,
            retain_graph=True,
            allow_unused=True,
        )
        n = len(self._leaves)
        self._met.extend(found[n:])
        pairs = zip(self._leaves, found[:n], strict=True)
        return [torch.zeros_like(leaf) if g is None else g for leaf, g in pairs]

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
        for junction in self._branches.junctions:
            met = [(edge, g) for edge in junction.edges if (g := self._met.popleft()) is not None]
            if met:
                edges, gradients = zip(*met, strict=True)
                torch.autograd.backward(edges, gradients, inputs=junction.weights, retain_graph=keep_graph)


class _Junction(NamedTuple):
    """A node on the way to the inputs where a branch leaves for weights.

    Attributes:
        edges: by which gradients come in.
        weights: that branch off.
    """

    edges: list[GradientEdge]
    weights: list[Parameter]


class _Branches(NamedTuple):
    """Where the weights are.

    Attributes:
        junctions: from the outputs on.
        roots: indices of outputs that do not depend on the inputs, with the weights that they depend on.
    """

    junctions: list[_Junction]
    roots: dict[int, list[Parameter]]


def _branches(outputs: Sequence[Tensor], leaves: Sequence[Tensor], parameters: Sequence[Parameter]) -> _Branches | None:
    """Finds the branches; None if two of them share a weight, for then the halves cannot be told apart."""
    inputs = {get_gradient_edge(leaf).node for leaf in leaves}
    weights = {get_gradient_edge(parameter).node: parameter for parameter in parameters}
    roots = [get_gradient_edge(output) for output in outputs]
    spine: set[Node] = set()
    below: dict[Node, dict[Parameter, None]] = {}  # the weights that a node off the spine leads to
    order = _postorder([root.node for root in roots])
    for node in order:
        children = [child for child, _ in node.next_functions if child is not None]
        if node in inputs or any(child in spine for child in children):
            spine.add(node)
        elif node in weights:
            below[node] = {weights[node]: None}
        else:
            below[node] = {p: None for child in children for p in below[child]}
    found: dict[Node, _Junction] = {}
    for node in reversed(order):
        if node in spine:
            wanted = {p: None for child, _ in node.next_functions if child in below for p in below[child]}
            if wanted:
                found[node] = _Junction([], list(wanted))
    ends = [(root.node, root.output_nr) for root in roots]
    ends += [(child, n) for node in order for child, n in node.next_functions if child is not None]
    for end, n in dict.fromkeys(ends):
        if end in found:
            found[end].edges.append(GradientEdge(end, n))
    junctions = list(found.values())
    detached = {n: list(below[root.node]) for n, root in enumerate(roots) if below.get(root.node)}
    owners = Counter(p for wanted in (*(j.weights for j in junctions), *detached.values()) for p in wanted)
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
