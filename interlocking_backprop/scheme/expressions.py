"""Schemes made of schemes, as text: ``0.5*pairwise+0.5*e2e~2`` is half pairwise, and half e2e two steps late.

sum        product + product …
product    number * product, or late
late       part, then any number of delays:
           ~2          two steps late
           ~3.2.2.1.0  component 0 three steps late, 1 and 2 two, 3 one
           ~           late by the least delays, which follow from the number of micro-batches
part       a scheme by its name or file, or (sum)

The functions that write names give text that is read back as what it names, provided that the parts' names are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from interlocking_backprop.scheme.coefficients import Scheme

LeastDelays = Callable[["Scheme"], Sequence[int]]
"""Gives the least delay of each component; `interlocking_backprop.least_delays` with its number of micro-batches."""

_NUMBER = re.compile(r"\s*([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?)\s*\*")
_DELAYS = re.compile(r"\s*~\s*([0-9]{1,4000}(?:\.[0-9]{1,4000})*)?")
_PART = re.compile(r"[^+*~()]+")
_DEEPEST = 50


def late_name(name: str, delays: Sequence[int]) -> str:
    """What a scheme is called that is late by the delays, one for each component."""
    return f"{_in_parentheses(name, '+*')}~{delays_text(delays)}"


def multiple_name(factor: float, name: str) -> str:
    """What the multiple of a scheme is called."""
    return f"{repr(factor).removesuffix('.0')}*{_in_parentheses(name, '+')}"


def sum_name(first: str, second: str) -> str:
    """What the sum of two schemes is called."""
    return f"{first}+{_in_parentheses(second, '+')}"


def delays_text(delays: Sequence[int]) -> str:
    """The delays of the components, as one number where they are equal."""
    return str(delays[0]) if len(set(delays)) == 1 else ".".join(map(str, delays))


def parts_of(text: str) -> list[str]:
    """The names in the text of a scheme; and the numbers in it, which are no names of schemes."""
    return [name.strip() for name in _PART.findall(text)]


def _in_parentheses(name: str, operators: str) -> str:
    """The name, in parentheses if one of the operators stands outside of such."""
    depth = 0
    for character in name:
        depth += (character == "(") - (character == ")")
        if depth == 0 and character in operators:
            return f"({name})"
    return name


class Expression:
    """Reads the text of a scheme that is made of others.

    Args:
        text: what to read.
        part: reads the text of a part by itself.
        least_delays: what ``~`` without a number stands for.

    Raises:
        ValueError: if the text is none of a scheme.

    Attributes:
        scheme: what was read.
        resolved: the text with the numbers that ``~`` stands for written out.
    """

    def __init__(self, text: str, part: Callable[[str], Scheme], least_delays: LeastDelays | None = None) -> None:
        self._text, self._part, self._least_delays = text, part, least_delays
        self._at = 0
        self._inserted: list[tuple[int, str]] = []
        self.scheme = self._sum(0)
        if self._at < len(text):
            self._fail(f"{text[self._at :]!r} is left over; expected + and a further scheme there")
        self.resolved = text
        for at, numbers in reversed(self._inserted):
            self.resolved = self.resolved[:at] + numbers + self.resolved[at:]

    def _sum(self, depth: int) -> Scheme:
        if depth > _DEEPEST:
            self._fail(f"it has more than {_DEEPEST} parentheses inside one another")
        found = self._product(depth)
        while self._text.startswith("+", self._at):
            self._at += 1
            found = found + self._product(depth)
        return found

    def _product(self, depth: int) -> Scheme:
        factors = []
        while match := _NUMBER.match(self._text, self._at):
            factors.append(float(match[1]))
            self._at = match.end()
        found = self._late(depth)
        for factor in reversed(factors):
            found = factor * found
        return found

    def _late(self, depth: int) -> Scheme:
        found = self._parenthesized(depth) if self._next() == "(" else self._named()
        while match := _DELAYS.match(self._text, self._at):
            self._at = match.end()
            found = self._delayed(found, match[1], match.end())
        self._next()
        return found

    def _delayed(self, scheme: Scheme, written: str | None, end: int) -> Scheme:
        if self._next() not in ("", "+", "~", ")"):
            self._fail(
                f"after ~ there is {self._text[self._at :]!r}; expected a whole number, or one for each component with "
                "points between them (e2e~2.1.1.0)"
            )
        if written is not None:
            numbers = [int(number) for number in written.split(".")]
            try:
                return scheme.delay(numbers[0] if len(numbers) == 1 else numbers)
            except ValueError as error:
                self._fail(str(error).removesuffix("."))
        if self._least_delays is None:
            self._fail(
                "least delays (~ without a number) follow from the number of micro-batches, which is not known here; "
                "write the delays (~1, or ~2.1.1.0 for each component), or pass least_delays to parse_scheme"
            )
        delays = tuple(self._least_delays(scheme))
        self._inserted.append((end, delays_text(delays)))
        return scheme.delay(delays)

    def _parenthesized(self, depth: int) -> Scheme:
        self._at += 1
        found = self._sum(depth + 1)
        if self._next() != ")":
            self._fail(f"a parenthesis is not closed {self._place()}; expected ) there")
        self._at += 1
        return found

    def _named(self) -> Scheme:
        match = _PART.match(self._text, self._at)
        if self._text and (match is None or not match[0].strip()):
            self._fail(f"a scheme is missing {self._place()}; expected forms such as e2e~2 and 0.5*pairwise+0.5*e2e~2")
        name = match[0] if match else ""
        self._at += len(name)
        return self._part(name.strip())

    def _next(self) -> str:
        """The next character that is no space."""
        while self._text.startswith(" ", self._at):
            self._at += 1
        return self._text[self._at : self._at + 1]

    def _place(self) -> str:
        rest = self._text[self._at :]
        return f"before {rest!r}" if rest else "at the end"

    def _fail(self, reason: str) -> NoReturn:
        raise ValueError(f"scheme {self._text!r}: {reason}.")
