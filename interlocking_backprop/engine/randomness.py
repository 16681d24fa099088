"""Random numbers are keyed by what they are drawn for, so that neither order nor placement changes them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch


def seed(generator: torch.Generator, *key: int | str) -> None:
    """Seeds a generator from a key: the model's seed, the step, the component, the micro-batch."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    # torch's CPU generator uses 32 bits of a seed and rejects negative ones.
    generator.manual_seed(int.from_bytes(digest, "little") & 0x7FFF_FFFF)


@contextmanager
def preserved(generators: Iterable[torch.Generator]) -> Iterator[None]:
    """Leaves generators as they were, for the sake of whoever else draws from them."""
    states = [(generator, generator.get_state()) for generator in generators]
    try:
        yield
    finally:
        for generator, state in states:
            generator.set_state(state)


def generator_of(device: torch.device) -> torch.Generator:
    """The generator that a device draws from unless told otherwise."""
    if device.type == "cpu":
        return torch.default_generator
    module = torch.get_device_module(device)
    index = device.index if device.index is not None else module.current_device()
    generator: torch.Generator = module.default_generators[index]
    return generator
