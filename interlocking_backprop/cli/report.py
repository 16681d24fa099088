"""Tables on the terminal."""

from __future__ import annotations

import os

from rich.console import Console, RenderableType
from rich.table import Table

from interlocking_backprop.training.evaluation import ExitScores


def is_first_rank() -> bool:
    """Whether this process is the one that speaks, of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


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
