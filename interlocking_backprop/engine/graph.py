"""The autograd graph of one component and one micro-batch: made by a forward pass, used up by its backward passes.

The graph is cut at both ends. At the input the leaves are detached tensors; at the output its own loss, and the streams
from the component above, come in as gradients. So each backward pass is one call of autograd on this graph alone, and
the last of them frees it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import Parameter

from interlocking_backprop.engine.message import Gradient
from interlocking_backprop.engine.split_backward import SplitBackward
from interlocking_backprop.engine.tree import Tree, tensors
from interlocking_backprop.schedule.action import Kind
from interlocking_backprop.scheme.streams import Source


class Graph:
    """What a component keeps of a micro-batch.

    Args:
        component: index of the component, for messages.
        inputs: x_i, whose tensors are leaves.
        outputs: y_i.
        n_passes: how many backward passes will run; the last one frees the graph.

    Attributes:
        leaves: the tensors of the input that want a gradient.
        roots: the tensors of the output that a gradient comes in for.
    """

    def __init__(self, component: int, inputs: Tree, outputs: Tree, n_passes: int) -> None:
        self._component = component
        self.inputs = inputs
        self.outputs = outputs
        self.leaves = [t for t in tensors(inputs) if t.requires_grad]
        self.roots = [t for t in tensors(outputs) if t.requires_grad]
        self.loss_gradient: Gradient = []
        self._passes_left = n_passes
        self._halves: dict[int, SplitBackward] = {}

    @property
    def is_used_up(self) -> bool:
        """Whether no backward pass is left."""
        return self._passes_left == 0

    def gradient(self, source: Source, received: dict[int, Gradient]) -> Gradient:
        """The gradient at the output: the linear combination that a pass starts from.

        The terms are added in the order of the losses, so that rounding is the same wherever this runs. With a single
        coefficient of 1, which is the usual case, nothing is computed or copied.
        """
        if not source.loss and len(source.streams) == 1:
            ((stream, coefficient),) = source.streams
            return received[stream] if coefficient == 1 else [g * coefficient for g in received[stream]]
        terms = [(source.loss, self.loss_gradient)] if source.loss else []
        terms += [(coefficient, received[stream]) for stream, coefficient in source.streams]
        (first, gradient), *others = terms
        total = gradient if first == 1 else [g * first for g in gradient]
        for coefficient, gradient in others:
            total = [t.add(g, alpha=coefficient) for t, g in zip(total, gradient, strict=True)]
        return total

    def backward(
        self, kind: Kind, gradient: Gradient, parameters: Callable[[], Sequence[Parameter]], *, half_of: int | None
    ) -> Gradient:
        """Runs one pass and returns the gradient of the inputs (empty for ``W``).

        Args:
            kind: ``I`` for the inputs, ``W`` for the parameters, ``B`` for both.
            gradient: at the output.
            parameters: says where ``W`` and ``B`` accumulate their gradients.
            half_of: the index of a weight gradient, if this is a half of the joint pass that yields it: ``I``, to be
                completed by a ``W`` with the same gradient, or that ``W``.

        Raises:
            ValueError: if the output does not depend on anything that wants a gradient.
        """
        roots = self.roots
        if not roots:
            raise ValueError(
                f"the output of component {self._component} carries no gradient, though the scheme trains it or one "
                "below it; expected a floating-point tensor computed without detach() or no_grad()."
            )
        self._passes_left -= 1
        keep = not self.is_used_up
        if kind is Kind.BACKWARD_WEIGHT and half_of is not None:
            self._halves.pop(half_of).weights(keep_graph=keep)
            return []
        leaves = self.leaves if kind is not Kind.BACKWARD_WEIGHT else []
        if kind is Kind.BACKWARD_INPUT and half_of is not None:
            half = self._halves[half_of] = SplitBackward(roots, leaves, parameters())
            return half.inputs(gradient)
        if kind is Kind.BACKWARD_INPUT:
            return list(
                torch.autograd.grad(
                    roots, leaves, gradient, retain_graph=keep, allow_unused=True, materialize_grads=True
                )
            )
        torch.autograd.backward(roots, gradient, retain_graph=keep, inputs=[*parameters(), *leaves])
        return [_taken(leaf) for leaf in leaves]


def loss_backward(
    loss: Tensor, share: float | Tensor, leaves: Sequence[Tensor], parameters: Sequence[Parameter]
) -> Gradient:
    """Accumulates ``share * loss`` into the parameters and returns its gradient at the leaves.

    Args:
        loss: without dimensions.
        share: the micro-batch's share of the batch.
        leaves: the tensors of the component's output, cut off from what is below.
        parameters: those of the head.

    Raises:
        ValueError: if the gradient at the output is wanted and the loss does not depend on it.
    """
    if leaves and not loss.requires_grad:
        raise ValueError(
            "the loss does not depend on the output of its component; expected one computed without detach(), "
            "item() or no_grad()."
        )
    if not isinstance(share, Tensor) and share == 0:  # nothing counts, and the gradient of a mean over nothing is nan
        return [torch.zeros_like(leaf) for leaf in leaves]
    if leaves or (parameters and loss.requires_grad):
        gradient = (
            torch.ones_like(loss) * share.to(loss.device) if isinstance(share, Tensor) else torch.full_like(loss, share)
        )
        torch.autograd.backward(loss, gradient, inputs=[*parameters, *leaves])
    return [_taken(leaf) for leaf in leaves]


def _taken(leaf: Tensor) -> Tensor:
    gradient, leaf.grad = leaf.grad, None
    return torch.zeros_like(leaf) if gradient is None else gradient
