"""Functions in processes of their own, a few side by side: what one of them does, or dies of, is its own affair.

Processes are forked from a server that has imported everything and started no threads, so starting one costs little.
They end with the process that started them, however that ends.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

_CONTEXT = multiprocessing.get_context("forkserver")

Report = Callable[[Any], None]


@dataclass(frozen=True)
class Job:
    """Something to be done.

    Attributes:
        function: called as ``function(slot, report, *args)``: the number of the slot that it has, and a function that
            sends a message to whoever watches.
        args: the rest; they and the function are pickled.
        log: the file to which stdout and stderr of the process are added.
    """

    function: Callable[..., Any]
    args: tuple[Any, ...]
    log: Path


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        value: what the function returned.
        error: why it returned nothing: its exception in one line, or what ended the process; empty otherwise.
        is_bad_input: whether the exception was a ValueError.
        was_told_to_stop: whether it ended after it was told to.
        seconds: from its beginning to its end.
    """

    value: Any
    error: str
    is_bad_input: bool
    was_told_to_stop: bool
    seconds: float


class Watcher(Protocol):
    """Whoever wants to know what happens to jobs, numbered in their order."""

    def began(self, job: int) -> None:
        """A job has been started."""

    def told(self, job: int, message: Any) -> None:
        """A job has sent a message."""

    def ended(self, job: int, outcome: Outcome) -> None:
        """A job has ended."""

    def passed(self) -> bool:
        """Called every now and then; whether all is to stop."""


@dataclass
class _Running:
    job: int
    slot: int
    process: BaseProcess
    connection: Connection
    begin: float
    result: tuple[Any, str, bool] | None = None


class Processes:
    """Carries out jobs.

    Use as a context manager: whatever happens, no process is left.

    Args:
        n_slots: how many jobs go side by side.
        modules: that the jobs will import; the server does it once for all of them, if it is not running yet.
    """

    def __init__(self, n_slots: int, modules: Sequence[str] = ()) -> None:
        _CONTEXT.set_forkserver_preload(list(modules))
        self._n_slots = n_slots
        self._running: list[_Running] = []
        self._stopping = False

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for running in self._running:
            running.process.kill()
            running.process.join()

    def run(self, jobs: Iterable[Job], watcher: Watcher) -> None:
        """Carries out all jobs, or, when the watcher says so, lets those that have begun come to a stop."""
        waiting = list(enumerate(jobs))[::-1]
        while self._running or (waiting and not self._stopping):
            free = sorted(set(range(self._n_slots)) - {running.slot for running in self._running})
            while free and waiting and not self._stopping:
                number, job = waiting.pop()
                self._running.append(_start(number, job, free.pop(0)))
                watcher.began(number)
            self._listen(watcher)
            if watcher.passed() and not self._stopping:
                self._stopping = True
                for running in self._running:
                    running.process.terminate()

    def _listen(self, watcher: Watcher) -> None:
        """Passes on what comes within a moment."""
        by_end: dict[Any, _Running] = {r.connection: r for r in self._running if not r.connection.closed}
        by_end |= {r.process.sentinel: r for r in self._running}
        for end in wait(list(by_end), timeout=0.25):
            running = by_end[end]
            if running not in self._running:
                continue
            has_ended = end is not running.connection
            _drain(running, watcher)
            if has_ended:
                self._running.remove(running)
                watcher.ended(running.job, self._outcome(running))

    def _outcome(self, running: _Running) -> Outcome:
        running.process.join()
        running.connection.close()
        seconds = time.monotonic() - running.begin
        if running.result is None:
            return Outcome(None, _cause(running.process.exitcode), False, self._stopping, seconds)
        value, error, is_bad_input = running.result
        return Outcome(value, error, is_bad_input, self._stopping, seconds)


def _start(number: int, job: Job, slot: int) -> _Running:
    here, there = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=_run, args=(there, job, slot, Path.cwd()))
    process.start()
    there.close()
    return _Running(number, slot, process, here, time.monotonic())


def _drain(running: _Running, watcher: Watcher) -> None:
    try:
        while not running.connection.closed and running.connection.poll():
            kind, content = running.connection.recv()
            if kind == "told":
                watcher.told(running.job, content)
            else:
                running.result = content
    except (EOFError, OSError):
        running.connection.close()


def _cause(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name
        return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    return f"its process ended with exit code {exitcode}"


def _run(connection: Connection, job: Job, slot: int, folder: Path) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.chdir(folder)
    job.log.parent.mkdir(parents=True, exist_ok=True)
    log = os.open(job.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(log, 1)
    os.dup2(log, 2)
    result: tuple[Any, str, bool]
    try:
        result = (job.function(slot, lambda message: connection.send(("told", message)), *job.args), "", False)
    except BaseException as error:
        traceback.print_exc()
        result = (None, one_line(error), isinstance(error, ValueError))
    sys.stdout.flush()
    sys.stderr.flush()
    connection.send(("result", result))
    connection.close()


def one_line(error: BaseException) -> str:
    """The kind of an exception and the first line of what it says."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
