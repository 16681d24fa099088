"""From the name of a device to the device."""

from __future__ import annotations

import torch


def select_device(name: str) -> torch.device:
    """Finds the device that a flag names; "auto" is an accelerator if there is one, else the CPU.

    Raises:
        ValueError: if there is no such device.
    """
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if name == "auto":
        return accelerator or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        available = ["cpu"]
        if accelerator is not None:
            available += [f"{accelerator.type}:{i}" for i in range(torch.accelerator.device_count())]
        raise ValueError(f"--device is {name!r}; expected auto or one of {', '.join(available)}.") from None
    return device
