"""Schemes that change during training: ``local:10,3wise:18,e2e`` is local until epoch 10, 3-wise until 18, then e2e."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from interlocking_backprop.scheme.coefficients import Scheme
from interlocking_backprop.scheme.expressions import LeastDelays
from interlocking_backprop.scheme.text import files_in, parse_scheme, resolve

_EXPECTED = "expected every scheme but the last to name the epoch at which it ends, e.g. local:10,3wise:18,e2e."


class Phase(NamedTuple):
    """A scheme until an epoch.

    Attributes:
        end: the first epoch, counted from 0, that no longer follows the scheme; None for the last phase.
        scheme: what the epochs before it follow.
    """

    end: int | None
    scheme: Scheme


class Phases(tuple[Phase, ...]):
    """The phases of a run, in the order of epochs."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str, n_components: int, least_delays: LeastDelays | None = None) -> Phases:
        """Reads a scheme, or several with the epochs at which they end.

        Args:
            text: schemes between commas, as `parse_scheme` reads them.
            n_components: K.
            least_delays: what ``~`` without a number stands for; see `parse_scheme`.

        Raises:
            ValueError: if a scheme is not known, or the epochs do not ascend.
        """
        return cls(Phase(end, parse_scheme(scheme, n_components, least_delays)) for scheme, end in _split(text))

    @property
    def schemes(self) -> list[Scheme]:
        return [phase.scheme for phase in self]

    def at(self, epoch: int) -> Scheme:
        """The scheme of an epoch, counted from 0."""
        return next(scheme for end, scheme in self if end is None or epoch < end)


def resolve_phases(text: str, n_components: int, least_delays: LeastDelays) -> str:
    """The text of phases with the numbers that ``~`` stands for written out; see `Phases.parse` for the arguments.

    What it returns is the same phases whatever the number of micro-batches, and the text itself if no ``~`` is without
    numbers.
    """
    parts = list(_split(text))
    resolved = [resolve(scheme, n_components, least_delays) for scheme, _ in parts]
    if all(scheme == before.strip() for scheme, (before, _) in zip(resolved, parts, strict=True)):
        return text
    ends = ["" if end is None else f":{end}" for _, end in parts]
    return ",".join(scheme + end for scheme, end in zip(resolved, ends, strict=True))


def files_in_phases(text: str) -> list[str]:
    """The names of the files that the schemes of the phases are read from."""
    return [name for scheme, _ in _split(text) for name in files_in(scheme)]


def _split(text: str) -> Iterator[tuple[str, int | None]]:
    """The text of each scheme and the epoch at which it ends."""
    *parts, last = (part.strip() for part in text.split(","))
    begin = 0
    for part in parts:
        name, colon, end = part.rpartition(":")
        if not colon:
            raise ValueError(f"scheme {text!r}: {part!r} has no end; {_EXPECTED}")
        if not re.fullmatch("[0-9]{1,9}", end) or int(end) <= begin:
            raise ValueError(f"scheme {text!r}: {part!r} ends at {end!r}; expected an epoch after {begin}.")
        begin = int(end)
        yield name, begin
    if ":" in last:
        raise ValueError(f"scheme {text!r}: {last!r} ends; {_EXPECTED}")
    yield last, None
