"""The pictures: plain matplotlib with legends, in the style of assets/figures.mplstyle."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable
from functools import partial
from importlib import resources
from itertools import cycle
from typing import Any, NamedTuple
from urllib.parse import quote

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from interlocking_backprop.compare.report.summary import REFERENCE, Summary, of

ASSETS = resources.files("interlocking_backprop.compare.report") / "assets"
_INK = "#1b1f24"
# These stay apart for people with protanopia and deuteranopia, and have a contrast of at least 3 with the page, on a
# dark page too, where they are inverted; markers differ as well.
_COLORS = ("#1f55d6", "#c9301a", "#0b7a68", "#dd5ab0", "#b98600", "#4795ee", "#71209a")
# Characters that look like markers.
SYMBOLS = {"*": "★", "o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼", "P": "✚", "X": "✖", "<": "◀"}
_STYLE = str(ASSETS / "figures.mplstyle")
_LONGEST_LABEL = 26


class Picture(NamedTuple):
    """A picture: its name, unique in the report, a kind of `KINDS`, a sentence about it, and the figure."""

    name: str
    kind: str
    description: str
    figure: Figure

    @property
    def uri(self) -> str:
        """The picture as SVG without a background, with text that is text; always the same for the same figure."""
        file = io.StringIO()
        metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        with matplotlib.rc_context(fname=_STYLE):
            self.figure.savefig(file, format="svg", transparent=True, metadata=metadata)
        return f"data:image/svg+xml,{quote(file.getvalue(), safe=' /;=,')}"


def pictures(summary: Summary) -> list[Picture]:
    """Draws all for which there is something to draw."""
    drawn = []
    for kind, (draw, words) in KINDS.items():
        for k in summary.components:
            with matplotlib.rc_context(fname=_STYLE):
                figure = Figure()
                axes = figure.add_subplot(title=f"K = {k}")
                draw(summary, k, axes)
                if axes.has_data():
                    _add_legend(figure, axes)
                    description = f"{words}, K = {k}; its numbers are in the tables"
                    drawn.append(Picture(f"{kind}-k{k}", kind, description, figure))
    return drawn


def marks(schemes: Iterable[str]) -> dict[str, dict[str, Any]]:
    """How each scheme is drawn; e2e, with which all are compared, is a star in the colour of the text."""
    others = zip(cycle(_COLORS), cycle(list(SYMBOLS)[1:]))
    looks = {scheme: (_INK, "*") if scheme == REFERENCE else next(others) for scheme in dict.fromkeys(schemes)}
    return {
        scheme: {"color": color, "marker": marker, "markersize": 11 if marker == "*" else 7, "markeredgecolor": "white"}
        for scheme, (color, marker) in looks.items()
    }


def _add_legend(figure: Figure, axes: Axes) -> None:
    """Names what is drawn in two columns below the axes, for which the figure gets longer."""
    handles, labels = axes.get_legend_handles_labels()
    shown = [label if len(label) <= _LONGEST_LABEL else f"{label[:12]}…{label[-12:]}" for label in labels]
    figure.set_figheight(figure.get_figheight() + 0.19 * math.ceil(len(labels) / 2))
    figure.legend(handles, shown, loc="outside lower left", ncols=2)


def _frontier(summary: Summary, k: int, axes: Axes) -> None:
    """The test score against throughput on K devices: what a scheme brings, and what it costs."""
    factor, looks, hollow = summary.metric.factor, marks(summary.comparison.schemes), cycle("os^DvPX<")
    scores = of(summary.results, k)[["scheme", "mean", "std", "modelled_name"]].dropna(subset=["mean"])
    dots = of(summary.fastest, k).merge(scores, on="scheme", suffixes=("", "_of_scheme"))
    if dots.empty:
        return
    for dot in dots.itertuples():
        x, y, look = dot.modelled_samples_per_second, dot.mean * factor, looks[dot.scheme]
        if dot.modelled_name == dot.modelled_name_of_scheme:
            axes.plot(x, y, **look, linestyle="none", zorder=4, label=summary.label(k, dot.scheme))
            axes.errorbar(x, y, dot.std * factor, color=look["color"], capsize=3, fmt="none")
        else:
            look = {"marker": next(hollow), "markerfacecolor": "none", "color": look["color"]}
            axes.plot(x, y, **look, markeredgewidth=1, linestyle="none", label=dot.modelled_name)
    for mean in scores.loc[scores["scheme"] == REFERENCE, "mean"]:
        axes.axhline(mean * factor, color=_INK, linewidth=0.8, linestyle="--", zorder=1)
    axes.set_xlim(0, 1.08 * dots["modelled_samples_per_second"].max())
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.set(xlabel="modelled throughput (samples/s)", ylabel=f"test {summary.metric.label}")


def _exits(summary: Summary, k: int, axes: Axes) -> None:
    """The test score of each exit."""
    exits = of(summary.results, k).set_index("scheme")[[f"exit_{i}_mean" for i in range(k)]]
    looks = marks(summary.comparison.schemes)
    for scheme, row in exits.iterrows():
        scores = row.set_axis(range(k)).dropna() * summary.metric.factor
        if len(scores):
            axes.plot(scores.index, scores, **looks[scheme], label=summary.label(k, scheme))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlim=(-0.3, k - 0.7), xlabel="exit of component", ylabel=f"test {summary.metric.label}")


def _curves(summary: Summary, k: int, axes: Axes, *, on_devices: bool) -> None:
    """The validation score against epochs, or against time on K devices as it is modelled."""
    curves, factor, ends = of(summary.curves, k), summary.metric.factor, []
    seconds = of(summary.clocks, k).set_index("scheme")["modelled_step_seconds"]
    curves = curves.assign(x=curves["step"] * curves["scheme"].map(seconds) if on_devices else curves["epoch"])
    curves = curves.dropna(subset=["x"])
    unit, length = _unit(curves["x"].max()) if on_devices else ("epochs", 1)
    for scheme, look in marks(summary.comparison.schemes).items():
        curve = curves[curves["scheme"] == scheme]
        # More points than the eye can tell apart only make the page heavy; the last one stays.
        curve = curve.iloc[:: -math.ceil(len(curve) / 200) or -1].iloc[::-1]
        if curve.empty:
            continue
        x, mean, std = curve["x"] / length, curve["mean"] * factor, curve["std"].fillna(0) * factor
        axes.plot(x, mean, **look, markevery=max(1, len(x) // 5), label=summary.label(k, scheme))
        axes.fill_between(x, mean - std, mean + std, color=look["color"], alpha=0.13, linewidth=0)
        ends += [(mean + sign * std)[len(x) // 5 :] for sign in (-1, 1)]
    if ends:
        # The steep beginning is left out of view: beside it the differences at the end could not be seen.
        low, high = min(map(min, ends)), max(map(max, ends))
        margin = 0.05 * (high - low) or max(abs(high) * 0.01, 0.01)
        axes.set(xlim=(0, 1.02 * curves["x"].max() / length), ylim=(low - margin, high + margin))
    axes.xaxis.set_major_locator(MaxNLocator(integer=not on_devices))
    axes.set_xlabel(f"modelled time on {k} devices ({unit})" if on_devices else unit)
    axes.set_ylabel(f"validation {summary.metric.label}")


def _unit(longest: float) -> tuple[str, float]:
    """The unit for times up to the longest, and its length in seconds."""
    units = (("hours", 3600, 10800), ("minutes", 60, 180), ("seconds", 1, 1))
    return next(((unit, length) for unit, length, least in units if longest > least), ("ms", 1e-3))


def _microbatches(summary: Summary, k: int, axes: Axes) -> None:
    """The modelled time of a step against the number of micro-batches, where several were tried."""
    modelled, looks, hollow = of(summary.modelled, k), marks(summary.comparison.schemes), cycle("os^DvPX<")
    tried = sorted(modelled["modelled_microbatches"].unique())
    if len(tried) < 2:
        return
    for name, sweep in modelled.groupby("modelled_name", sort=False):
        other = {"color": _INK, "markerfacecolor": "none", "linestyle": "--"}
        look = looks[name] if name in looks else {**other, "marker": next(hollow)}
        axes.plot(
            sweep["modelled_microbatches"], 1e3 * sweep["modelled_step_seconds"], **look, label=summary.label(k, name)
        )
    axes.set_xscale("log", base=2)
    axes.set_xticks(tried, [str(m) for m in tried])
    axes.minorticks_off()
    axes.set(ylim=(0, None), xlabel="micro-batches M", ylabel="modelled time of a step (ms)")


KINDS: dict[str, tuple[Callable[[Summary, int, Axes], None], str]] = {
    "frontier": (_frontier, "Test metric against modelled throughput"),
    "exits": (_exits, "Test metric of each exit"),
    "curves-epochs": (partial(_curves, on_devices=False), "Validation metric against epochs"),
    "curves-time": (partial(_curves, on_devices=True), "Validation metric against modelled time"),
    "micro-batches": (_microbatches, "Modelled time of a step against micro-batches"),
}
