"""Which devices a model is put on."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def local_devices(n_components: int) -> list[torch.device]:
    """An accelerator of this machine for each component.

    Raises:
        ValueError: if there are fewer.
    """
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    n = torch.accelerator.device_count() if accelerator is not None else 0
    if accelerator is None or n < n_components:
        example = accelerator.type + ":0" if accelerator is not None else "cpu"
        fewer = f"cut the network into at most {n} components, " if n else ""
        raise ValueError(
            f"{n_components} components and {n} accelerators in this machine; {fewer}"
            f'give devices that repeat (devices=["{example}"] * {n_components}), or start a process per '
            "device with torchrun."
        )
    return [torch.device(accelerator.type, i) for i in range(n_components)]


def checked_devices(devices: Sequence[torch.device | str], n_components: int) -> list[torch.device]:
    """The devices that somebody named, one for each component.

    Raises:
        ValueError: if their number differs, or one is not there.
    """
    if len(devices) != n_components:
        raise ValueError(
            f"{len(devices)} devices for {n_components} components; expected one for each; a device may repeat."
        )
    return [_checked(device) for device in devices]


def _checked(device: torch.device | str) -> torch.device:
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {str(device)!r} cannot be used ({reason}); expected cpu, cuda:0, …") from None
