"""A picture's frame: axes with margins that fit their labels, and labels at the ends of lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties

from interlocking_backprop.compare.report.figures import theme
from interlocking_backprop.compare.report.figures.labels import spread_out

WIDTH, HEIGHT = 390.0, 300.0
FONT = 10.0
_LINE = 13.0
_LEFT, _BOTTOM, _TOP = 54.0, 42.0, 24.0
_LONGEST = 22


class End(NamedTuple):
    """The end of a line, and what it is called.

    Attributes:
        label: its name.
        x: in the units of the axis.
        y: in the units of the axis.
        color: of the line.
    """

    label: str
    x: float
    y: float
    color: str


class Canvas:
    """A figure with one pair of axes, in points (72 to the inch).

    Attributes:
        figure: the figure.
        axes: its axes.
    """

    def __init__(self, title: str, x_label: str, y_label: str, labels: Sequence[str] = ()) -> None:
        """Draws the frame.

        Args:
            title: above the axes.
            x_label: title of the horizontal axis, with its unit.
            y_label: title of the vertical axis, with its unit.
            labels: that `label_ends` will put at the right of the axes.
        """
        height = max(HEIGHT, len(labels) * _LINE + _BOTTOM + _TOP)
        self.figure = Figure(figsize=(WIDTH / 72, height / 72), dpi=72, facecolor=theme.SURFACE)
        self._renderer: RendererAgg = FigureCanvasAgg(self.figure).get_renderer()  # type: ignore[no-untyped-call]
        right = 34.0 + max(self.width(short(label)) for label in labels) if labels else 12.0
        box = (_LEFT / WIDTH, _BOTTOM / height, (WIDTH - _LEFT - right) / WIDTH, (height - _BOTTOM - _TOP) / height)
        self.axes: Axes = self.figure.add_axes(box)
        self.axes.set_facecolor(theme.SURFACE)
        self.axes.set_title(title, fontsize=FONT + 1, color=theme.INK, loc="left", parse_math=False, fontweight="bold")
        for axis, text in ((self.axes.xaxis, x_label), (self.axes.yaxis, y_label)):
            axis.set_label_text(text, fontsize=FONT, color=theme.MUTED, parse_math=False)
            axis.get_major_formatter().set_useOffset(False)  # type: ignore[attr-defined]
        self.axes.tick_params(labelsize=FONT, labelcolor=theme.MUTED, color=theme.GRID, length=3)
        self.axes.grid(color=theme.GRID, linewidth=0.8)
        self.axes.set_axisbelow(True)
        for side, spine in self.axes.spines.items():
            spine.set_visible(side in ("left", "bottom"))
            spine.set_color(theme.GRID)

    def width(self, text: str) -> float:
        """Of a label, in points."""
        font = FontProperties(size=FONT)
        size = self._renderer.get_text_width_height_descent(text, font, False)  # type: ignore[no-untyped-call]
        return float(size[0])

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a point of the data lies in the figure, in points; the limits of the axes have to be set."""
        place = self.axes.transData.transform((x, y))
        return float(place[0]), float(place[1])

    def text(self, label: str, x: float, y: float, **options: str | float) -> None:
        """Writes a label at a place in the figure, in points."""
        self.figure.text(
            x / WIDTH,
            y / (self.figure.get_figheight() * 72),
            short(label),
            fontsize=FONT,
            parse_math=False,
            **{"color": theme.INK, "va": "center", **options},  # type: ignore[arg-type]
        )

    def line(self, a: tuple[float, float], b: tuple[float, float], color: str, style: str = "-") -> None:
        """Draws a thin line between two places in the figure, in points."""
        height = self.figure.get_figheight() * 72
        self.axes.plot(
            [a[0] / WIDTH, b[0] / WIDTH],
            [a[1] / height, b[1] / height],
            color=color,
            linewidth=0.8,
            linestyle=style,
            transform=self.figure.transFigure,
            clip_on=False,
            scalex=False,
            scaley=False,
        )

    def label_ends(self, ends: Sequence[End]) -> None:
        """Names lines at the right of the axes, each beside the end of its line; the limits have to be set."""
        bounds = self.axes.get_window_extent()
        edge, low, high = float(bounds.x1), float(bounds.y0), float(bounds.y1)
        places = [self.at(end.x, end.y) for end in ends]
        heights = spread_out([min(max(y, low), high) for _, y in places], _LINE, low, high)
        for end, (x, y), height in zip(ends, places, heights, strict=True):
            if low <= y <= high:
                # Dotted, for it must not look like data.
                self.line((x + 4, y), (edge + 6, y), end.color, ":")
                self.line((edge + 6, y), (edge + 18, height), end.color)
            self.line((edge + 18, height), (edge + 24, height), end.color)
            self.text(end.label, edge + 27, height)


def short(label: str) -> str:
    """A label, without its middle if it is long."""
    label = " ".join(label.split())
    if len(label) <= _LONGEST:
        return label
    half = (_LONGEST - 1) // 2
    return f"{label[:half]}…{label[-half:]}"
