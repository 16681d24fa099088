"""What a handful of seeds can tell: means, spreads, and confidence intervals of a difference."""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from scipy import stats

CONFIDENCE = 0.95


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

    def verdict(self, maximize: bool) -> str:
        """What the interval says: "better", "worse", "no clear difference", or "too few seeds to tell".

        An interval from two seeds is nine standard deviations wide to either side: that it contains zero says nothing.

        Args:
            maximize: whether more is better.
        """
        if self.low is None or self.high is None:
            return "too few seeds to tell"
        if self.low <= 0 <= self.high:
            return "no clear difference" if self.n > 2 else "too few seeds to tell"
        return "better" if (self.mean > 0) == maximize else "worse"


def spread(values: Iterable[float]) -> tuple[int, float, float]:
    """The number of values, their mean and the sample's standard deviation, which are NaN where values are too few."""
    values = list(values)
    mean = statistics.fmean(values) if values else math.nan
    return len(values), mean, statistics.stdev(values) if len(values) > 1 else math.nan


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
    if not values or not reference:
        return None
    common = sorted(values.keys() & reference.keys())
    a = [values[seed] for seed in common or values]
    b = [reference[seed] for seed in common or reference]
    n = min(len(a), len(b))
    mean = statistics.fmean(x - y for x, y in zip(a, b, strict=True)) if common else spread(a)[1] - spread(b)[1]
    if n < 2:
        return Gap(n, bool(common), mean, None, None)
    with warnings.catch_warnings():
        # Differences that are all alike have an interval without width, of which SciPy warns.
        warnings.simplefilter("ignore", RuntimeWarning)
        test = stats.ttest_rel(a, b) if common else stats.ttest_ind(a, b, equal_var=False)
        low, high = map(float, test.confidence_interval(confidence))
    return Gap(n, bool(common), mean, low, high)
