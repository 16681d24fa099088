"""The pictures: plain matplotlib, drawn once for a light page; the style sheet inverts them on a dark one."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable
from functools import partial
from itertools import cycle
from typing import Any, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from interlocking_backprop.compare.report.summary import REFERENCE, Summary, of

_INK, _MUTED, _GRID = "#1b1f24", "#5c6470", "#80889040"
# These stay apart for people with protanopia and deuteranopia; markers differ as well.
_COLORS = ("#1f55d6", "#c9301a", "#0b7a68", "#dd5ab0", "#b98600", "#4795ee", "#71209a")
_MARKERS = {"o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼", "P": "✚", "X": "✖", "<": "◀"}
_WIDTH, _HEIGHT = 5.4, 3.5
_LEGEND_FONT, _LONGEST_LABEL = 9, 26
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "interlocking-backprop",
    "text.parse_math": False,
    "text.color": _INK,
    "axes.labelcolor": _MUTED,
    "axes.edgecolor": _GRID,
    "axes.formatter.useoffset": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "figure.constrained_layout.use": True,
    "grid.color": _GRID,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "lines.markeredgewidth": 0.6,
    "xtick.color": _GRID,
    "xtick.labelcolor": _MUTED,
    "ytick.color": _GRID,
    "ytick.labelcolor": _MUTED,
}


class Mark(NamedTuple):
    """How a scheme is drawn: its colour, matplotlib's marker with its size, and a character that looks like it."""

    color: str
    marker: str
    size: float
    symbol: str

    @property
    def look(self) -> dict[str, Any]:
        """The arguments for a line or a point."""
        return {"color": self.color, "marker": self.marker, "markersize": self.size, "markeredgecolor": "white"}


class Picture(NamedTuple):
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


def marks(schemes: Iterable[str]) -> dict[str, Mark]:
    """A mark for each scheme, by their order; e2e, with which all are compared, is a star in the colour of the text."""
    others = zip(cycle(_COLORS), cycle(_MARKERS.items()))
    found = {}
    for scheme in dict.fromkeys(schemes):
        color, (marker, symbol) = (_INK, ("*", "★")) if scheme == REFERENCE else next(others)
        found[scheme] = Mark(color, marker, 10 if marker == "*" else 6.5, symbol)
    return found


def pictures(summary: Summary) -> list[Picture]:
    """Draws all for which there is something to draw."""
    drawn = []
    for kind, (draw, words) in _KINDS.items():
        for k in summary.components:
            with matplotlib.rc_context(_STYLE):
                figure = Figure(figsize=(_WIDTH, _HEIGHT))
                axes = figure.add_subplot(title=f"K = {k}")
                draw(summary, k, axes)
                if axes.has_data():
                    _add_legend(figure, axes)
                    description = f"{words}, K = {k}; its numbers are in the tables"
                    drawn.append(Picture(kind, f"{kind}-k{k}", description, figure))
    return drawn


def svg(figure: Figure) -> str:
    """A figure as SVG without a background, with text that is text; the same figure gives the same SVG."""
    file = io.StringIO()
    with matplotlib.rc_context(_STYLE):
        metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=metadata)
    return file.getvalue()


def _add_legend(figure: Figure, axes: Axes) -> None:
    """Names what is drawn, below the axes, for which the figure gets longer."""
    handles, labels = axes.get_legend_handles_labels()
    labels = [_short(label) for label in labels]
    width = 5 + 0.62 * max(map(len, labels))  # in heights of the font
    n_columns = max(1, int(72 * _WIDTH / (width * _LEGEND_FONT)))
    figure.set_figheight(_HEIGHT + math.ceil(len(labels) / n_columns) * 1.5 * _LEGEND_FONT / 72)
    figure.legend(handles, labels, loc="outside lower left", ncols=n_columns, fontsize=_LEGEND_FONT)


def _short(label: str) -> str:
    """A label, without its middle if it is long."""
    label = " ".join(label.split())
    half = (_LONGEST_LABEL - 1) // 2
    return label if len(label) <= _LONGEST_LABEL else f"{label[:half]}…{label[-half:]}"


def _frontier(summary: Summary, k: int, axes: Axes) -> None:
    """The test score against throughput on K devices: what a scheme brings, and what it costs."""
    factor, shown, hollow = summary.metric.factor, marks(summary.comparison.schemes), iter(cycle(_MARKERS))
    scores = of(summary.results, k)[["scheme", "mean", "std", "modelled_name"]].dropna(subset=["mean"])
    dots = of(summary.fastest, k).merge(scores, on="scheme", suffixes=("", "_of_scheme"))
    for dot in dots.itertuples():
        x, y, mark = dot.modelled_samples_per_second, dot.mean * factor, shown[dot.scheme]
        if dot.modelled_name == dot.modelled_name_of_scheme:
            axes.plot(x, y, **mark.look, linestyle="none", label=dot.scheme, zorder=4)
            if not math.isnan(dot.std):
                axes.errorbar(x, y, dot.std * factor, color=mark.color, capsize=3)
        else:
            look = {**mark.look, "marker": next(hollow), "markersize": 8, "markeredgecolor": mark.color}
            axes.plot(
                x, y, **look, markerfacecolor="none", markeredgewidth=1, linestyle="none", label=dot.modelled_name
            )
    if len(dots):
        for mean in scores.loc[scores["scheme"] == REFERENCE, "mean"]:
            axes.axhline(mean * factor, color=_MUTED, linewidth=0.9, dashes=(3, 3), zorder=1)
        axes.set_xlim(0, 1.08 * dots["modelled_samples_per_second"].max())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.set(xlabel="modelled throughput (samples/s)", ylabel=f"test {summary.metric.label}")


def _exits(summary: Summary, k: int, axes: Axes) -> None:
    """The test score of each exit."""
    exits = of(summary.results, k).set_index("scheme")[[f"exit_{i}_mean" for i in range(k)]]
    for scheme, mark in marks(summary.comparison.schemes).items():
        scores = exits.loc[scheme].set_axis(range(k)).dropna() * summary.metric.factor
        if len(scores):
            axes.plot(scores.index, scores, **mark.look, label=scheme)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlim=(-0.3, k - 0.7), xlabel="exit of component", ylabel=f"test {summary.metric.label}")


def _curves(summary: Summary, k: int, axes: Axes, *, on_devices: bool) -> None:
    """The validation score against epochs, or against time on K devices as it is modelled."""
    curves = of(summary.curves, k)
    seconds = of(summary.clocks, k).set_index("scheme")["modelled_step_seconds"]
    curves = curves.assign(x=curves["step"] * curves["scheme"].map(seconds) if on_devices else curves["epoch"])
    unit, length = _unit(curves["x"].max()) if on_devices else ("epochs", 1)
    ends = []
    for scheme, mark in marks(summary.comparison.schemes).items():
        curve = curves[(curves["scheme"] == scheme) & curves["x"].notna()]
        if curve.empty:
            continue
        x, mean = curve["x"] / length, curve["mean"] * summary.metric.factor
        low, high = (mean + sign * curve["std"].fillna(0) * summary.metric.factor for sign in (-1, 1))
        axes.plot(x, mean, **mark.look, markevery=max(1, len(x) // 5), label=scheme)
        axes.fill_between(x, low, high, color=mark.color, alpha=0.13, linewidth=0)
        ends += [low[len(x) // 5 :].min(), high[len(x) // 5 :].max()]
    if ends:
        # The steep beginning is left out of view: beside it the differences at the end could not be seen.
        margin = 0.05 * (max(ends) - min(ends)) or max(abs(max(ends)) * 0.01, 0.01)
        axes.set(xlim=(0, 1.02 * curves["x"].max() / length), ylim=(min(ends) - margin, max(ends) + margin))
    axes.xaxis.set_major_locator(MaxNLocator(integer=not on_devices))
    axes.set_xlabel(f"modelled time on {k} devices ({unit})" if on_devices else unit)
    axes.set_ylabel(f"validation {summary.metric.label}")


def _unit(longest: float) -> tuple[str, float]:
    """The unit for times up to the longest, and its length in seconds."""
    units = (("hours", 3600, 10800), ("minutes", 60, 180), ("seconds", 1, 1))
    return next(((unit, length) for unit, length, least in units if longest > least), ("ms", 1e-3))


def _microbatches(summary: Summary, k: int, axes: Axes) -> None:
    """The modelled time of a step against the number of micro-batches, where several were tried."""
    modelled, shown, hollow = of(summary.modelled, k), marks(summary.comparison.schemes), iter(cycle(_MARKERS))
    tried = sorted(modelled["modelled_microbatches"].unique())
    if len(tried) < 2:
        return
    for name, sweep in modelled.groupby("modelled_name", sort=False):
        look = shown[name].look if name in shown else {"color": _INK, "marker": next(hollow), "markerfacecolor": "none"}
        style = "-" if name in shown else "--"
        axes.plot(
            sweep["modelled_microbatches"], 1e3 * sweep["modelled_step_seconds"], **look, linestyle=style, label=name
        )
    axes.set_xscale("log", base=2)
    axes.set_xticks(tried, [str(m) for m in tried])
    axes.minorticks_off()
    axes.set(ylim=(0, None), xlabel="micro-batches M", ylabel="modelled time of a step (ms)")


_KINDS: dict[str, tuple[Callable[[Summary, int, Axes], None], str]] = {
    "frontier": (_frontier, "Test metric against modelled throughput"),
    "exits": (_exits, "Test metric of each exit"),
    "curves-epochs": (partial(_curves, on_devices=False), "Validation metric against epochs"),
    "curves-time": (partial(_curves, on_devices=True), "Validation metric against modelled time"),
    "micro-batches": (_microbatches, "Modelled time of a step against micro-batches"),
}
