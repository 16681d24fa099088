"""What a configuration expects of its fields stands beside their types, and is checked when one is made.

lr: Annotated[float, POSITIVE] = 0.1
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_type_hints


@dataclass(frozen=True)
class Expected:
    """A condition that the value of a field meets; None always does.

    Attributes:
        text: completes the sentence "expected …".
        holds: tells whether a value meets it.
    """

    text: str
    holds: Callable[[Any], bool]


POSITIVE = Expected("a positive number", lambda value: 0 < value < math.inf)
NOT_NEGATIVE = Expected("a number of at least 0", lambda value: 0 <= value < math.inf)
EACH_AT_LEAST_1 = Expected("whole numbers of at least 1", lambda values: min(values, default=0) >= 1)
BELOW_ONE = Expected("a number from 0 to below 1", lambda value: 0 <= value < 1)


def at_least(least: int) -> Expected:
    """Expects a whole number that is not smaller than ``least``."""
    return Expected(f"a whole number of at least {least}", lambda value: value >= least)


class Checked:
    """A base of dataclasses that checks their fields; error messages name a field by its flag."""

    def __post_init__(self) -> None:
        """Checks every field by itself.

        Raises:
            ValueError: naming the flag, its value and what was expected.
        """
        for name, hint in get_type_hints(type(self), include_extras=True).items():
            for expected in getattr(hint, "__metadata__", ()):
                if isinstance(expected, Expected):
                    value = getattr(self, name)
                    self.expect(name, value is None or expected.holds(value), expected.text)

    def expect(self, name: str, holds: bool, expected: str) -> None:
        """Raises the error of a field if what is expected of it does not hold."""
        if not holds:
            value = getattr(self, name)
            shown = ",".join(map(str, value)) or "empty" if isinstance(value, tuple) else value
            raise ValueError(f"{flag(name)} is {shown}; expected {expected}.")


def flag(name: str) -> str:
    """The flag of a field on the command line."""
    return f"--{name.replace('_', '-')}"
