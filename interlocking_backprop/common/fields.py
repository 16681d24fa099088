"""What a configuration expects of its fields stands beside their types, and is checked when one is made.

lr: Annotated[float, POSITIVE] = 0.1
"""

from __future__ import annotations

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


LARGEST = 1e38
"""Larger numbers do not fit into a float32."""
POSITIVE = Expected(f"a positive number, at most {LARGEST:g}", lambda value: 0 < value <= LARGEST)
NOT_NEGATIVE = Expected(f"a number of at least 0 and at most {LARGEST:g}", lambda value: 0 <= value <= LARGEST)
BELOW_ONE = Expected("a number from 0 to below 1", lambda value: 0 <= value < 1)


def at_least(least: int, most: int | None = None) -> Expected:
    """Expects a whole number that is not smaller than ``least``, and not larger than ``most`` if that is given."""
    if most is None:
        return Expected(f"a whole number of at least {least}", lambda value: value >= least)
    return Expected(f"a whole number of at least {least} and at most {most}", lambda value: least <= value <= most)


def each_at_least(least: int, most: int) -> Expected:
    """Expects whole numbers in a range, both ends included, and one at least."""
    text = f"whole numbers of at least {least} and at most {most}"
    return Expected(text, lambda values: len(values) > 0 and all(least <= value <= most for value in values))


_END_OF_INT64 = 1 << 63


class Checked:
    """A base of dataclasses that checks their fields; error messages name a field by its flag."""

    def __post_init__(self) -> None:
        """Checks every field by itself.

        Raises:
            ValueError: naming the flag, its value and what was expected.
        """
        for name, hint in get_type_hints(type(self), include_extras=True).items():
            value = getattr(self, name)
            numbers = [part for part in (value if isinstance(value, tuple) else [value]) if isinstance(part, int)]
            fits = all(abs(number) < _END_OF_INT64 for number in numbers)
            self.expect(name, fits, "a whole number below 2 to the power of 63")
            for expected in getattr(hint, "__metadata__", ()):
                if isinstance(expected, Expected):
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
