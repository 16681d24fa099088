"""Several ranks on this machine, for benchmarks and tests: gloo on loopback, a rendezvous by file, a sure end."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import tempfile
import traceback
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

# Processes are forked from a server that has imported everything and started no threads.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["torch", "torch.distributed.pipelining", "interlocking_backprop"])


class Ranks:
    """Processes that run ``function(rank, size, *args)``, with the default process group already there.

    Use as a context manager: whatever happens, no process is left.
    """

    def __init__(self, size: int, function: Callable[..., Any], *args: Any) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.folder = Path(self._folder.name)
        self.processes: list[BaseProcess] = [
            _CONTEXT.Process(target=_run, args=(rank, size, self.folder, function, args)) for rank in range(size)
        ]

    def __enter__(self) -> Ranks:
        for process in self.processes:
            process.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        for process in self.processes:
            process.kill()
            process.join()
        self._folder.cleanup()

    def join(self, timeout: float = 120) -> list[int | None]:
        """Waits for all processes and returns their exit codes; None for one that is still there."""
        for process in self.processes:
            process.join(timeout)
        return [process.exitcode for process in self.processes]

    def results(self, timeout: float = 120) -> list[Any]:
        """What the function returned on each rank.

        Raises:
            RuntimeError: with what the ranks wrote to stderr, if one of them failed.
        """
        codes = self.join(timeout)
        if any(code != 0 for code in codes):
            raise RuntimeError(f"the ranks ended with exit codes {codes}\n" + "\n".join(self.errors()))
        return [pickle.loads((self.folder / f"result-{r}").read_bytes()) for r in range(len(codes))]

    def errors(self) -> list[str]:
        """What each rank wrote to stderr."""
        return [(self.folder / f"stderr-{r}").read_text() for r in range(len(self.processes))]


def on_ranks(size: int, function: Callable[..., Any], *args: Any) -> list[Any]:
    """Runs a function on several ranks and returns what it returned on each."""
    with Ranks(size, function, *args) as ranks:
        return ranks.results()


def _run(rank: int, size: int, folder: Path, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    stderr = os.open(folder / f"stderr-{rank}", os.O_WRONLY | os.O_CREAT)
    os.dup2(stderr, 2)
    os.environ["MASTER_ADDR"] = "127.0.0.1"
    torch.set_num_threads(1)
    try:
        dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=size)
        result = function(rank, size, *args)
        (folder / f"result-{rank}").write_bytes(pickle.dumps(result))
    except BaseException:
        traceback.print_exc()
        os._exit(1)
