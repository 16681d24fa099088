"""A rank has the state of its own components; the others are there as structure, on the meta device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from interlocking_backprop.engine.component import Component
from interlocking_backprop.engine.losses import Loss
from interlocking_backprop.engine.ties import Tie
from interlocking_backprop.scheme.coefficients import Scheme
from interlocking_backprop.version import __version__


def drop_discarded(module: nn.Module, state: dict[str, Tensor], prefix: str, metadata: dict[str, Any]) -> None:
    """Leaves what other ranks have out of a state dict."""
    for name in [name for name, tensor in state.items() if tensor.is_meta]:
        del state[name]


def add_discarded(module: nn.Module, state: dict[str, Tensor], prefix: str, *rest: Any) -> None:
    """Before a state dict is loaded: what other ranks have may be missing in it, and is not read from it."""
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.is_meta:
            state[prefix + name] = tensor


def model_facts(
    components: Sequence[Component], losses: Sequence[Loss], ties: Sequence[Tie], scheme: Scheme, n_microbatches: int
) -> dict[str, Any]:
    """What has to be the same on all ranks, by the name under which a difference is reported."""
    facts: dict[str, Any] = {
        "version of interlocking_backprop": __version__,
        "version of torch": torch.__version__,
        "number of components": len(components),
        "scheme": (scheme.name, scheme.matrix.tolist(), [(d, m.tolist()) for d, m in scheme.delayed.items()]),
        "n_microbatches": n_microbatches,
        "accumulate": components[0].accumulate,
        "shared weights": [tie.holders for tie in ties],
        "copied heads": [copying for component in components for copying in component.copied_by],
        "losses' wishes": [
            (
                loss.wants_component,
                loss.wants_component_input,
                loss.wants_network_input,
                loss.wants_network_output,
            )
            for loss in losses
        ],
    }
    for i, component in enumerate(components):
        facts[f"component {i}"] = [
            (name, tuple(p.shape), str(p.dtype), p.requires_grad) for name, p in component.named_parameters()
        ]
        facts[f"optimizer of component {i}"] = [type(optimizer).__name__ for optimizer in component.optimizers]
    return facts
