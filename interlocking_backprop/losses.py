"""Loss functions, and what they ask for by their signatures.

A loss is called as ``loss(output, target)``. An auxiliary loss that names a parameter ``component_input`` or
``network_input`` gets the input x_i of its component, or the input x_0 of the network, by keyword (detached: the
derivative of a loss passes through the component's output alone). So local losses that reconstruct something fit in,
e.g. InfoPro (Wang et al., ICLR 2021).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from interlocking_backprop.tree import Tree

LossFunction = Callable[..., Tensor]

_EXTRAS = ("component_input", "network_input")


class Loss:
    """A user's loss function with the extra inputs that its signature asks for.

    Attributes:
        function: called with the output, the target, and the extras by keyword.
        wants_component_input: whether it takes x_i.
        wants_network_input: whether it takes x_0; it then travels with the activations.
    """

    def __init__(self, function: LossFunction) -> None:
        if not callable(function):
            raise ValueError(f"the loss function is {function!r}; expected a callable loss(output, target).")
        self.function = function
        wanted = _keyword_names(function)
        self.wants_component_input = "component_input" in wanted
        self.wants_network_input = "network_input" in wanted

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


def _keyword_names(function: LossFunction) -> set[str]:
    signature = function.forward if isinstance(function, nn.Module) else function
    try:
        parameters = inspect.signature(signature).parameters
    except (TypeError, ValueError):  # builtins without a signature take no extras
        return set()
    return {name for name in _EXTRAS if name in parameters}
