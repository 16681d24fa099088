"""Weights that several components share, such as the embedding of a language model that is its head's projection too.

Each component holds a copy, which starts equal. Their gradients, by the rows of their components, are summed before
the update, in the order of the components, and every copy takes the same update: so they stay equal, and end to end the
result is that of one weight trained ordinarily. Megatron-LM does so between its first and its last stage. The price is
a dependency that nothing pipelines away: the first component's next step waits for the last one's gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn
from torch.nn import Parameter


@dataclass(frozen=True)
class Tie:
    """One weight in several components.

    Attributes:
        holders: the components, in ascending order, each with the name of the weight in its main net.
    """

    holders: tuple[tuple[int, str], ...]

    @property
    def components(self) -> tuple[int, ...]:
        """Those that hold the weight."""
        return tuple(i for i, _ in self.holders)

    def name_in(self, component: int) -> str:
        """The weight's name in the main net of a component that holds it."""
        return dict(self.holders)[component]

    def wants_gradient(self, main_nets: Sequence[nn.Module]) -> bool:
        """Whether the weight is trained.

        Args:
            main_nets: of all components.

        Raises:
            ValueError: if only some of the components that hold it say so.
        """
        wishes = {main_nets[i].get_parameter(name).requires_grad for i, name in self.holders}
        if len(wishes) > 1:
            raise ValueError(
                f"the shared weight {self} wants a gradient in some components and not in others; set requires_grad "
                "alike in all of them."
            )
        return wishes.pop()

    def __str__(self) -> str:
        return " = ".join(f"{name!r} of component {i}" for i, name in self.holders)


def separate(main_nets: Sequence[nn.Module]) -> list[Tie]:
    """Gives every net but the first that holds a parameter a copy of it.

    Args:
        main_nets: changed in place.

    Returns:
        What was shared.
    """
    holders: dict[Parameter, list[tuple[int, str]]] = {}
    for i, net in enumerate(main_nets):
        for name, parameter in net.named_parameters():
            holders.setdefault(parameter, []).append((i, name))
    shared = {parameter: found for parameter, found in holders.items() if len(found) > 1}
    for parameter, found in shared.items():
        for i, _ in found[1:]:
            _replace(main_nets[i], parameter, Parameter(parameter.detach().clone(), parameter.requires_grad))
    return [Tie(tuple(found)) for found in shared.values()]


def _replace(net: nn.Module, old: Parameter, new: Parameter) -> None:
    """Puts a parameter in the place of another, wherever the net uses it."""
    for module in net.modules():
        for name, parameter in list(module.named_parameters(recurse=False, remove_duplicate=False)):
            if parameter is old:
                setattr(module, name, new)
