"""What a handful of seeds can tell: means, spreads, and confidence intervals of a difference."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from scipy import stats

CONFIDENCE = 0.95


class Spread(NamedTuple):
    """Mean and standard deviation of a few values.

    Attributes:
        n: how many there are.
        mean: None without any.
        std: of the sample (its squares are divided by n - 1); None with fewer than two.
    """

    n: int
    mean: float | None
    std: float | None


class Gap(NamedTuple):
    """A difference of means with its confidence interval.

    Attributes:
        n: pairs, or the smaller of the two counts where there are no pairs.
        paired: whether values of the same seed were subtracted from one another.
        mean: of the difference, in the unit of the values.
        low: lower end of the interval; None where it takes more values to give one.
        high: upper end.
    """

    n: int
    paired: bool
    mean: float
    low: float | None
    high: float | None


def spread(values: Iterable[float]) -> Spread:
    """Mean and standard deviation of values, of which there may be one or none."""
    values = list(values)
    if not values:
        return Spread(0, None, None)
    return Spread(len(values), statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)


def gap(values: Mapping[int, float], reference: Mapping[int, float], confidence: float = CONFIDENCE) -> Gap | None:
    """How far values lie above those of a reference, by Student's t.

    Seeds that both have are paired: what a seed does to both (weights, data order) then cancels out. Only where no seed
    is common to them are they taken as independent samples of unequal variance (Welch).

    Args:
        values: by seed.
        reference: by seed.
        confidence: of the interval, between 0 and 1.

    Returns:
        The difference; None if one side has no value.
    """
    common = sorted(values.keys() & reference.keys())
    if common:
        differences = spread(values[seed] - reference[seed] for seed in common)
        error = None if differences.std is None else differences.std / math.sqrt(differences.n)
        return _interval(differences.mean, error, differences.n - 1, confidence, n=differences.n, paired=True)
    a, b = spread(values.values()), spread(reference.values())
    if a.mean is None or b.mean is None:
        return None
    n = min(a.n, b.n)
    if a.std is None or b.std is None:
        return Gap(n, False, a.mean - b.mean, None, None)
    squares = a.std**2 / a.n, b.std**2 / b.n
    below = squares[0] ** 2 / (a.n - 1) + squares[1] ** 2 / (b.n - 1)
    freedom = sum(squares) ** 2 / below if below else float(n - 1)
    return _interval(a.mean - b.mean, math.sqrt(sum(squares)), freedom, confidence, n=n, paired=False)


def _interval(
    mean: float | None, error: float | None, freedom: float, confidence: float, *, n: int, paired: bool
) -> Gap:
    assert mean is not None
    if error is None:
        return Gap(n, paired, mean, None, None)
    half = float(stats.t.ppf((1 + confidence) / 2, freedom)) * error
    return Gap(n, paired, mean, mean - half, mean + half)
