"""The one line that an error gets."""

from __future__ import annotations

import os
import sys


def is_first_rank() -> bool:
    """Whether this process is the one that prints, of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def fail(message: str, code: int = 2) -> int:
    """Prints an error and returns the exit code, for a command to return."""
    if is_first_rank():
        print(f"ibp: error: {message}", file=sys.stderr)
    return code
