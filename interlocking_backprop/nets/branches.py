"""Nets side by side on the same input, for heads that predict one thing and reconstruct or project another."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from interlocking_backprop.engine.tree import Tree


class Branches(nn.ModuleDict):
    """A net that gives its input to each of several nets, and returns their outputs in a dict, by name.

    As a head it lets a loss look at several things at once: ``Branches({"scores": …, "image": …})`` returns a dict from
    which the loss takes ``output["scores"]`` and ``output["image"]``.

    Args:
        nets: the nets by name; each takes the whole input.

    Raises:
        ValueError: if there is no net, or one of them is not a module.
    """

    def __init__(self, nets: Mapping[str, nn.Module]) -> None:
        if not isinstance(nets, Mapping) or not nets:
            raise ValueError(f"nets is {nets!r}; expected at least one net, in a dict by name.")
        for name, net in nets.items():
            if not isinstance(net, nn.Module):
                raise ValueError(f"the branch {name!r} is {net!r}; expected a torch.nn.Module.")
        super().__init__(nets)

    def forward(self, x: Tree) -> dict[str, Tree]:
        return {name: net(x) for name, net in self.items()}
