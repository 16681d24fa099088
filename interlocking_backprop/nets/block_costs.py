"""What each block of a row costs: time, parameters, activations or floating-point operations.

Time is what a component keeps its device busy with, so it is what to balance, but it differs from run to run.
Operations are the same everywhere, and a fair stand-in where the blocks are of one kind. Parameters and activations
serve where memory is what is short.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from interlocking_backprop.engine.tree import Tree, detached, map_tensors, tensors
from interlocking_backprop.nets.flops import forward_flops
from interlocking_backprop.nets.undisturbed import devices_of, undisturbed

Measure = Literal["time", "parameters", "activations", "flops"]
MEASURES: tuple[Measure, ...] = ("time", "parameters", "activations", "flops")

_MIN_REPEATS, _MAX_REPEATS, _SECONDS = 8, 50, 1.0


def block_costs(blocks: Sequence[nn.Module], sample_input: Tree, by: Measure) -> list[float]:
    """The cost of each block. The blocks are left as they were.

    Args:
        blocks: each takes the output of the one before.
        sample_input: of the first block; only "parameters" does without.
        by: "time" is that of a forward and backward pass in training mode, in seconds; "parameters" and "activations"
            are bytes, the latter what is kept for the backward pass, and the output; "flops" counts one forward pass.

    Raises:
        ValueError: if the measure is unknown, or is time under torchrun, where every rank would find another.
        Exception: what a block raises, as it is.
    """
    if by not in MEASURES:
        raise ValueError(f"by is {by!r}; expected one of {', '.join(map(repr, MEASURES))}.")
    if by == "parameters":
        return [float(sum(p.numel() * p.element_size() for p in block.parameters())) for block in blocks]
    with undisturbed(blocks, sample_input, training=True):
        if by == "flops":
            return list(map(float, forward_flops(blocks, map_tensors(Tensor.clone, sample_input))))
        if by == "activations":
            return _activations(blocks, sample_input)
        return _agreed(lambda: _times(blocks, sample_input))


def row_times(blocks: Sequence[nn.Module], sample_input: Tree, repeats: int) -> list[list[float]]:
    """Times each block's forward and backward pass, the blocks being run in a row.

    The row is run again and again, rather than each block by itself, so that a slow spell of the machine hits all
    blocks alike.

    Returns:
        For each repeat the seconds of each block, after two repeats for warming up that do not count.
    """
    with undisturbed(blocks, sample_input, training=True):
        return [_row_time(blocks, sample_input) for _ in range(repeats + 2)][2:]


def _times(blocks: Sequence[nn.Module], sample_input: Tree) -> list[float]:
    """The fastest repeat of each block, of which there are more where the blocks are small.

    What else runs on the machine only ever adds time. With two busy processes on two cores, 24 equal blocks differed
    by 25 % in their medians over nine repeats, and mostly by 3 % in their minima.
    """
    for _ in range(2):
        _row_time(blocks, sample_input)
    begin, rows = time.perf_counter(), list[list[float]]()
    while len(rows) < _MIN_REPEATS or (len(rows) < _MAX_REPEATS and time.perf_counter() - begin < _SECONDS):
        rows.append(_row_time(blocks, sample_input))
    return [min(column) for column in zip(*rows, strict=True)]


def _row_time(blocks: Sequence[nn.Module], sample_input: Tree) -> list[float]:
    devices = devices_of(blocks, sample_input)
    seconds, inputs = [], sample_input
    with torch.enable_grad():
        for block in blocks:
            wanted = [*block.parameters(), *tensors(inputs)]
            wanted = [t for t in wanted if t.requires_grad]
            # A copy, because a block may change its input in place, which autograd forbids for leaves.
            given = map_tensors(Tensor.clone, inputs)
            begin = _now(devices)
            outputs = block(given)
            forward = _now(devices) - begin
            roots = [t for t in tensors(outputs) if t.requires_grad]
            seeds = [torch.ones_like(t) for t in roots]
            begin = _now(devices)
            if roots and wanted:
                torch.autograd.grad(roots, wanted, seeds, allow_unused=True)
            seconds.append(forward + _now(devices) - begin)
            inputs = detached(outputs)
    return seconds


def _activations(blocks: Sequence[nn.Module], sample_input: Tree) -> list[float]:
    costs, inputs = [], sample_input
    with torch.enable_grad():
        for block in blocks:
            given = map_tensors(Tensor.clone, inputs)
            # The input is the output of the block before, and counts there.
            known = {_storage(t) for t in (*block.parameters(), *block.buffers(), *tensors(given))}
            saved: list[Tensor] = []  # kept alive, so that no address is used twice

            def note(t: Tensor, saved: list[Tensor] = saved) -> Tensor:
                saved.append(t)
                return t

            with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
                outputs = block(given)
            kept = {_storage(t): t.untyped_storage().nbytes() for t in (*saved, *tensors(outputs))}
            costs.append(float(sum(size for storage, size in kept.items() if storage not in known)))
            inputs = detached(outputs)
    return costs


def _agreed(measure: Callable[[], list[float]]) -> list[float]:
    """What rank 0 measures, where there are ranks: they have to cut alike."""
    if dist.is_available() and dist.is_initialized():
        box = [measure() if dist.get_rank() == 0 else None]
        dist.broadcast_object_list(box, src=0)
        assert box[0] is not None
        return box[0]
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(
            "by is 'time' under torchrun, where every rank would measure, and cut, in its own way; call "
            "torch.distributed.init_process_group() first, so that rank 0's measurement goes for all, or choose "
            "by='flops'."
        )
    return measure()


def _storage(t: Tensor) -> int:
    return t.untyped_storage().data_ptr()


def _now(devices: Sequence[torch.device]) -> float:
    for device in devices:
        if device.type != "cpu":
            torch.get_device_module(device).synchronize(device)
    return time.perf_counter()
