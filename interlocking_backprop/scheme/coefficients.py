"""Which loss trains which component: the matrix of loss coefficients.

A scheme is an upper-triangular K x K matrix C. Component i descends ``sum_j C[i, j] * loss_j``, where loss j is that
of the head at component j, and loss K-1 the loss of the whole network. The schemes of Gomez et al. (JMLR
23(171), 2022, section 3) are the constructors below; any other is written as the matrix itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from math import isfinite
from numbers import Real
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from interlocking_backprop.common.checks import check_whole
from interlocking_backprop.common.json_files import parse_json
from interlocking_backprop.scheme.ages import added, checked_delayed, checked_delays, checked_matrix, later
from interlocking_backprop.scheme.expressions import late_name, multiple_name, sum_name
from interlocking_backprop.scheme.picture import matrix_picture

Reduction = Literal["furthest", "sum", "mean"]
REDUCTIONS: tuple[Reduction, ...] = ("furthest", "sum", "mean")


class Scheme:
    """Upper-triangular matrices of loss coefficients, one for each age.

    Args:
        matrix: K x K nested sequence or array of finite numbers, zero below the diagonal. Row i says how component i
            is trained: by ``sum_j matrix[i][j] * loss_j``. A row of zeros is a frozen component; models
            refuse a scheme that has no others.
        name: what the scheme is called in tables and pictures. It does not enter comparisons.
        delayed: credit that comes late: for ages of at least 1 the matrix of the coefficients with which an update
            takes in the gradients of the batch of so many steps ago, computed with the weights of that time.

    Schemes can be added and multiplied by numbers: ``0.5 * pairwise(4) + 0.5 * e2e(4).delay(2)``.

    Raises:
        ValueError: if a matrix is not square, empty, not finite or has an entry below the diagonal, or one of more than
            1e38, which a float32 cannot hold; the sizes differ, or an age is no whole number of at least 1.
    """

    __array_ufunc__ = None  # a number of numpy's times a scheme is a scheme

    def __init__(
        self,
        matrix: Sequence[Sequence[float]] | npt.ArrayLike,
        name: str | None = None,
        *,
        delayed: Mapping[int, Sequence[Sequence[float]] | npt.ArrayLike] | None = None,
    ) -> None:
        if not isinstance(name, str | None):
            raise ValueError(f"the scheme's name is {name!r}; expected text, and matrices of other ages as delayed=….")
        self._matrix = checked_matrix(matrix)
        self._delayed = checked_delayed({} if delayed is None else delayed, len(self._matrix))
        self.name = name if name is not None else "custom"

    @property
    def matrix(self) -> npt.NDArray[np.float64]:
        """The coefficients of age 0: of losses of the batch of the step itself. Shape (K, K), read-only."""
        return self._matrix

    @property
    def delayed(self) -> Mapping[int, npt.NDArray[np.float64]]:
        """The coefficients of the other ages that are not zero, by age in ascending order; each of shape (K, K)."""
        return MappingProxyType(self._delayed)

    @property
    def max_delay(self) -> int:
        """The greatest age; 0 where nothing is delayed."""
        return max(self._delayed, default=0)

    def coefficients(self, age: int) -> npt.NDArray[np.float64]:
        """The coefficients of an age, shape (K, K), read-only; zeros where it has none."""
        if age == 0:
            return self._matrix
        return self._delayed[age] if age in self._delayed else checked_matrix(np.zeros_like(self._matrix))

    @property
    def undelayed(self) -> Scheme:
        """The scheme with all credit at once: what a batch contributes altogether."""
        if not self._delayed:
            return self
        return Scheme(np.sum(list(self._by_age.values()), axis=0), f"{self.name}, undelayed")

    @property
    def uses(self) -> npt.NDArray[np.bool_]:
        """Which losses train which components at any age, shape (K, K)."""
        used: npt.NDArray[np.bool_] = np.any([matrix != 0 for matrix in self._by_age.values()], axis=0)
        return used

    @property
    def n_components(self) -> int:
        """K, the number of components (and of losses)."""
        return len(self._matrix)

    @property
    def horizon(self) -> int:
        """The smallest N such that no component looks further than N-1 components ahead; 0 if all are frozen."""
        rows, columns = np.nonzero(self.uses)
        return int((columns - rows).max()) + 1 if len(rows) else 0

    def delay(self, delays: int | Sequence[int]) -> Scheme:
        """The scheme with its credit later.

        Args:
            delays: by how many steps; one number, or one for each component, whose coefficients of every age it
                concerns.

        Raises:
            ValueError: if they are not whole numbers of at least 0, or not K of them.
        """
        each = checked_delays(delays, self.n_components)
        return self._made(later(self._by_age, each), late_name(self.name, each)) if any(each) else self

    def __add__(self, other: object) -> Scheme:
        """The scheme whose coefficients are the sums, age by age."""
        if not isinstance(other, Scheme):
            return NotImplemented
        if other.n_components != self.n_components:
            raise ValueError(
                f"scheme {self.name!r} is for {self.n_components} components, {other.name!r} for "
                f"{other.n_components}; add schemes for the same number of components."
            )
        return self._made(added(self._by_age, other._by_age), sum_name(self.name, other.name))

    def __mul__(self, factor: object) -> Scheme:
        """The scheme with all coefficients multiplied by a finite number."""
        if not isinstance(factor, Real) or isinstance(factor, bool):
            return NotImplemented
        number = float(factor)
        if not isfinite(number):
            raise ValueError(f"scheme {self.name!r} is multiplied by {number}; expected a finite number.")
        multiples = {age: matrix * number for age, matrix in self._by_age.items()}
        return self._made(multiples, multiple_name(number, self.name))

    __rmul__ = __mul__

    @property
    def _by_age(self) -> dict[int, npt.NDArray[np.float64]]:
        return {0: self._matrix, **self._delayed}

    def _made(self, by_age: dict[int, npt.NDArray[np.float64]], name: str) -> Scheme:
        matrix = by_age.pop(0, np.zeros_like(self._matrix))
        return Scheme(matrix, name, delayed=by_age)

    def to_json(self) -> str:
        """The scheme as JSON text; `from_json` reads it back."""
        return json.dumps(self.to_fields())

    def to_fields(self) -> dict[str, Any]:
        """The scheme in plain numbers, as JSON has them; `from_fields` reads it back.

        They are ``name``, ``matrix`` and, where something is delayed, ``delayed``, whose ages are strings.
        """
        fields: dict[str, Any] = {"name": self.name, "matrix": self._matrix.tolist()}
        if self._delayed:
            fields["delayed"] = {str(age): matrix.tolist() for age, matrix in self._delayed.items()}
        return fields

    @classmethod
    def from_json(cls, text: str) -> Scheme:
        """Reads what `to_json` wrote.

        Raises:
            ValueError: if the text is not a scheme.
        """
        try:
            fields = parse_json(text)
        except ValueError as error:
            raise ValueError(f"this is not a scheme in JSON ({error}).") from None
        return cls.from_fields(fields)

    @classmethod
    def from_fields(cls, fields: Any, name: str | None = None) -> Scheme:
        """Reads what `to_fields` returned.

        Args:
            fields: ``matrix``, and perhaps ``delayed`` and ``name``.
            name: what the scheme is called if the fields don't say.

        Raises:
            ValueError: if the fields are others, or not those of a scheme.
        """
        if not isinstance(fields, dict) or "matrix" not in fields or not fields.keys() <= {"matrix", "delayed", "name"}:
            found = ", ".join(map(repr, fields)) if isinstance(fields, dict) else repr(fields)
            raise ValueError(f"there is {found or 'nothing'}; expected 'matrix', and perhaps 'delayed' and 'name'.")
        delayed = fields.get("delayed", {})
        if isinstance(delayed, dict):
            delayed = {int(age) if re.fullmatch("[0-9]{1,9}", str(age)) else age: m for age, m in delayed.items()}
        return cls(fields["matrix"], fields.get("name", name), delayed=delayed)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Scheme) or self._by_age.keys() != other._by_age.keys():
            return False
        return all(np.array_equal(matrix, other._by_age[age]) for age, matrix in self._by_age.items())

    def __hash__(self) -> int:
        late = [(age, matrix.tobytes()) for age, matrix in self._delayed.items()]
        return hash((len(self._matrix), self._matrix.tobytes(), *late))

    def __repr__(self) -> str:
        late = {age: matrix.tolist() for age, matrix in self._delayed.items()}
        return f"Scheme({self._matrix.tolist()}, name={self.name!r}{f', delayed={late}' if late else ''})"

    def __str__(self) -> str:
        title = f"{self.name} ({self.n_components} components)"
        if not self._delayed:
            return f"{title}\n{_rows(self._matrix)}"
        return title + "".join(
            f"\nage {age}\n{_rows(matrix)}" for age, matrix in self._by_age.items() if age or matrix.any()
        )

    def _repr_html_(self) -> str:
        """A picture for notebooks."""
        return matrix_picture(self._by_age, self.name)


def _rows(matrix: npt.NDArray[np.float64]) -> str:
    return "\n".join(" ".join(f"{c:6.3g}" if c else "     ." for c in row) for row in matrix)


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
    if not scheme.uses.any():
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
