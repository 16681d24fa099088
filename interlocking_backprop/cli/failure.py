"""The one line that an error gets."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_LONGEST = 2000
_INTERRUPTED = 130
_MARK = re.compile(r", at the mark:\n  .*\n  ( *)\^$")


def is_first_rank() -> bool:
    """Whether this process is the one that prints, of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def fail(message: str, code: int = 2) -> int:
    """Prints an error and returns the exit code, for a command to return."""
    if is_first_rank():
        shown = message if len(message) <= _LONGEST else f"{message[: _LONGEST - 300]} … {message[-300:]}"
        print(f"ibp: error: {shown}", file=sys.stderr)
    return code


def interrupted() -> int:
    """Says that Ctrl-C ended a command, and returns the exit code."""
    return fail("interrupted.", code=_INTERRUPTED)


def explanation(error: BaseException) -> str | None:
    """What an exception of a command tells its user; None if it is a fault of the program, and shows its traceback."""
    if isinstance(error, ValueError):
        # A mark below a text is for the eyes of those who program; here its place is told.
        return _MARK.sub(lambda found: f", at its character {len(found[1]) + 1}", str(error))
    first = next(iter(str(error).splitlines()), "")
    if isinstance(error, MemoryError) or _is_of_memory(error, first):
        return f"there is not enough memory ({first or 'none is left'}); choose a smaller network or --batch-size."
    if isinstance(error, OverflowError):
        return f"a number is too large to compute with ({first}); choose a smaller one."
    if isinstance(error, OSError) and not isinstance(error, ConnectionError):
        where = f"{error.filename} cannot be read or written" if error.filename else "the operating system refuses"
        return f"{where} ({error.strerror or error}); expected a path that is there, with the rights to use it."
    return None


def _is_of_memory(error: BaseException, text: str) -> bool:
    # torch.OutOfMemoryError by its name, so that nothing is imported; on a CPU it is a RuntimeError like any other.
    words = ("can't allocate memory", "Storage size calculation overflowed", "invalid storage size")
    return type(error).__name__ == "OutOfMemoryError" or (
        isinstance(error, RuntimeError) and any(word in text for word in words)
    )


@contextmanager
def ended_by_ctrl_c() -> Iterator[None]:
    """Has Ctrl-C end the process at once, in a line: while modules are imported there is nothing to clean up yet.

    An exception there may be caught by a module, or turned into another one. Outside the main thread, which alone can
    handle signals, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        interrupted()
        sys.stderr.flush()
        os._exit(_INTERRUPTED)

    before = signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
