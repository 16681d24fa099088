"""Schemes that are one and the same with so many components: pairwise, with two, is e2e."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from interlocking_backprop.compare.results import Twin
from interlocking_backprop.scheme.phases import Phases


def find_twins(
    schemes: Sequence[str],
    components: Sequence[int],
    resolved: Callable[[str, int], str] = lambda scheme, k: scheme,
    reference: str = "e2e",
) -> tuple[Twin, ...]:
    """Finds the schemes that are another one by another name.

    Args:
        schemes: as they were asked for.
        components: the numbers of components.
        resolved: gives a scheme for so many components with delays as numbers.
        reference: the scheme that the others are the twins of where it is among them; else that is the first of them.

    Raises:
        ValueError: if a scheme is not known.
    """
    found = []
    for k in components:
        firsts: dict[Phases, str] = {}
        for scheme in sorted(schemes, key=lambda scheme: scheme != reference):  # stable: the others keep their order
            first = firsts.setdefault(Phases.parse(resolved(scheme, k), k), scheme)
            if first != scheme:
                found.append(Twin(k, scheme, first))
    return tuple(found)
