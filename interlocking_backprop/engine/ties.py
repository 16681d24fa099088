"""Weights that several components share, such as the embedding of a language model that is its head's projection too.

Each component holds a copy, which starts equal. Their gradients, by the rows of their components, are summed before
the update, in the order of the components, and every copy takes the same update: so they stay equal, and end to end the
result is that of one weight trained ordinarily. Megatron-LM does so between its first and its last stage. The price is
a dependency that nothing pipelines away: the first component's next step waits for the last one's gradient.

So it goes with main nets that share a weight, and with heads that do: theirs follow the sum of the losses of their
exits. A head never shares with a main net.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import nn
from torch.nn import Parameter

from interlocking_backprop.engine.head_copy import HeadCopy


@dataclass(frozen=True)
class Tie:
    """One weight in several components.

    Attributes:
        holders: the components, in ascending order, each with the name of the weight in it: ``main_net.0.weight``, or
            ``aux_net.fc.weight`` for one that heads share.
    """

    holders: tuple[tuple[int, str], ...]

    @property
    def components(self) -> tuple[int, ...]:
        """Those that hold the weight."""
        return tuple(i for i, _ in self.holders)

    def name_in(self, component: int) -> str:
        """The weight's name in a component that holds it."""
        return dict(self.holders)[component]

    @cached_property
    def is_of_heads(self) -> bool:
        """Whether heads share the weight, and not main nets."""
        return self.holders[0][1].startswith("aux_net.")

    def wants_gradient(self, components: Sequence[nn.Module]) -> bool:
        """Whether the weight is trained.

        Args:
            components: all of the model.

        Raises:
            ValueError: if only some of the components that hold it say so.
        """
        wishes = {components[i].get_parameter(name).requires_grad for i, name in self.holders}
        if len(wishes) > 1:
            raise ValueError(
                f"the shared weight {self} wants a gradient in some components and not in others; set requires_grad "
                "alike in all of them."
            )
        return wishes.pop()

    def __str__(self) -> str:
        return " = ".join(f"{name!r} of component {i}" for i, name in self.holders)


def separate(main_nets: Sequence[nn.Module], aux_nets: Sequence[nn.Module | None] = ()) -> list[Tie]:
    """Gives every net but the first that holds a parameter a copy of it.

    Args:
        main_nets: changed in place.
        aux_nets: likewise; a head shares parameters with other heads alone.

    Returns:
        What was shared.
    """
    return [*_separate(main_nets, "main_net"), *_separate(aux_nets, "aux_net")]


def without_shared_modules(nets: Sequence[nn.Module | None]) -> list[nn.Module | None]:
    """Of nets that have modules in common all but the first as copies, which share the parameters but no module.

    Their buffers, such as BatchNorm's running averages, are their own from here on; and where a net is a copy of
    another component's weights, so are its weights.
    """
    seen: set[nn.Module] = set()
    found = []
    for net in nets:
        modules = set(net.modules()) if net is not None else set()
        if any(has_state(module) for module in modules & seen):
            assert net is not None
            copies = [module for module in modules if isinstance(module, HeadCopy)]
            not_shared = {parameter for head_copy in copies for parameter in head_copy.parameters()}
            memo: dict[int, nn.Module | Parameter] = {id(p): p for p in net.parameters() if p not in not_shared}
            memo |= {id(head_copy.source): head_copy.source for head_copy in copies if head_copy.source is not None}
            net = copy.deepcopy(net, memo)
        seen |= modules
        found.append(net)
    return found


def has_state(module: nn.Module) -> bool:
    """Whether a module has parameters or buffers of its own, which no other component can hold then."""
    return bool(module._parameters or module._buffers)


def _separate(nets: Sequence[nn.Module | None], part: str) -> list[Tie]:
    holders: dict[Parameter, list[tuple[int, str]]] = {}
    for i, net in enumerate(nets):
        for name, parameter in net.named_parameters() if net is not None else ():
            holders.setdefault(parameter, []).append((i, f"{part}.{name}"))
    shared = {parameter: found for parameter, found in holders.items() if len(found) > 1}
    for parameter, found in shared.items():
        for i, _ in found[1:]:
            net = nets[i]
            assert net is not None
            _replace(net, parameter, Parameter(parameter.detach().clone(), parameter.requires_grad))
    return [Tie(tuple(found)) for found in shared.values()]


def _replace(net: nn.Module, old: Parameter, new: Parameter) -> None:
    """Puts a parameter in the place of another, wherever the net uses it."""
    for module in net.modules():
        for name, parameter in list(module.named_parameters(recurse=False, remove_duplicate=False)):
            if parameter is old:
                setattr(module, name, new)
