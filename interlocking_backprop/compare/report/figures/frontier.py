"""The test metric against throughput on K devices: what a scheme costs, and what it brings."""

from __future__ import annotations

import math
from typing import NamedTuple

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from interlocking_backprop.compare.report import formatting as f
from interlocking_backprop.compare.report.figures import theme
from interlocking_backprop.compare.report.figures.canvas import FONT, Canvas, short
from interlocking_backprop.compare.report.figures.labels import LEADER_FROM, Box, leader, place
from interlocking_backprop.compare.report.figures.svg import TIP
from interlocking_backprop.compare.report.summary import Panel, Summary
from interlocking_backprop.compare.results import Estimate
from interlocking_backprop.compare.statistics import Spread


class _Dot(NamedTuple):
    """A point of the picture."""

    name: str
    x: float
    score: Spread
    mark: theme.Mark
    hollow: bool
    microbatches: int


def frontier(summary: Summary, panel: Panel) -> Figure | None:
    """Draws a panel; None without anything that has both a score and an estimate."""
    metric = f.Metric(summary.comparison.metric, summary.comparison.maximize)
    dots = _dots(summary, panel)
    if not dots:
        return None
    canvas = Canvas(f"K = {panel.components}", "modelled throughput (samples/s)", f"test {metric.label}")
    axes = canvas.axes
    axes.set_xlim(0, 1.12 * max(dot.x for dot in dots))
    axes.set_ylim(*_limits(dots, metric))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    reference = panel.reference
    if reference and reference.score.mean is not None:
        axes.axhline(reference.score.mean * metric.factor, color=theme.MUTED, linewidth=0.9, dashes=(3, 3), zorder=1)
    for dot in dots:
        assert dot.score.mean is not None
        y = dot.score.mean * metric.factor
        if dot.score.std is not None and not dot.hollow:
            std = dot.score.std * metric.factor
            axes.errorbar([dot.x], [y], [std], color=dot.mark.color, linewidth=1.4, capsize=3, zorder=2)
        axes.plot(
            [dot.x],
            [y],
            marker=dot.mark.marker,
            markersize=dot.mark.size,
            color=dot.mark.color,
            markerfacecolor=theme.SURFACE if dot.hollow else dot.mark.color,
            markeredgecolor=dot.mark.color if dot.hollow else theme.SURFACE,
            linestyle="none",
            # Above those that may lie at the very same place, and are wider.
            zorder=3 if dot.hollow else 4,
            gid=f"{TIP}{dot.name}: {metric.spread(dot.score, unit=True)} (n = {dot.score.n}), "
            f"{f.significant(dot.x)} samples/s with M = {dot.microbatches}",
        )
    _label(canvas, dots, metric)
    return canvas.figure


def _dots(summary: Summary, panel: Panel) -> list[_Dot]:
    marks = theme.marks(summary.comparison.schemes)
    batch = summary.comparison.batch_size

    def rate(estimate: Estimate) -> float:
        return batch / estimate.step_seconds

    scores = {row.scheme: row.score for row in panel.rows if row.score.mean is not None}
    dots = [
        _Dot(row.scheme, rate(row.estimate), row.score, marks[row.scheme], False, row.estimate.microbatches)
        for row in panel.rows
        if row.estimate and row.scheme in scores
    ]
    shown = {row.estimate for row in panel.rows if row.estimate}
    for index, estimate in enumerate(e for e in panel.baselines if e.scheme in scores and e not in shown):
        mark = theme.Mark(marks[estimate.scheme].color, theme.baseline_marker(index), 8)
        score = scores[estimate.scheme]
        dots.append(_Dot(estimate.name, rate(estimate), score, mark, True, estimate.microbatches))
    return dots


def _limits(dots: list[_Dot], metric: f.Metric) -> tuple[float, float]:
    """With room for labels where most points are: at the end that is better."""
    scores = [dot.score for dot in dots]
    ends = [(s.mean + sign * (s.std or 0)) * metric.factor for s in scores if s.mean is not None for sign in (-1, 1)]
    low, high = min(ends), max(ends)
    size = high - low or max(abs(high) * 0.02, 0.02)
    worse, better = 0.08 * size, 0.2 * size
    return (low - worse, high + better) if metric.maximize else (low - better, high + worse)


def _line_obstacle(canvas: Canvas, frame: Box, dots: list[_Dot], metric: f.Metric) -> list[Box]:
    """The dashed line at the score of e2e."""
    scores = [dot.score.mean for dot in dots if dot.name == "e2e" and dot.score.mean is not None]
    heights = [canvas.at(0, score * metric.factor)[1] for score in scores]
    return [Box(frame.left, y - 1, frame.right, y + 1) for y in heights]


def _label(canvas: Canvas, dots: list[_Dot], metric: f.Metric) -> None:
    bounds = canvas.axes.get_window_extent()
    frame = Box(float(bounds.x0) + 2, float(bounds.y0) + 2, float(bounds.x1) + 8, float(bounds.y1))
    points, sizes = [], []
    obstacles = _line_obstacle(canvas, frame, dots, metric)
    for dot in dots:
        assert dot.score.mean is not None
        x, y = canvas.at(dot.x, dot.score.mean * metric.factor)
        points.append((x, y))
        sizes.append((canvas.width(short(dot.name)) + 6, FONT + 3))
        obstacles.append(Box(x - 5, y - 5, x + 5, y + 5))
        if dot.score.std and not dot.hollow:
            _, low = canvas.at(dot.x, (dot.score.mean - dot.score.std) * metric.factor)
            obstacles.append(Box(x - 3, low, x + 3, y + (y - low)))
    for dot, point, box in zip(dots, points, place(points, sizes, obstacles, frame), strict=True):
        end = leader(point, box)
        if math.dist(point, end) > LEADER_FROM:
            canvas.line(point, end, dot.mark.color)
        canvas.text(dot.name, box.left + 3, (box.bottom + box.top) / 2)
