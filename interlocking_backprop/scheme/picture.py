"""A scheme as a picture for notebooks: the matrix, with an arrow from the losses of each row to its component.

A coefficient whose credit is late is framed by dots, and its age stands behind it, as in the text of schemes: 0.5~2.

The picture is a piece of HTML that needs nothing else. It takes the colour of text from the page, so it can be read on
light and dark ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape

import numpy as np
import numpy.typing as npt

_WIDTH = 560  # of the matrix at most, in pixels, with cells of at least 8 and at most 38
_MOST = 64  # components that a picture has room for
_LEFT, _TOP = 96, 34  # room for the labels
_COLORS = {True: "#56B4E9", False: "#E69F00"}  # of positive and negative coefficients


_Matrices = Mapping[int, npt.NDArray[np.float64]]


def matrix_picture(matrices: _Matrices, name: str) -> str:
    """The matrices of a scheme as HTML, in one picture.

    Args:
        matrices: by age in ascending order, each of shape (K, K).
        name: what the scheme is called.
    """
    k = len(next(iter(matrices.values())))
    title = f"{escape(name)}, {k} component{'s' if k > 1 else ''}"
    if k > _MOST:
        return f"<div>{title} (a picture has room for {_MOST}; see <code>scheme.matrix</code>)</div>"
    cell = min(max(_WIDTH // k, 8), 38)
    width, height = _LEFT + k * cell + 2, _TOP + k * cell + 2
    greatest = max(float(np.abs(matrix).max()) for matrix in matrices.values())
    rows = (part for i in range(k) for part in _row(matrices, i, cell, greatest))
    body = "".join([*_labels(k, cell), *rows])
    return (
        f'<div style="overflow-x:auto"><div>{title}</div><svg xmlns="http://www.w3.org/2000/svg" role="img" '
        f'aria-label="scheme {title}" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'font-family="sans-serif" font-size="11" fill="currentColor">{body}</svg></div>'
    )


def _labels(k: int, cell: int) -> Iterator[str]:
    every = -(-20 // cell)  # labels need some 20 pixels each
    yield f'<text x="{_LEFT + k * cell / 2}" y="11" text-anchor="middle">loss</text>'
    for n in range(0, k, every):
        middle = (n + 0.5) * cell
        yield f'<text x="{_LEFT + middle}" y="27" text-anchor="middle">{n}</text>'
        yield f'<text x="{_LEFT - 8}" y="{_TOP + middle + 4}" text-anchor="end">component {n}</text>'


def _row(matrices: _Matrices, i: int, cell: int, greatest: float) -> Iterator[str]:
    """The component on the diagonal, the losses that train it, and an arrow from them to it."""
    x, y = _LEFT + i * cell, _TOP + i * cell
    losses = np.flatnonzero(np.any([matrix[i] != 0 for matrix in matrices.values()], axis=0))
    tooltip = f"component {i} is trained by nothing" if not len(losses) else f"component {i}"
    yield (
        f'<rect x="{x + 1}" y="{y + 1}" width="{cell - 2}" height="{cell - 2}" rx="4" fill="currentColor" '
        f'fill-opacity="0.04" stroke="currentColor" stroke-opacity="0.5"><title>{tooltip}</title></rect>'
    )
    if len(losses) and losses[-1] > i:
        tip, low, end, head = x + cell, y + 0.85 * cell, _LEFT + (losses[-1] + 0.5) * cell, min(6.0, cell / 3)
        yield (
            f'<path d="M{end} {low:g}H{tip}m{head} {-head / 2}l{-head} {head / 2}l{head} {head / 2}" fill="none" '
            'stroke="currentColor" stroke-opacity="0.6"/>'
        )
    for j in losses:
        found = {age: float(matrix[i, j]) for age, matrix in matrices.items() if matrix[i, j]}
        height = (cell - 6) / len(found)  # the ages of a coefficient share its cell, the earliest uppermost
        for n, (age, c) in enumerate(found.items()):
            title = f"component {i}: {c!r} of loss {j}" + (f", {age} step{'s' * (age > 1)} late" if age else "")
            yield from _coefficient(c, age, title, (_LEFT + j * cell, y + 3 + n * height), (cell, height), greatest)


def _coefficient(
    c: float, age: int, title: str, place: tuple[float, float], size: tuple[int, float], greatest: float
) -> Iterator[str]:
    """A coloured rectangle, and the number where there is room for it."""
    (at, top), (cell, height) = place, size
    # The page shows through, and so what is written on it can be read.
    strength = 0.2 + 0.4 * abs(c) / greatest
    late = ' stroke="currentColor" stroke-opacity="0.5" stroke-dasharray="1 2"' if age else ""
    yield (
        f'<rect x="{at + 3}" y="{top:g}" width="{cell - 6}" height="{height:g}" rx="3" fill="{_COLORS[c > 0]}" '
        f'fill-opacity="{strength:.2f}"{late}><title>{title}</title></rect>'
    )
    text = f"{c:.3g}~{age}" if age else f"{c:.3g}"
    if 6.5 * len(text) <= cell - 4 and (not age or height >= 10):
        yield f'<text x="{at + cell / 2}" y="{top + height / 2 + 4}" text-anchor="middle">{text}</text>'
