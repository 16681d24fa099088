"""Smaller steps where credit is older: by what learning rates are multiplied, given the ages of a scheme.

A gradient that is D steps old is that of the weights of D steps ago, and the faster these move the less it is worth. So
learning rates that fall with D make up for a part of what delay costs (PipeMare, Yang et al., arXiv 1910.05124).
"""

from __future__ import annotations

from math import isfinite
from numbers import Real

from interlocking_backprop.scheme.coefficients import Scheme


def delay_factors(scheme: Scheme, power: float = 0.5) -> tuple[float, ...]:
    """The factors ``(1 + D_i) ** -power`` for learning rates that fall with the delay of a component.

    D_i is the greatest age at which the scheme trains component i; where nothing is delayed the factor is 1. Heads
    follow their own losses without any delay, and need no factor.

    Args:
        scheme: with ages or without.
        power: p, a finite number of at least 0. With 0 nothing falls, with 1 a component of delay 3 has a fourth of the
            learning rate.

    Returns:
        A factor for each component: what `InterlockingBackpropModel.scale_learning_rates` takes.

    Raises:
        ValueError: if the scheme is none, or the power is out of its range.
    """
    if not isinstance(scheme, Scheme):
        raise ValueError(f"the scheme is {scheme!r}; expected an interlocking_backprop.Scheme, e.g. e2e(k).delay(1).")
    if isinstance(power, bool) or not isinstance(power, Real) or not (isfinite(power) and power >= 0):
        raise ValueError(f"power is {power!r}; expected a finite number of at least 0.")
    return tuple((1.0 + delay) ** -float(power) for delay in largest_delays(scheme))


def largest_delays(scheme: Scheme) -> tuple[int, ...]:
    """For each component the greatest age at which anything trains it; 0 for a frozen one."""
    delays = [0] * scheme.n_components
    for age, matrix in scheme.delayed.items():  # in ascending order
        for i in matrix.any(axis=1).nonzero()[0]:
            delays[i] = age
    return tuple(delays)
