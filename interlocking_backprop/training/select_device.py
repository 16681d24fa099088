"""From the name of a device to the device."""

from __future__ import annotations

import torch


def select_device(name: str, flag: str = "--device") -> torch.device:
    """Finds the device that a flag names; "auto" is an accelerator if there is one, else the CPU.

    Args:
        name: of the device.
        flag: for the error.

    Raises:
        ValueError: if there is no such device.
    """
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if name == "auto":
        return accelerator or torch.device("cpu")
    try:
        device = torch.device(name)
        # Others, "meta" among them, hold no numbers, or torch itself cannot train on them.
        if device.type not in ("cpu", accelerator and accelerator.type):
            raise RuntimeError
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        available = ["cpu"]
        if accelerator is not None:
            available += [f"{accelerator.type}:{i}" for i in range(torch.accelerator.device_count())]
        raise ValueError(f"{flag} is {name!r}; expected auto or one of {', '.join(available)}.") from None
    return device
