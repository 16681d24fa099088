"""Modules may be run on a sample, to be measured or for the shapes that they return, without a trace of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from interlocking_backprop.engine.inspection import undisturbed_buffers
from interlocking_backprop.engine.randomness import generator_of, preserved
from interlocking_backprop.engine.tree import Tree, tensors


@contextmanager
def undisturbed(modules: Sequence[nn.Module], sample_input: Tree, *, training: bool) -> Iterator[None]:
    """Leaves modes, buffers and random generators as they were.

    Parameters are not looked after: who runs the modules takes care not to accumulate gradients.

    Args:
        modules: that are about to be run.
        sample_input: what they are run on.
        training: the mode that they are in meanwhile.
    """
    parts = list({part: None for module in modules for part in module.modules()})
    modes = [part.training for part in parts]
    try:
        with undisturbed_buffers(modules), preserved(map(generator_of, devices_of(modules, sample_input))):
            for module in modules:
                module.train(training)
            yield
    finally:
        for part, mode in zip(parts, modes, strict=True):
            part.training = mode


def devices_of(modules: Sequence[nn.Module], sample_input: Tree) -> list[torch.device]:
    """Where the modules compute: the devices of their parameters and of the sample, each once."""
    found = [t.device for t in tensors(sample_input)] + [p.device for m in modules for p in m.parameters()]
    return list(dict.fromkeys(device for device in found if device.type != "meta"))
