"""Loss functions, and what they ask for by their signatures.

A loss is called as ``loss(output, target)``. An auxiliary loss that names a parameter ``component_input`` or
``network_input`` gets the input x_i of its component, or the input x_0 of the network, by keyword (detached: the
derivative of a loss passes through the component's output alone). So local losses that reconstruct something fit in,
e.g. InfoPro (Wang et al., ICLR 2021).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from interlocking_backprop.engine.tree import Tree

LossFunction = Callable[..., Tensor]

_EXTRAS = ("component_input", "network_input")


class Loss:
    """A user's loss function with the extra inputs that its signature asks for.

    Attributes:
        function: called with the output, the target, and the extras by keyword.
        wants_component_input: whether it takes x_i.
        wants_network_input: whether it takes x_0; it then travels with the activations.

    Raises:
        ValueError: if the function cannot be called.
    """

    def __init__(self, function: LossFunction) -> None:
        if not callable(function):
            raise ValueError(f"the loss function is {function!r}; expected a callable loss(output, target).")
        self.function = function
        wanted = _keyword_names(function)
        self.wants_component_input = "component_input" in wanted
        self.wants_network_input = "network_input" in wanted
        self._count = getattr(function, "n_samples", None)

    def __call__(self, output: Tree, target: Tree, component_input: Tree, network_input: Tree) -> Tensor:
        """The loss, a tensor without dimensions.

        Raises:
            ValueError: if the function returns anything else.
        """
        extras: dict[str, Any] = {}
        if self.wants_component_input:
            extras["component_input"] = component_input
        if self.wants_network_input:
            extras["network_input"] = network_input
        loss = self.function(output, target, **extras)
        if not isinstance(loss, Tensor) or loss.dim() != 0:
            got = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise ValueError(f"the loss function returned {got}; expected a tensor without dimensions (use the mean).")
        return loss

    def shares(self, targets: Sequence[Tree], n_samples: Sequence[int]) -> list[float | Tensor]:
        """The share of each micro-batch in the loss over the batch; they sum to 1.

        That of its samples, unless the function counts otherwise: one with a method ``n_samples(target)`` is a mean
        over so many of whatever it counts (the tokens that are not ignored, say). If nothing counts, all are 0.

        Args:
            targets: of the micro-batches.
            n_samples: of the micro-batches.
        """
        if len(targets) == 1:
            return [1.0]
        counts: list[Any] = list(n_samples) if self._count is None else [self._count(target) for target in targets]
        # A count on an accelerator stays there: to look at it would be to wait for it.
        counts = [c.item() if isinstance(c, Tensor) and c.device.type == "cpu" else c for c in counts]
        total = sum(counts)
        if isinstance(total, Tensor):
            return [c / total.clamp(min=1) for c in counts]
        return [c / total if total else 0.0 for c in counts]


def _keyword_names(function: LossFunction) -> set[str]:
    signature = function.forward if isinstance(function, nn.Module) else function
    try:
        parameters = inspect.signature(signature).parameters
    except (TypeError, ValueError):  # builtins without a signature take no extras
        return set()
    return {name for name in _EXTRAS if name in parameters}
