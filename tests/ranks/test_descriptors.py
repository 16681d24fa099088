"""Models on ranks come and go and leave nothing open; and a process with many open files is looked after too."""

from __future__ import annotations

import os
import resource
import threading
import time

import torch.distributed as dist

import interlocking_backprop as ib
from interlocking_backprop.bench.processes import on_ranks
from tests.small_models import batch, model_of


def trained(rank: int) -> ib.InterlockingBackpropModel:
    model = model_of(ib.pairwise(2))
    model.enable_model_parallel()
    model.training_step(*(batch() if rank == 0 else (None, None)))
    return model


def n_open_after_each_model(rank: int, size: int) -> list[int]:
    found = []
    for _ in range(4):
        trained(rank).shutdown()
        found.append(len(os.listdir("/proc/self/fd")))
    dist.barrier()  # the default group is the caller's, and stays
    return found


def test_a_model_that_is_shut_down_leaves_nothing_open():
    for found in on_ranks(2, n_open_after_each_model):
        assert found[-1] <= found[0], found


def has_watchdog_beyond_1024_descriptors(rank: int, size: int) -> tuple[int, bool]:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    held = [os.dup(0) for _ in range(1100)]
    model = trained(rank)
    time.sleep(0.5)  # it looks every 0.2 s
    names = [thread.name for thread in threading.enumerate()]
    model.shutdown()
    for descriptor in held:
        os.close(descriptor)
    return max(held), "interlocking-backprop watchdog" in names


def test_the_watchdog_lives_in_a_process_with_many_open_files():
    for highest, lives in on_ranks(2, has_watchdog_beyond_1024_descriptors):
        assert highest > 1024
        assert lives
