"""The floating-point operations of modules: the same everywhere, where times differ from run to run."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from interlocking_backprop.engine.tree import Tree


def forward_flops(modules: Sequence[nn.Module], inputs: Tree) -> list[int]:
    """Counts the floating-point operations of each module's forward pass, the modules being run in a row.

    Convolutions and matrix products count, those of attention too; element-wise operations do not. On the meta device
    nothing is computed.

    Args:
        modules: each takes the output of the one before.
        inputs: of the first module.
    """
    flops = []
    # Fused attention kernels count on some devices only.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        for module in modules:
            with FlopCounterMode(display=False) as counter:
                inputs = module(inputs)
            flops.append(int(counter.get_total_flops()))
    return flops
