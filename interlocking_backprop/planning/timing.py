"""How long a device takes for something that it is given."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import torch

T = TypeVar("T")


def timed(action: Callable[[], T], device: torch.device) -> tuple[T, float]:
    """What an action returns, and the seconds that it takes from an idle device to an idle device."""
    _synchronize(device)
    begin = time.perf_counter()
    result = action()
    _synchronize(device)
    return result, time.perf_counter() - begin


def _synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
