"""Loss functions, and what they ask for by their signatures.

A loss is called as ``loss(output, target)``. One that names a parameter ``component`` gets the index of its component
there; one that names ``component_input``, ``network_input`` or ``network_output`` gets the input x_i of its component,
the input x_0 of the network, or its output y_{K-1} for the same micro-batch, by keyword (detached: the derivative of a
loss passes through the component's output alone). So local losses that reconstruct something fit in, e.g. InfoPro (Wang
et al., ICLR 2021), weighted by depth if need be, and those that learn from the network's own output (Zhang et al., Be
Your Own Teacher, ICCV 2019).
"""

from __future__ import annotations

import difflib
import inspect
import warnings
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from interlocking_backprop.engine.loss_counts import counting, loss_name
from interlocking_backprop.engine.tree import Tree, versions

LossFunction = Callable[..., Tensor]

_EXTRAS = ("component", "component_input", "network_input", "network_output")


class Loss:
    """A user's loss function with the extra inputs that its signature asks for.

    Attributes:
        function: called with the output, the target, and the extras by keyword.
        wants_component: whether it takes the index of the component.
        wants_component_input: whether it takes x_i.
        wants_network_input: whether it takes x_0; it then travels with the activations.
        wants_network_output: whether it takes y_{K-1}; it then waits for the last component.
        is_known: whether it is certain what the function is a mean over; if not, the first batch is to be compared
            with its parts.

    Raises:
        ValueError: if the function cannot be called so, or is told to return something else than a mean.
    """

    def __init__(self, function: LossFunction) -> None:
        if not callable(function):
            raise ValueError(f"the loss function is {function!r}; expected a callable loss(output, target).")
        self.function = function
        wanted = _wishes(function)
        self.wants_component = "component" in wanted
        self.wants_component_input = "component_input" in wanted
        self.wants_network_input = "network_input" in wanted
        self.wants_network_output = "network_output" in wanted
        self._count, self.is_known = counting(function)

    def __call__(
        self,
        output: Tree,
        target: Tree,
        component_input: Tree,
        network_input: Tree,
        network_output: Tree,
        component: int,
    ) -> Tensor:
        """The loss, a tensor without dimensions.

        Raises:
            ValueError: if the function returns anything else, or changes what it has asked for.
        """
        extras: dict[str, Any] = {}
        if self.wants_component:
            extras["component"] = component
        if self.wants_component_input:
            extras["component_input"] = component_input
        if self.wants_network_input:
            extras["network_input"] = network_input
        if self.wants_network_output:
            extras["network_output"] = network_output
        before = {name: versions(value) for name, value in extras.items()}
        loss = self.function(output, target, **extras)
        for name, counts in before.items():
            if counts != versions(extras[name]):
                raise ValueError(
                    f"the loss {loss_name(self.function)} changes {name} in place, which is still in use elsewhere; "
                    "expected it to compute with a new tensor (x / 2 instead of x /= 2)."
                )
        if not isinstance(loss, Tensor) or loss.dim() != 0:
            got = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise ValueError(f"the loss function returned {got}; expected a tensor without dimensions (use the mean).")
        return loss

    def settle(self) -> None:
        """What the function is a mean over has been looked at: once is enough."""
        self.is_known = True

    def shares(self, targets: Sequence[Tree], n_samples: Sequence[int]) -> list[float | Tensor]:
        """The share of each micro-batch in the loss over the batch; they sum to 1.

        That of its samples, unless the function counts otherwise: PyTorch's `cross_entropy` counts the targets that are
        not ignored, by the weights of their classes, and one with a method ``n_samples(target)`` is a mean over so many
        of whatever it counts. If nothing counts, all are equal.

        Args:
            targets: of the micro-batches.
            n_samples: of the micro-batches.

        Raises:
            ValueError: if a method ``n_samples`` returns something else than a number.
        """
        if len(targets) == 1:
            return [1.0]
        counts: list[Any] = list(n_samples) if self._count is None else [self._counted(target) for target in targets]
        total = sum(counts)
        if isinstance(total, Tensor):
            return [torch.where(total == 0, 1 / len(counts), c / total.where(total != 0, 1)) for c in counts]
        return [c / total if total else 1 / len(counts) for c in counts]

    def _counted(self, target: Tree) -> float | Tensor:
        assert self._count is not None
        count = self._count(target)
        # A count on an accelerator stays there: to look at it would be to wait for it.
        is_number = count.dim() == 0 if isinstance(count, Tensor) else isinstance(count, Real)
        value = count.item() if is_number and isinstance(count, Tensor) and count.device.type == "cpu" else count
        if not is_number or (not isinstance(value, Tensor) and not value >= 0):
            raise ValueError(
                f"n_samples(target) of the loss {loss_name(self.function)} returned {count!r}; expected a number of at "
                "least 0, or a tensor without dimensions: how many of what the loss is a mean over are in the target."
            )
        return value


def part_of_mean(loss: Tensor, share: float | Tensor) -> Tensor:
    """``share * loss``; 0 for a micro-batch in which nothing counts, whose own mean is often nan."""
    if isinstance(share, Tensor):
        share = share.to(loss.device)
        return torch.where(share == 0, 0, loss * share)
    return loss * share if share else torch.zeros_like(loss)


def _wishes(function: LossFunction) -> set[str]:
    """The extra inputs that a loss asks for.

    Raises:
        ValueError: if it cannot be called with them.
    """
    name = loss_name(function)
    try:
        signature = inspect.signature(function.forward if isinstance(function, nn.Module) else function)
    except (TypeError, ValueError):  # builtins without a signature take no extras
        return set()
    wanted = {extra for extra in _EXTRAS if extra in signature.parameters}
    try:
        signature.bind(None, None, **dict.fromkeys(wanted))
    except TypeError as error:
        raise ValueError(
            f"the loss {name}{signature} cannot be called as loss(output, target): {error}. Beside these two it may "
            f"take {', '.join(_EXTRAS)}, by these names."
        ) from None
    for parameter in signature.parameters:
        for meant in difflib.get_close_matches(parameter, _EXTRAS, 1, cutoff=0.85):
            if parameter != meant:
                warnings.warn(
                    f"the loss {name} has a parameter {parameter!r}, which it never gets; {meant!r} is the name of "
                    "what a loss may ask for.",
                    stacklevel=2,
                )
    return wanted
