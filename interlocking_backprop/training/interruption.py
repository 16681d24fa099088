"""Ctrl-C ends a run after the step that it is in, with a checkpoint; a second one ends it at once."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

# torchrun passes on what the terminal has sent already: signals so close together are one request.
_SAME_REQUEST = 2.0


class Stopped(Exception):  # noqa: N818  (no error: the user asked for it)
    """The run was interrupted and has written its checkpoint.

    Attributes:
        step: the number of steps taken.
        n_steps: the number of steps of the whole run.
    """

    def __init__(self, step: int, n_steps: int) -> None:
        super().__init__(f"stopped at step {step} of {n_steps}; go on with --resume")
        self.step, self.n_steps = step, n_steps


@dataclass
class Interruption:
    """Tells whether somebody has asked the run to stop.

    Attributes:
        requested: becomes True with the first signal.
    """

    requested: bool = False


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """Turns the first SIGINT (Ctrl-C) or SIGTERM into a request; a later one has its ordinary effect.

    Outside the main thread, which alone can handle signals, nothing changes.
    """
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return

    first = 0.0

    def request(number: int, frame: FrameType | None) -> None:
        nonlocal first
        now = time.monotonic()
        if not interruption.requested:
            interruption.requested, first = True, now
        elif now - first > _SAME_REQUEST:
            restore()
            signal.raise_signal(number)

    before = [(number, signal.signal(number, request)) for number in (signal.SIGINT, signal.SIGTERM)]

    def restore() -> None:
        for number, handler in before:
            signal.signal(number, handler)

    try:
        yield interruption
    finally:
        restore()
