"""All pictures of a report, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from matplotlib.figure import Figure

from interlocking_backprop.compare.report.figures import lines
from interlocking_backprop.compare.report.figures.frontier import frontier
from interlocking_backprop.compare.report.summary import Panel, Summary


@dataclass(frozen=True)
class Picture:
    """A picture.

    Attributes:
        kind: what it shows: "frontier", "exits", "curves-epochs", "curves-time" or "micro-batches".
        name: unique in the report, and that of its file.
        description: in a sentence.
        figure: of matplotlib.
    """

    kind: str
    name: str
    description: str
    figure: Figure


KINDS: dict[str, tuple[Callable[[Summary, Panel], Figure | None], str]] = {
    "frontier": (frontier, "Test metric against modelled throughput"),
    "exits": (lines.exits, "Test metric of each exit"),
    "curves-epochs": (partial(lines.curves, on_devices=False), "Validation metric against epochs"),
    "curves-time": (partial(lines.curves, on_devices=True), "Validation metric against modelled time"),
    "micro-batches": (lines.microbatches, "Modelled time of a step against micro-batches"),
}


def pictures(summary: Summary) -> list[Picture]:
    """Draws all for which there is something to draw."""
    result = []
    for kind, (draw, words) in KINDS.items():
        for panel in summary.panels:
            figure = draw(summary, panel)
            if figure is not None:
                k = panel.components
                result.append(Picture(kind, f"{kind}-k{k}", f"{words}, K = {k}; its numbers are in the tables", figure))
    return result
