"""JSON files are read in one way, and what is wrong with one is said in a line that names it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def parse_json(text: str) -> Any:
    """Reads JSON text.

    Raises:
        ValueError: if it is none, is nested too deep, or an object in it has a key twice.
    """
    try:
        return json.loads(text, object_pairs_hook=_object)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def read_json(path: Path, expected: str = "JSON") -> Any:
    """Reads a JSON file.

    Args:
        path: where it is.
        expected: what it ought to hold, for the error.

    Raises:
        ValueError: naming the file, if it cannot be read.
    """
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as JSON ({error}); expected {expected}.") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} is there twice")
    return found
