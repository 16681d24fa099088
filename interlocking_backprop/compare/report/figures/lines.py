"""Lines: the metric from exit to exit and in the course of training, and the time of a step against micro-batches."""

from __future__ import annotations

import math

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from interlocking_backprop.compare.report import formatting as f
from interlocking_backprop.compare.report.figures import theme
from interlocking_backprop.compare.report.figures.canvas import Canvas, End
from interlocking_backprop.compare.report.summary import Panel, Row, Summary

_MOST_POINTS = 200
_Line = tuple[Row, list[float], list[float], list[float]]


def exits(summary: Summary, panel: Panel) -> Figure | None:
    """The test metric of each exit; None if no run finished."""
    metric = f.Metric(summary.comparison.metric, summary.comparison.maximize)
    marks = theme.marks(summary.comparison.schemes)
    lines = []
    for row in panel.rows:
        points = [(i, e.mean * metric.factor) for i, e in enumerate(row.exits) if e and e.mean is not None]
        if points:
            lines.append((row, points))
    if not lines:
        return None
    names = [row.scheme for row, _ in lines]
    canvas = Canvas(f"K = {panel.components}", "exit of component", f"test {metric.label}", names)
    for row, points in lines:
        mark = marks[row.scheme]
        canvas.axes.plot(
            *zip(*points, strict=True),
            color=mark.color,
            marker=mark.marker,
            markersize=mark.size * 0.8,
            markeredgecolor=theme.SURFACE,
            markeredgewidth=0.6,
            linewidth=1.4,
        )
    canvas.axes.set_xlim(-0.3, panel.components - 0.7)
    canvas.axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    canvas.label_ends([End(row.scheme, *points[-1], marks[row.scheme].color) for row, points in lines])
    return canvas.figure


def curves(summary: Summary, panel: Panel, *, on_devices: bool) -> Figure | None:
    """The validation metric against epochs, or against time on K devices as it is modelled.

    Args:
        summary: of the comparison.
        panel: of it.
        on_devices: whether against time on K devices.

    Returns:
        The figure; None without a finished run, or without an estimate.
    """
    metric = f.Metric(summary.comparison.metric, summary.comparison.maximize)
    lines = [line for row in panel.rows if (line := _line(row, metric, on_devices=on_devices))]
    if not lines:
        return None
    longest = max(xs[-1] for _, xs, _, _ in lines)
    unit, factor = ("epochs", 1.0) if not on_devices else _clock(longest)
    x_label = f"modelled time on {panel.components} devices ({unit})" if on_devices else "epochs"
    names = [_name(row) if on_devices else row.scheme for row, *_ in lines]
    canvas = Canvas(f"K = {panel.components}", x_label, f"validation {metric.label}", names)
    marks = theme.marks(summary.comparison.schemes)
    ends = []
    for (row, xs, means, stds), name in zip(lines, names, strict=True):
        mark = marks[row.scheme]
        xs = [x * factor for x in xs]
        canvas.axes.plot(
            xs,
            means,
            color=mark.color,
            linewidth=1.5,
            marker=mark.marker,
            markersize=mark.size * 0.7,
            markeredgecolor=theme.SURFACE,
            markeredgewidth=0.6,
            markevery=max(1, len(xs) // 5) if len(xs) > 1 else 1,
        )
        if any(stds):
            low = [m - s for m, s in zip(means, stds, strict=True)]
            high = [m + s for m, s in zip(means, stds, strict=True)]
            canvas.axes.fill_between(xs, low, high, color=mark.color, alpha=0.13, linewidth=0)
        ends.append(End(name, xs[-1], means[-1], mark.color))
    canvas.axes.set_xlim(0, longest * factor * 1.02)
    _focus(canvas, lines)
    if not on_devices:
        canvas.axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    canvas.label_ends(ends)
    return canvas.figure


def microbatches(summary: Summary, panel: Panel) -> Figure | None:
    """The time of a step against the number of micro-batches; None where a single number was tried."""
    if len({e.microbatches for sweep in panel.sweep.values() for e in sweep}) < 2:
        return None
    marks = theme.marks(summary.comparison.schemes)
    names = list(panel.sweep)
    canvas = Canvas(f"K = {panel.components}", "micro-batches M", "modelled time of a step (ms)", names)
    ends = []
    hollow = 0
    for name, sweep in panel.sweep.items():
        xs, ys = [e.microbatches for e in sweep], [1e3 * e.step_seconds for e in sweep]
        is_scheme = name in marks and name in summary.comparison.schemes
        color = marks[name].color if is_scheme else theme.INK
        marker = marks[name].marker if is_scheme else theme.baseline_marker(hollow)
        hollow += not is_scheme
        canvas.axes.plot(
            xs,
            ys,
            color=color,
            marker=marker,
            markersize=(marks[name].size if is_scheme else 6) * 0.8,
            markerfacecolor=color if is_scheme else theme.SURFACE,
            markeredgecolor=theme.SURFACE if is_scheme else color,
            linestyle="-" if is_scheme else (0, (4, 2)),
            linewidth=1.3,
        )
        ends.append(End(name, xs[-1], ys[-1], color))
    tried = sorted({e.microbatches for sweep in panel.sweep.values() for e in sweep})
    canvas.axes.set_xscale("log", base=2)
    canvas.axes.xaxis.set_major_locator(FixedLocator(tried))
    canvas.axes.xaxis.set_minor_locator(NullLocator())
    canvas.axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    canvas.axes.set_ylim(bottom=0)
    canvas.label_ends(ends)
    return canvas.figure


def _line(row: Row, metric: f.Metric, *, on_devices: bool) -> _Line | None:
    curve = row.curve
    if curve is None or (on_devices and row.clock is None):
        return None
    if on_devices:
        assert row.clock is not None
        xs = [step * row.clock.step_seconds for step in curve.steps]
    else:
        xs = [float(epoch) for epoch in curve.epochs]
    means = [(s.mean or 0.0) * metric.factor for s in curve.scores]
    stds = [(s.std or 0.0) * metric.factor for s in curve.scores]
    # More points than the eye can tell apart only make the page heavy.
    every = math.ceil(len(xs) / _MOST_POINTS)
    keep = sorted({*range(0, len(xs), every), len(xs) - 1})
    thin = [[values[i] for i in keep] for values in (xs, means, stds)]
    return row, thin[0], thin[1], thin[2]


def _name(row: Row) -> str:
    """With the pipeline, where its speed is that of another than the scheme's own."""
    if row.clock is None or row.clock.name == row.scheme:
        return row.scheme
    return row.clock.name


def _clock(longest: float) -> tuple[str, float]:
    for unit, length in (("hours", 3600.0), ("minutes", 60.0)):
        if longest > 3 * length:
            return unit, 1 / length
    return ("seconds", 1.0) if longest > 1 else ("ms", 1e3)


def _focus(canvas: Canvas, lines: list[_Line]) -> None:
    """Leaves out of view the steep beginning, beside which the differences at the end could not be seen."""
    seen = [
        (mean, std)
        for _, _, means, stds in lines
        for mean, std in list(zip(means, stds, strict=True))[len(means) // 5 :]
    ]
    low, high = min(m - s for m, s in seen), max(m + s for m, s in seen)
    margin = 0.05 * (high - low) or max(abs(high) * 0.01, 0.01)
    canvas.axes.set_ylim(low - margin, high + margin)
