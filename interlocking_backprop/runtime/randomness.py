"""Random numbers are keyed by what they are drawn for, so that neither order nor placement changes them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch


def seed_device(device: torch.device, *key: int | str) -> None:
    """Seeds a device's generator from a key: the model's seed, the step, the component, the micro-batch."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    # torch's CPU generator uses 32 bits of a seed and rejects negative ones.
    seed = int.from_bytes(digest, "little") & 0x7FFF_FFFF
    _generator(device).manual_seed(seed)


@contextmanager
def preserved(devices: Iterable[torch.device]) -> Iterator[None]:
    """Leaves the devices' generators as they were, for the sake of whoever else draws from them."""
    generators = [_generator(device) for device in devices]
    states = [generator.get_state() for generator in generators]
    try:
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


def _generator(device: torch.device) -> torch.Generator:
    if device.type == "cpu":
        return torch.default_generator
    module = torch.get_device_module(device)
    index = device.index if device.index is not None else module.current_device()
    generator: torch.Generator = module.default_generators[index]
    return generator
