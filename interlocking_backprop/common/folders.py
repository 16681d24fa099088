"""A folder for results is tried before the work that is to end in it."""

from __future__ import annotations

import tempfile
from pathlib import Path


def check_folder(flag: str, folder: Path) -> None:
    """Makes sure that a folder can be written, or made where it is not there yet. Nothing is left behind.

    Args:
        flag: which asked for it, for the error.
        folder: the folder.

    Raises:
        ValueError: naming the flag, if it cannot: it is a file or lies below one, its name is too long, and so on.
    """
    try:
        there = folder.absolute()
        while not _exists(there):
            there = there.parent
        with tempfile.TemporaryDirectory(dir=there):
            pass
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"{flag} is {folder}; expected a folder that can be written ({reason}).") from None


def _exists(path: Path) -> bool:
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    return True
