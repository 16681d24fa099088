"""A scheme as a picture for notebooks: the matrix, with an arrow from the losses of each row to its component.

The picture is a piece of HTML that needs nothing else. It takes the colour of text from the page, so it can be read on
light and dark ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

import numpy as np
import numpy.typing as npt

_WIDTH = 560  # of the matrix at most, in pixels, with cells of at least 8 and at most 38
_MOST = 64  # components that a picture has room for
_LEFT, _TOP = 96, 34  # room for the labels
_COLORS = {True: "#56B4E9", False: "#E69F00"}  # of positive and negative coefficients


def matrix_picture(matrix: npt.NDArray[np.float64], name: str) -> str:
    """The matrix of a scheme as HTML.

    Args:
        matrix: shape (K, K).
        name: what the scheme is called.
    """
    k = len(matrix)
    title = f"{escape(name)}, {k} component{'s' if k > 1 else ''}"
    if k > _MOST:
        return f"<div>{title} (a picture has room for {_MOST}; see <code>scheme.matrix</code>)</div>"
    cell = min(max(_WIDTH // k, 8), 38)
    width, height = _LEFT + k * cell + 2, _TOP + k * cell + 2
    body = "".join([*_labels(k, cell), *(part for i in range(k) for part in _row(matrix[i], i, cell, matrix))])
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


def _row(row: npt.NDArray[np.float64], i: int, cell: int, matrix: npt.NDArray[np.float64]) -> Iterator[str]:
    """The component on the diagonal, the losses that train it, and an arrow from them to it."""
    x, y, greatest = _LEFT + i * cell, _TOP + i * cell, float(np.abs(matrix).max())
    losses = np.flatnonzero(row)
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
        c = float(row[j])
        # The page shows through, and so what is written on it can be read.
        strength = 0.2 + 0.4 * abs(c) / greatest
        text, at = f"{c:.3g}", _LEFT + j * cell
        yield (
            f'<rect x="{at + 3}" y="{y + 3}" width="{cell - 6}" height="{cell - 6}" rx="3" fill="{_COLORS[c > 0]}" '
            f'fill-opacity="{strength:.2f}"><title>component {i}: {c!r} of loss {j}</title></rect>'
        )
        if 6.5 * len(text) <= cell - 4:
            yield f'<text x="{at + cell / 2}" y="{y + cell / 2 + 4}" text-anchor="middle">{text}</text>'
