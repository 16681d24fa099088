"""Functions in processes of their own, a few side by side: what one of them does, or dies of, is its own affair.

Processes are forked from a server that has imported everything and started no threads, so that starting one takes a
moment where a new interpreter takes seconds. They end with the process that started them, however that ends.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

_CONTEXT = multiprocessing.get_context("forkserver")


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        value: what the function returned.
        error: why it returned nothing: its exception in one line, or what ended the process; empty otherwise.
        was_told_to_stop: whether it ended after all jobs were told to stop.
        seconds: from its beginning to its end.
    """

    value: Any
    error: str
    was_told_to_stop: bool
    seconds: float


@dataclass(frozen=True, eq=False)
class Job:
    """Something to be done.

    Attributes:
        name: under which it is shown.
        function: called as ``function(device, *args)`` in its process.
        args: the rest of the arguments; they and the function are pickled.
        log: the file to which stdout and stderr of the process are added.
        note: takes down the outcome; may return words that say what it was.
        metrics: the metrics.jsonl that the function writes, if it does.
        n_steps: the last step that will be in there.
    """

    name: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    log: Path
    note: Callable[[Outcome], str | None]
    metrics: Path | None = None
    n_steps: int | None = None


class _Running(NamedTuple):
    job: Job
    device: str
    process: BaseProcess
    begin: float


def run_jobs(
    jobs: Iterable[Job],
    devices: Sequence[str],
    ended: Callable[[Job, Outcome], None],
    should_stop: Callable[[Sequence[Job]], bool],
) -> None:
    """Carries out jobs. Whatever happens, no process is left.

    Args:
        jobs: in the order in which they begin.
        devices: one for each job that goes on at the same time; several may be the same.
        ended: called at the end of each job.
        should_stop: called a few times a second with the jobs that are going on. Once it returns True no other job
            begins, and those that have begun get SIGTERM.
    """
    waiting, free = deque(jobs), deque(devices)
    running: dict[Any, _Running] = {}
    is_stopping = False
    try:
        while running or (waiting and not is_stopping):
            while free and waiting and not is_stopping:
                job, device = waiting.popleft(), free.popleft()
                here, process = _start(job, device)
                running[here] = _Running(job, device, process, time.monotonic())
            ready = multiprocessing.connection.wait(list(running), timeout=0.25)
            # Ctrl-C reaches all processes: those that end of it have been told to stop.
            if should_stop([r.job for r in running.values()]) and not is_stopping:
                is_stopping = True
                for r in running.values():
                    r.process.terminate()
            for connection in ready:
                job, device, process, begin = running.pop(connection)
                free.append(device)
                value, error = _result(connection, process)
                ended(job, Outcome(value, error, is_stopping, time.monotonic() - begin))
    finally:
        for r in running.values():
            r.process.kill()
            r.process.join()


def _start(job: Job, device: str) -> tuple[Connection, BaseProcess]:
    here, there = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=_run, args=(there, job.function, (device, *job.args), job.log, Path.cwd()))
    process.start()
    there.close()
    return here, process


def _result(connection: Any, process: BaseProcess) -> tuple[Any, str]:
    """What a process returned, and why it did not."""
    result: tuple[Any, str] | None = None
    with connection, contextlib.suppress(EOFError, OSError):
        result = connection.recv()
    process.join()
    return result or (None, _cause(process.exitcode))


def _cause(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name
        return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    return f"its process ended with exit code {exitcode}"


def _run(connection: Connection, function: Callable[..., Any], args: tuple[Any, ...], log: Path, folder: Path) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.chdir(folder)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    result: tuple[Any, str]
    try:
        result = (function(*args), "")
    except BaseException as error:
        traceback.print_exc()
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        result = (None, ": ".join([type(error).__name__, *lines[:1]]))
    sys.stdout.flush()
    sys.stderr.flush()
    connection.send(result)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
