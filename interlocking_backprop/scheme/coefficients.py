"""Which loss trains which component: the matrix of loss coefficients.

A scheme is an upper-triangular K x K matrix C. Component i descends ``sum_j C[i, j] * loss_j``, where loss j is that
of the head at component j, and loss K-1 the loss of the whole network. The schemes of Gomez et al. (JMLR
23(171), 2022, section 3) are the constructors below; any other is written as the matrix itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from interlocking_backprop.common.checks import check_whole
from interlocking_backprop.common.fields import LARGEST
from interlocking_backprop.scheme.picture import matrix_picture

Reduction = Literal["furthest", "sum", "mean"]
REDUCTIONS: tuple[Reduction, ...] = ("furthest", "sum", "mean")


class Scheme:
    """An upper-triangular matrix of loss coefficients.

    Args:
        matrix: K x K nested sequence or array of finite numbers, zero below the diagonal. Row i says how component i
            is trained: by ``sum_j matrix[i][j] * loss_j``. A row of zeros is a frozen component; models
            refuse a scheme that has no others.
        name: what the scheme is called in tables and pictures. It does not enter comparisons.

    Raises:
        ValueError: if the matrix is not square, empty, not finite or has an entry below the diagonal, or one of more
            than 1e38, which a float32 cannot hold.
    """

    def __init__(self, matrix: Sequence[Sequence[float]] | npt.ArrayLike, name: str | None = None) -> None:
        self._matrix = _checked(matrix)
        self.name = name if name is not None else "custom"

    @property
    def matrix(self) -> npt.NDArray[np.float64]:
        """The coefficients, shape (K, K), read-only."""
        return self._matrix

    @property
    def n_components(self) -> int:
        """K, the number of components (and of losses)."""
        return len(self._matrix)

    @property
    def horizon(self) -> int:
        """The smallest N such that no component looks further than N-1 components ahead; 0 if all are frozen."""
        rows, columns = np.nonzero(self._matrix)
        return int((columns - rows).max()) + 1 if len(rows) else 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Scheme) and np.array_equal(self._matrix, other._matrix)

    def __hash__(self) -> int:
        return hash((len(self._matrix), self._matrix.tobytes()))

    def __repr__(self) -> str:
        return f"Scheme({self._matrix.tolist()}, name={self.name!r})"

    def __str__(self) -> str:
        rows = "\n".join(" ".join(f"{c:6.3g}" if c else "     ." for c in row) for row in self._matrix)
        return f"{self.name} ({self.n_components} components)\n{rows}"

    def _repr_html_(self) -> str:
        """A picture for notebooks."""
        return matrix_picture(self._matrix, self.name)


def check_scheme(scheme: object, n_components: int) -> None:
    """Checks that something is a scheme for a model.

    Raises:
        ValueError: if it is no scheme, or one for another number of components, or trains no component.
    """
    if not isinstance(scheme, Scheme):
        raise ValueError(f"the scheme is {scheme!r}; expected an interlocking_backprop.Scheme, e.g. nwise(k, 3).")
    if scheme.n_components != n_components:
        raise ValueError(
            f"scheme {scheme.name!r} is for {scheme.n_components} components, the model has {n_components}; make it "
            f"for {n_components}."
        )
    if not scheme.matrix.any():
        raise ValueError(
            f"scheme {scheme.name!r} trains no main net: all of its coefficients are 0; expected one at least that is "
            "not. To train heads alone, freeze the main nets (requires_grad_(False)), under any scheme; to train "
            "nothing, call no training_step()."
        )


def e2e(n_components: int) -> Scheme:
    """End-to-end backpropagation: the last loss trains every component."""
    return Scheme(nwise(n_components, n_components).matrix, name="e2e")


def local(n_components: int) -> Scheme:
    """Local learning: every component descends its own loss alone."""
    return nwise(n_components, 1)


def pairwise(n_components: int) -> Scheme:
    """Every component descends the loss of the next one."""
    return nwise(n_components, 2)


def nwise(n_components: int, n: int, reduction: Reduction = "furthest") -> Scheme:
    """Every component descends losses inside a window that begins with its own.

    Args:
        n_components: K.
        n: N, the length of the window: loss i to loss min(i + N - 1, K - 1) for component i. N = 1 is local learning,
            N = 2 pairwise; N >= K reaches the last loss from everywhere (with "furthest" that is end-to-end).
        reduction: "furthest" takes the last loss of the window (the paper's N-wise), "sum" all of them, "mean" their
            mean.

    Raises:
        ValueError: if K < 1, N < 1 or the reduction is unknown.
    """
    check_whole("n_components", n_components)
    check_whole("n", n)
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction is {reduction!r}; expected one of {', '.join(map(repr, REDUCTIONS))}.")
    matrix = np.zeros((n_components, n_components))
    for i in range(n_components):
        last = min(i + n - 1, n_components - 1)
        if reduction == "furthest":
            matrix[i, last] = 1.0
        else:
            matrix[i, i : last + 1] = 1.0 if reduction == "sum" else 1.0 / (last - i + 1)
    return Scheme(matrix, name=_window_name(n) if reduction == "furthest" else f"{_window_name(n)}-{reduction}")


def deep_supervision(n_components: int) -> Scheme:
    """Every component descends the sum of all losses from its own on (Lee et al., AISTATS 2015)."""
    return Scheme(nwise(n_components, n_components, "sum").matrix, name="deep-supervision")


def decaying(n_components: int, decay: float, n: int | None = None) -> Scheme:
    """Every component descends the losses of a window, its own in full and each further one for less.

    Whatever the window, the losses seen from further below are the same up to a factor; with no bound to it, each
    component therefore owes a single backward pass, as in end-to-end backpropagation.

    Args:
        n_components: K.
        decay: the coefficient of loss j for component i is ``decay ** (j - i)``; above 0 and at most 1, which is the
            sum.
        n: N, the length of the window, from loss i to loss min(i + N - 1, K - 1); by default all losses from i on.

    Raises:
        ValueError: if a number is out of its range.
    """
    check_whole("n_components", n_components)
    if n is not None:
        check_whole("n", n)
    if isinstance(decay, bool) or not isinstance(decay, Real) or not 0 < decay <= 1:
        raise ValueError(f"decay is {decay!r}; expected a number above 0 and at most 1.")
    distance = np.subtract.outer(np.arange(n_components), np.arange(n_components)).T
    inside = (distance >= 0) & (distance < (n_components if n is None else n))
    matrix = np.where(inside, float(decay) ** np.abs(distance), 0.0)
    return Scheme(matrix, name=("" if n is None else f"{_window_name(n)}-") + f"decay{float(decay)!r}")


def _window_name(n: int) -> str:
    return {1: "local", 2: "pairwise"}.get(n, f"{n}wise")


def _checked(matrix: Any) -> npt.NDArray[np.float64]:
    try:
        array = np.array(matrix, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"the scheme matrix does not read as numbers in rows of equal length ({error}); give K rows of K numbers."
        ) from None
    if array.ndim != 2 or array.shape[0] != array.shape[1]:
        raise ValueError(
            f"the scheme matrix has shape {array.shape}; expected a square one, K rows of K coefficients "
            "for K components."
        )
    if array.shape[0] < 1:
        raise ValueError("the scheme matrix is empty; expected at least one component.")
    for i, j in np.argwhere(~np.isfinite(array)):
        raise ValueError(f"scheme matrix entry [{i}, {j}] is {array[i, j]}; expected a finite number.")
    for i, j in np.argwhere(np.abs(array) > LARGEST):
        raise ValueError(
            f"scheme matrix entry [{i}, {j}] is {array[i, j]:g}; expected a number between -{LARGEST:g} and "
            f"{LARGEST:g}, for larger ones do not fit into a float32. Scale the scheme down, and the learning rate up."
        )
    for i, j in np.argwhere(np.tril(array, -1)):
        raise ValueError(
            f"scheme matrix entry [{i}, {j}] is {array[i, j]:g}, below the diagonal: loss {j} does not depend on "
            f"component {i}. Set it to 0 (row = component, column = loss)."
        )
    array += 0.0  # -0.0 becomes 0.0, so that equal schemes hash alike
    array.flags.writeable = False
    return array
