"""Schemes that are one and the same with so many components: pairwise, with two, is e2e."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from interlocking_backprop.compare.results import Twin
from interlocking_backprop.schedule.least_delays import least_delays
from interlocking_backprop.scheme.phases import Phases


def find_twins(
    schemes: Sequence[str], components: Sequence[int], reference: str = "e2e", n_microbatches: int = 1
) -> tuple[Twin, ...]:
    """Finds the schemes that are another one by another name.

    Args:
        schemes: as they were asked for.
        components: the numbers of components.
        reference: the scheme that the others are the twins of where it is among them; else that is the first of them.
        n_microbatches: on which least delays depend.

    Raises:
        ValueError: if a scheme is not known.
    """
    found = []
    delays = partial(least_delays, n_microbatches=n_microbatches)
    for k in components:
        firsts: dict[Phases, str] = {}
        for scheme in sorted(schemes, key=lambda scheme: scheme != reference):  # stable: the others keep their order
            first = firsts.setdefault(Phases.parse(scheme, k, delays), scheme)
            if first != scheme:
                found.append(Twin(k, scheme, first))
    return tuple(found)
