"""Texts and tables on the terminal."""

from __future__ import annotations

from rich.console import Console, RenderableType
from rich.table import Table

from interlocking_backprop.training.evaluation import ExitScores


def console(width: int) -> Console:
    """Standard output; a file or a pipe has no width of its own and gets this one, in characters."""
    made = Console(highlight=False)
    return made if made.is_terminal else Console(highlight=False, width=width)


def show(what: RenderableType, *, quiet: bool = False) -> None:
    """Prints to standard output."""
    Console(quiet=quiet, highlight=False, soft_wrap=isinstance(what, str)).print(what)


def exits_table(scores: ExitScores) -> Table:
    """A row for each exit that has a head."""
    final = scores[-1] or {}
    table = Table()
    table.add_column("exit")
    for name in final:
        table.add_column(name, justify="right")
    for i, values in enumerate(scores):
        if values is not None:
            label = "network" if i == len(scores) - 1 else f"component {i}"
            table.add_row(label, *(f"{value:.4f}" for value in values.values()))
    return table
