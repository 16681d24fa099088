"""A basis of the tails at a boundary, made of tails themselves, and the coordinates of other vectors in it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import hypot, inf

import numpy as np
import numpy.typing as npt

Vector = tuple[float, ...]
Array = npt.NDArray[np.float64]


def basis_of(tails: Sequence[Vector], own: Sequence[Vector] = ()) -> list[Vector]:
    """The streams at a boundary: vectors that span all tails there, in the order of their last losses.

    They are the tails themselves, multiples counted once.

    Args:
        tails: what the components below the boundary want.
        own: the independent vectors that the weight gradients of the component above it start from. Each stands in for
            a multiple of it, for then its weight-gradient pass and an input-gradient pass are one.
    """
    candidates: list[Vector] = []
    for tail in tails:
        if any(tail) and not any(_parallel(tail, other) for other in candidates):
            candidates.append(next((vector for vector in own if _parallel(tail, vector)), tail))
    candidates.sort(key=_last)
    return _reduced(candidates, own)


def _reduced(candidates: list[Vector], own: Sequence[Vector]) -> list[Vector]:
    """Fewer vectors with the same span, if there are such; each of ``own`` among them wherever it lies in the span.

    Vectors so close to dependence that the others would enter with large coefficients of opposite sign stay apart:
    the pass that this would save is not worth the digits that it would cost.
    """
    if len(candidates) + len(own) < 2:
        return candidates
    rank = _rank(candidates)
    chosen = [v for v in own if v in candidates or rank == len(v) or _rank([*candidates, v]) == rank]
    if rank == len(candidates) and all(v in candidates for v in chosen):
        return candidates
    pool = [v for v in candidates if v not in chosen]
    while len(chosen) < rank:
        # The one furthest from the span of those chosen, the earliest of equals.
        chosen.append(pool.pop(int(np.argmax(np.round(_distances(pool, chosen), 6)))))
    basis = sorted(chosen, key=_last)
    return basis if all(v in basis or _representable(v, tuple(basis)) for v in candidates) else candidates


def _last(v: Vector) -> int:
    return max(j for j, c in enumerate(v) if c)


def _direction(v: Vector) -> Vector:
    length = hypot(*v)
    return tuple(c / length for c in v)


def _rank(vectors: Sequence[Vector]) -> int:
    """The dimension of what the vectors span, up to 1e-9 of their lengths."""
    if not vectors:
        return 0
    directions = np.array([_direction(v) for v in vectors])
    # The squares of the n singular values sum to n, so all but the least multiply to less than sqrt(e), and the least
    # is above |det| / sqrt(e). A volume that is plainly there spares their computation.
    if len(vectors) <= len(vectors[0]) and np.linalg.det(directions @ directions.T) > 1e-6:
        return len(vectors)
    return int(np.linalg.matrix_rank(directions, tol=1e-9))


def _distances(vectors: Sequence[Vector], others: Sequence[Vector]) -> Array:
    """How far the direction of each vector is from the span of others."""
    points = np.array([_direction(v) for v in vectors])
    if others:
        q, _ = np.linalg.qr(np.array(others).T)
        points = points - points @ q @ q.T
    distances: Array = np.linalg.norm(points, axis=1)
    return distances


def _parallel(a: Vector, b: Vector) -> bool:
    """Whether two vectors are multiples of one another, up to the rounding of their entries (0.1, 1/3)."""
    pivot = _pivot(b)
    if not b[pivot]:
        return False
    factor = a[pivot] / b[pivot]
    for x, y in zip(a, b, strict=True):
        expected = factor * y
        if not abs(x - expected) <= 1e-14 * abs(expected) < inf:
            return False
    return True


def _pivot(v: Vector) -> int:
    """The index of the entry of the greatest size, the first of equals."""
    sizes = [abs(c) for c in v]
    return sizes.index(max(sizes))


def _representable(v: Vector, basis: tuple[Vector, ...]) -> bool:
    coordinates, length = coordinates_in(v, basis), hypot(*v)
    is_exact = (np.abs(np.array(coordinates) @ np.array(basis) - v) <= 1e-13 * length).all()
    return bool(is_exact) and all(abs(c) * hypot(*b) <= 16 * length for c, b in zip(coordinates, basis, strict=True))


@lru_cache(maxsize=1024)  # whoever asks whether a vector can be represented comes back for how
def coordinates_in(v: Vector, basis: tuple[Vector, ...]) -> tuple[float, ...]:
    """The coefficients of a vector of the span in a basis; a single exact one for a multiple of a basis vector."""
    if not any(v):
        return (0.0,) * len(basis)
    for s, stream in enumerate(basis):
        if _parallel(v, stream):
            pivot = _pivot(stream)
            return tuple(v[pivot] / stream[pivot] if s == other else 0.0 for other in range(len(basis)))
    coordinates = np.linalg.lstsq(np.array(basis).T, np.array(v), rcond=None)[0]
    coordinates[np.abs(coordinates) < 1e-14 * np.abs(coordinates).max()] = 0.0
    return tuple(coordinates.tolist())
