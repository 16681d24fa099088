"""Command-line arguments to typed dataclasses (by tyro), with errors of one line instead of a box."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Sequence
from typing import TypeVar

import tyro

T = TypeVar("T")


def parse(kind: type[T], arguments: Sequence[str], prog: str = "ibp") -> T:
    """Reads arguments into a dataclass.

    Raises:
        ValueError: with one line that says what is wrong and what was expected.
        SystemExit: with code 0 after ``--help``.
    """
    message = io.StringIO()
    try:
        with contextlib.redirect_stderr(message):
            return tyro.cli(kind, args=list(arguments), prog=prog)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise ValueError(_one_line(message.getvalue())) from None


def _one_line(box: str) -> str:
    """The text of tyro's error box: its first two paragraphs, without the frame."""
    paragraphs: list[list[str]] = [[]]
    for line in box.splitlines():
        text = line.strip("│╭╮╰╯ ")
        if line.startswith(("╭", "╰")):
            continue
        if set(text) <= {"─"}:
            paragraphs.append([])
        elif not text.startswith("For full helptext"):
            paragraphs[-1].append(text.strip())
    sentences = [" ".join(lines) for lines in paragraphs if lines]
    text = "; ".join(sentences[:2]).rstrip(".")
    # What the dataclass itself rejects names its flag already.
    return re.sub(r"^Error parsing \w+Config: ", "", text).replace("Argument helptext:", "expected") + "; see --help."
