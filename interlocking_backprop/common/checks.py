"""Whole numbers among the arguments, numpy's too. ``True`` is none, though Python counts it among the integers."""

from __future__ import annotations

from numbers import Integral
from typing import TypeGuard


def is_whole(value: object, least: int = 1, most: int | None = None) -> TypeGuard[int]:
    """Whether a value is a whole number in a range, both ends included."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        return False
    return least <= int(value) and (most is None or int(value) <= most)


def check_whole(name: str, value: object, least: int = 1) -> None:
    """Makes sure that an argument is a whole number.

    Raises:
        ValueError: naming the argument and its value, if it is not, or is too small.
    """
    if not is_whole(value, least):
        raise ValueError(f"{name} is {value!r}; expected a whole number of at least {least}.")
