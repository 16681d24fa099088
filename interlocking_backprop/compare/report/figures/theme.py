"""Colours and markers, the same in every picture and table, in a light and a dark version.

Pictures are drawn once, in the light colours; on the page each colour becomes a CSS variable that has two values. The
colours of either version stay apart for people with protanopia and deuteranopia, and have a contrast of at least 3 with
the background. Markers differ as well.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from matplotlib.markers import MarkerStyle
from matplotlib.transforms import Affine2D

INK, MUTED, GRID, SURFACE = "#1b1f24", "#5c6470", "#e2e5ea", "#ffffff"

_SERIES = (
    ("#1f55d6", "#4a80ff"),
    ("#c9301a", "#ff5a36"),
    ("#0b7a68", "#2fa678"),
    ("#dd5ab0", "#ff9bae"),
    ("#b98600", "#ddbf0d"),
    ("#4795ee", "#4ecbff"),
    ("#71209a", "#bb55c6"),
)
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")

# Name of the CSS variable: in light, in dark.
COLORS = {
    "ink": (INK, "#eceef1"),
    "muted": (MUTED, "#a2abb8"),
    "grid": (GRID, "#2e343c"),
    "surface": (SURFACE, "#15181c"),
    **{f"series-{i}": pair for i, pair in enumerate(_SERIES)},
}
_VARIABLES = {light: name for name, (light, _) in COLORS.items()}


class Mark(NamedTuple):
    """How a scheme is drawn.

    Attributes:
        color: its colour in the light version.
        marker: its marker, as matplotlib writes it.
        size: of the marker, in points.
    """

    color: str
    marker: str
    size: float


def marks(schemes: Iterable[str]) -> dict[str, Mark]:
    """A mark for each scheme, by their order; e2e, with which all are compared, is a star in the colour of the text."""
    others = [scheme for scheme in dict.fromkeys(schemes) if scheme != "e2e"]
    result = {
        scheme: Mark(_SERIES[i % len(_SERIES)][0], _MARKERS[i % len(_MARKERS)], 6.5) for i, scheme in enumerate(others)
    }
    result["e2e"] = Mark(INK, "*", 10)
    return result


def baseline_marker(index: int) -> str:
    """The marker of a variant of e2e, drawn hollow."""
    return _MARKERS[index % len(_MARKERS)]


def css_color(color: str) -> str:
    """A colour of a picture as the variable that takes its place on the page.

    Raises:
        KeyError: if it is none of the colours that have a dark version.
    """
    return f"var(--{_VARIABLES[color]})"


def css_variables(dark: bool) -> str:
    """Declarations of all variables."""
    return " ".join(f"--{name}: {pair[dark]};" for name, pair in COLORS.items())


def marker_path(marker: str, size: float) -> str:
    """A marker as the data of an SVG path, around (0, 0), y downwards."""
    style = MarkerStyle(marker)
    transform: Affine2D = Affine2D().scale(size, -size)
    path = style.get_path().transformed(style.get_transform() + transform)
    letters = {1: "M", 2: "L", 3: "Q", 4: "C", 79: "Z"}
    parts = []
    for points, code in path.iter_segments(simplify=False):
        numbers = "" if code == 79 else " ".join(f"{value:.2f}" for value in points)
        parts.append(f"{letters[int(code)]}{numbers}")
    return "".join(parts)
