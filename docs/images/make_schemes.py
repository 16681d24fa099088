"""Draws which loss trains which component: schemes.png, the opening picture of the README, and schemes-late.png.

    python docs/images/make_schemes.py

A coloured line leads from a loss to the components whose weights follow it; it is dashed where the credit is late, with
the number of steps beside its end. The lines are read from the matrices of the schemes, so they are what the library
does.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

import interlocking_backprop as ib

K = 5
PANELS = [
    (ib.local(K), "local", "each component by its own loss"),
    (ib.pairwise(K), "pairwise", "by the loss of the next component"),
    (ib.nwise(K, 3), "3-wise", "by the loss two components further on"),
    (ib.e2e(K), "e2e", "all by the last loss: ordinary backpropagation"),
]
MIXTURE = (
    0.5 * ib.pairwise(K) + 0.5 * ib.e2e(K).delay(ib.least_delays(ib.e2e(K), 2)),
    "0.5*pairwise+0.5*e2e~",
    "near credit at once, far credit late (M = 2)",
)
LATE_PANELS = [
    (ib.e2e(K).delay(1), "e2e~1", "all by the last loss, one step late"),
    (ib.e2e(K).delay(ib.least_delays(ib.e2e(K), 1)), "e2e~", "as late as one micro-batch asks for"),
    (ib.parse_scheme("pipedream", K), "pipedream", "late by the distance from the end"),
    MIXTURE,
]
COLORS = ["#3b6fb6", "#d9822b", "#3f9a5c", "#b5477b", "#5b5f97"]
INK, FAINT = "#2b2f36", "#9aa1ab"
WIDTH, GAP, HEIGHT = 1.16, 0.46, 0.62


def left(i: int) -> float:
    return i * (WIDTH + GAP)


def center(i: int) -> float:
    return left(i) + WIDTH / 2


def box(axes: Axes, x: float, y: float, width: float, height: float, text: str, color: str, size: float) -> None:
    style = "round,pad=0,rounding_size=0.10"
    axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle=style, facecolor=color, edgecolor="none", zorder=3))
    axes.text(x + width / 2, y + height / 2, text, ha="center", va="center", color="white", fontsize=size, zorder=4)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], color: str, width: float = 1.3) -> None:
    style = {"arrowstyle": "-|>,head_width=0.2,head_length=0.35", "color": color, "lw": width}
    axes.annotate("", end, start, arrowprops={**style, "shrinkA": 0, "shrinkB": 0}, zorder=2)


def network(axes: Axes, scheme: ib.Scheme) -> None:
    """The components in a row, with the heads and losses that the scheme uses above them."""
    used = scheme.uses.any(axis=0)
    arrow(axes, (left(0) - 0.5, HEIGHT / 2), (left(0), HEIGHT / 2), INK)
    for i in range(K):
        box(axes, left(i), 0, WIDTH, HEIGHT, f"component {i}", "#4a5160", 7.4)
        if i + 1 < K:
            arrow(axes, (left(i) + WIDTH, HEIGHT / 2), (left(i + 1), HEIGHT / 2), INK)
        if not used[i]:
            continue
        # The exit leaves on the right of its component, so that credit comes down on its left.
        x = left(i) + WIDTH - 0.16
        axes.plot([x, x], [HEIGHT, 1.02], color=INK, lw=1.3, zorder=1)
        if i + 1 < K:
            box(axes, x - 0.16, 0.92, 0.32, 0.26, "head", FAINT, 5.6)
            axes.plot([x, x], [1.18, 1.40], color=INK, lw=1.3, zorder=1)
        else:
            axes.plot([x, x], [1.02, 1.40], color=INK, lw=1.3, zorder=1)
        axes.scatter([x], [1.52], s=190, color=COLORS[i], zorder=3)
        axes.text(x, 1.51, rf"$\ell_{i}$", color="white", ha="center", va="center", fontsize=9, zorder=4)


def credit(axes: Axes, scheme: ib.Scheme) -> None:
    """For every coefficient of the matrix a line from the loss, under the components, to the one that it trains."""
    lanes: dict[tuple[int, bool], int] = {}
    for loss in np.flatnonzero(scheme.uses.any(axis=0)).tolist():
        at_once, late = (
            {i: age for age in ages for i in np.flatnonzero(scheme.coefficients(age)[:, loss]).tolist()}
            for ages in ([0], scheme.delayed)
        )
        if at_once:
            _line(axes, loss, at_once, lanes)
        if late:
            _line(axes, loss, late, lanes, shift=0.14 if at_once else 0.0)


def _line(
    axes: Axes, loss: int, trained: dict[int, int], lanes: dict[tuple[int, bool], int], shift: float = 0.0
) -> None:
    """The line of a loss to the components, in the highest lane where there is room."""
    is_late = any(trained.values())
    taken = {lane for (other, _), lane in lanes.items() if other >= min(trained)}
    lanes[loss, is_late] = lane = next(n for n in range(2 * K) if n not in taken)
    y, color = -0.30 - 0.25 * lane, COLORS[loss]
    start = left(loss) + WIDTH - 0.16 + shift / 2
    look = {"color": color, "lw": 2, "zorder": 2, **({"ls": (0, (2, 1.2))} if is_late else {"solid_capstyle": "round"})}
    axes.plot([start, start], [y, -0.02], **look)
    ends = {center(i) - (0.2 if i == loss else 0) + shift: age for i, age in trained.items()}
    axes.plot([start, min(ends)], [y, y], **look)
    for x, age in ends.items():
        arrow(axes, (x, y), (x, -0.02), color, 2)
        if age:
            axes.text(x + 0.09, -0.19, f"{age}", color=color, fontsize=8.5, ha="left", va="center", fontweight="bold")


def main() -> None:
    late = (ib.e2e(K).delay(ib.least_delays(ib.e2e(K), 2)), "e2e~", "the last loss, a few steps late (M = 2)")
    for panels, file in (([*PANELS, late, MIXTURE], "schemes.png"), (LATE_PANELS, "schemes-late.png")):
        draw(panels).savefig(Path(__file__).with_name(file), dpi=170)


def draw(panels: list[tuple[ib.Scheme, str, str]]) -> Figure:
    n_rows = len(panels) // 2
    figure = Figure(figsize=(11.4, 2.6 * n_rows), facecolor="white", layout="constrained")
    for axes, (scheme, name, text) in zip(figure.subplots(n_rows, 2).flat, panels, strict=True):
        network(axes, scheme)
        credit(axes, scheme)
        title = axes.text(left(0) - 0.5, 2.1, name, fontsize=12.5, fontweight="bold", color=INK, va="baseline")
        axes.annotate(
            text, (1, 0), (10, 3.8), xycoords=title, textcoords="offset points", fontsize=9.5, color="#5a626e"
        )
        axes.set_xlim(left(0) - 0.62, left(K - 1) + WIDTH + 0.15)
        axes.set_ylim(-1.0 if not scheme.max_delay else -1.3, 2.45)
        axes.set_aspect("equal")
        axes.axis("off")
    return figure


if __name__ == "__main__":
    main()
