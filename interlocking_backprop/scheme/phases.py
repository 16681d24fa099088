"""Schemes that change during training: ``local:10,3wise:18,e2e`` is local until epoch 10, 3-wise until 18, then e2e."""

from __future__ import annotations

from dataclasses import dataclass

from interlocking_backprop.scheme.coefficients import Scheme
from interlocking_backprop.scheme.text import parse_scheme


@dataclass(frozen=True)
class SchemePlan:
    """Which scheme is followed in which epoch.

    Attributes:
        phases: (the epoch at which the scheme ends, the scheme); the last one has no end.
    """

    phases: tuple[tuple[int | None, Scheme], ...]

    @classmethod
    def parse(cls, text: str, n_components: int) -> SchemePlan:
        """Reads a scheme, or several with the epochs at which they end.

        Raises:
            ValueError: if a scheme is not known, or the epochs do not ascend.
        """
        phases: list[tuple[int | None, Scheme]] = []
        parts = text.split(",")
        begin = 0
        for n, part in enumerate(parts):
            name, colon, end_text = part.strip().rpartition(":")
            is_last = n == len(parts) - 1
            if bool(colon) == is_last:
                raise ValueError(
                    f"scheme {text!r}: {part.strip()!r} {'ends' if is_last else 'has no end'}; expected every "
                    "scheme but the last to name the epoch at which it ends, e.g. local:10,3wise:18,e2e."
                )
            if is_last:
                phases.append((None, parse_scheme(end_text, n_components)))
                break
            if not end_text.isdecimal() or int(end_text) <= begin:
                raise ValueError(
                    f"scheme {text!r}: {part.strip()!r} ends at {end_text!r}; expected an epoch after {begin}."
                )
            begin = int(end_text)
            phases.append((begin, parse_scheme(name, n_components)))
        return cls(tuple(phases))

    @property
    def schemes(self) -> list[Scheme]:
        return [scheme for _, scheme in self.phases]

    def at(self, epoch: int) -> Scheme:
        """The scheme of an epoch, counted from 0."""
        return next(scheme for end, scheme in self.phases if end is None or epoch < end)
