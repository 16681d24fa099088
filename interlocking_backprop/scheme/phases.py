"""Schemes that change during training: ``local:10,3wise:18,e2e`` is local until epoch 10, 3-wise until 18, then e2e."""

from __future__ import annotations

import re
from typing import NamedTuple

from interlocking_backprop.scheme.coefficients import Scheme
from interlocking_backprop.scheme.text import parse_scheme


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
    def parse(cls, text: str, n_components: int) -> Phases:
        """Reads a scheme, or several with the epochs at which they end.

        Raises:
            ValueError: if a scheme is not known, or the epochs do not ascend.
        """
        phases: list[Phase] = []
        *parts, last = (part.strip() for part in text.split(","))
        begin = 0
        for part in parts:
            name, colon, end = part.rpartition(":")
            if not colon:
                raise ValueError(f"scheme {text!r}: {part!r} has no end; {_EXPECTED}")
            if not re.fullmatch("[0-9]{1,9}", end) or int(end) <= begin:
                raise ValueError(f"scheme {text!r}: {part!r} ends at {end!r}; expected an epoch after {begin}.")
            begin = int(end)
            phases.append(Phase(begin, parse_scheme(name, n_components)))
        if ":" in last:
            raise ValueError(f"scheme {text!r}: {last!r} ends; {_EXPECTED}")
        return cls([*phases, Phase(None, parse_scheme(last, n_components))])

    @property
    def schemes(self) -> list[Scheme]:
        return [phase.scheme for phase in self]

    def at(self, epoch: int) -> Scheme:
        """The scheme of an epoch, counted from 0."""
        return next(scheme for end, scheme in self if end is None or epoch < end)


_EXPECTED = "expected every scheme but the last to name the epoch at which it ends, e.g. local:10,3wise:18,e2e."
