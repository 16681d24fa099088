"""Command-line arguments to typed dataclasses by tyro, with errors of one line.

tyro has no public way but its printed box to say what is wrong, so the line is read from there.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Sequence
from typing import TypeVar

import tyro

T = TypeVar("T")


def parse(kind: type[T], arguments: Sequence[str], prog: str, default: T | None = None) -> T:
    """Reads arguments into a dataclass; the fields of nested ones are flags without a prefix.

    Args:
        kind: the dataclass.
        arguments: what stands behind ``prog`` on the command line.
        prog: how the help text names the command.
        default: has the values of the flags that are not given; by default those of ``kind``.

    Raises:
        ValueError: with one line that says what is wrong and what was expected.
        SystemExit: with code 0 after ``--help``.
    """
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            return tyro.cli(
                kind,
                args=list(arguments),
                prog=prog,
                default=tyro.MISSING_NONPROP if default is None else default,
                config=(tyro.conf.OmitArgPrefixes,),
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        raise ValueError(_one_line(box.getvalue())) from None


def given(arguments: Sequence[str]) -> set[str]:
    """The fields whose flags are among the arguments, in whichever way these are written: --tied, --no-tied, --lr=1."""
    names = {word[2:].partition("=")[0].replace("-", "_") for word in arguments if word.startswith("--")}
    return names | {name.removeprefix("no_") for name in names}


def _one_line(box: str) -> str:
    """The first two paragraphs in a box, as one line.

    Where the terminal has no lines to draw with, the box is made of hyphens, and its title is a paragraph of its own.
    """
    paragraphs: list[list[str]] = [[]]
    for line in box.splitlines():
        text = line.strip("│╭╮╰╯ ")
        if line.startswith(("╭", "╰")):
            continue
        if set(text) <= {"─", "-"}:
            paragraphs.append([])
        elif not text.startswith("For full helptext"):
            paragraphs[-1].append(text)
    sentences = [" ".join(lines) for lines in paragraphs if lines]
    begin = 0 if box.startswith("╭") else 1
    text = "; ".join(sentences[begin : begin + 2]).rstrip(".")
    # What a dataclass itself rejects names its flag already.
    return re.sub(r"^Error parsing \w+: ", "", text).replace("Argument helptext:", "expected") + "; see --help."
