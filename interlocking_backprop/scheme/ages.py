"""Matrices of coefficients by age: what is checked of them, and how rows move to later ages.

The matrices of a scheme are a dictionary from age to matrix; ages at which every coefficient is zero are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from interlocking_backprop.common.checks import is_whole
from interlocking_backprop.common.fields import LARGEST

Array = npt.NDArray[np.float64]

MOST_AGE = 1000


def checked_matrix(matrix: Any, age: int = 0) -> Array:
    """The matrix of an age as a read-only array, shape (K, K).

    Raises:
        ValueError: if it is not square, empty, not finite, has an entry below the diagonal, or one beyond a float32.
    """
    of_age = f" of age {age}" if age else ""
    try:
        array = np.array(matrix, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"the scheme matrix{of_age} does not read as numbers in rows of equal length ({error}); give K rows of K "
            "numbers."
        ) from None
    if array.ndim != 2 or array.shape[0] != array.shape[1]:
        raise ValueError(
            f"the scheme matrix{of_age} has shape {array.shape}; expected a square one, K rows of K coefficients "
            "for K components."
        )
    if array.shape[0] < 1:
        raise ValueError(f"the scheme matrix{of_age} is empty; expected at least one component.")
    for i, j in np.argwhere(~np.isfinite(array)):
        raise ValueError(f"scheme matrix entry [{i}, {j}]{of_age} is {array[i, j]}; expected a finite number.")
    for i, j in np.argwhere(np.abs(array) > LARGEST):
        raise ValueError(
            f"scheme matrix entry [{i}, {j}]{of_age} is {array[i, j]:g}; expected a number between -{LARGEST:g} and "
            f"{LARGEST:g}, for larger ones do not fit into a float32. Scale the scheme down, and the learning rate up."
        )
    for i, j in np.argwhere(np.tril(array, -1)):
        raise ValueError(
            f"scheme matrix entry [{i}, {j}]{of_age} is {array[i, j]:g}, below the diagonal: loss {j} does not depend "
            f"on component {i}. Set it to 0 (row = component, column = loss)."
        )
    array += 0.0  # -0.0 becomes 0.0, so that equal schemes hash alike
    array.flags.writeable = False
    return array


def checked_delayed(delayed: Any, n_components: int) -> dict[int, Array]:
    """The matrices of the ages above 0, in ascending order, without those that are zero.

    Raises:
        ValueError: if an age is no whole number from 1 to `MOST_AGE`, or a matrix is not one for so many components.
    """
    if not isinstance(delayed, Mapping):
        raise ValueError(f"delayed is {delayed!r}; expected a matrix for each age, e.g. delayed={{1: matrix}}.")
    found: dict[int, Array] = {}
    for age, matrix in delayed.items():
        if not is_whole(age):
            remedy = "; what is not delayed is the matrix itself" if age == 0 else ", the steps of the delay"
            raise ValueError(f"delayed has the age {age!r}; expected whole numbers of at least 1{remedy}.")
        if age > MOST_AGE:
            raise ValueError(
                f"the scheme has the age {age}; expected at most {MOST_AGE} steps, for nothing is learned from credit "
                "that is so late, and all that waits for it is kept."
            )
        array = checked_matrix(matrix, int(age))
        if len(array) != n_components:
            raise ValueError(
                f"the scheme matrix of age {age} is for {len(array)} components, that of age 0 for {n_components}; "
                "give matrices of one size."
            )
        if array.any():
            found[int(age)] = array
    return dict(sorted(found.items()))


def checked_delays(delays: int | Sequence[int], n_components: int) -> tuple[int, ...]:
    """A delay for each component.

    Raises:
        ValueError: if there is neither one whole number of at least 0 nor K of them.
    """
    if is_whole(delays, 0):
        return (int(delays),) * n_components
    expected = f"expected a whole number of at least 0, or {n_components} of them, one for each component"
    if isinstance(delays, str) or not isinstance(delays, Iterable):
        raise ValueError(f"the delay is {delays!r}; {expected}.")
    found = tuple(delays)
    for i, delay in enumerate(found):
        if not is_whole(delay, 0):
            raise ValueError(f"the delay of component {i} is {delay!r}; {expected}.")
    if len(found) != n_components:
        raise ValueError(f"there are {len(found)} delays; {expected}.")
    return tuple(map(int, found))


def later(matrices: Mapping[int, Array], delays: Sequence[int]) -> dict[int, Array]:
    """The matrices with every row moved to an age that is later by the row's delay."""
    found: dict[int, Array] = {}
    for age, matrix in matrices.items():
        for i, delay in enumerate(delays):
            found.setdefault(age + delay, np.zeros_like(matrix))[i] += matrix[i]
    return found


def added(a: Mapping[int, Array], b: Mapping[int, Array]) -> dict[int, Array]:
    """The sums of the matrices, age by age."""
    return {age: a.get(age, 0.0) + b.get(age, 0.0) for age in {*a, *b}}  # type: ignore[misc]
