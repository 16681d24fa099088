"""Peak memory of a training step: the bytes of all tensors that it makes and that are alive at once.

On an accelerator its allocator counts. On a CPU a dispatch mode sees every tensor that an operation returns and counts
its storage until it is freed: activations, gradients, temporaries. (Counting what autograd saves would not do, for
activation checkpointing hides from such a count what it computes again.)
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode


def peak_bytes(step: Callable[[], object], device: torch.device) -> float:
    """The most bytes alive at once while a step runs, beyond what was there before it.

    Args:
        step: makes tensors on the device; on an accelerator it may leave its work in the queue.
        device: on which it computes. Tensors on other devices do not count, unless it is the CPU: then all of them do.
    """
    if device.type == "cpu":
        with _LiveBytes() as counted:
            step()
        return float(counted.peak)
    torch.accelerator.synchronize(device)
    before = torch.accelerator.memory_allocated(device)
    torch.accelerator.reset_peak_memory_stats(device)
    step()
    torch.accelerator.synchronize(device)
    return float(torch.accelerator.max_memory_allocated(device) - before)


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the storages that come into being under it, each once, as long as they are there."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        known = {t.untyped_storage().data_ptr() for t in _tensors((args, kwargs))}
        for tensor in _tensors(result):
            storage = tensor.untyped_storage()
            # What has the memory of an argument is a view of it, or the argument changed in place.
            if storage.data_ptr() in known or storage.nbytes() == 0:
                continue
            known.add(storage.data_ptr())
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._freed, storage.nbytes())
        return result

    def _freed(self, size: int) -> None:
        self.now -= size


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, Tensor)]
