"""Where to cut a network: components of even cost, because the slowest one sets the pace of all.

The search is exact. A greedy cut can be far off when a few blocks are dear, and networks are short enough (tens to
hundreds of blocks) for dynamic programming to take no time.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from interlocking_backprop.common.checks import is_whole


def balanced_cuts(costs: Sequence[float], n_parts: int) -> list[int]:
    """Cuts a row of items into contiguous parts such that the dearest part is as cheap as possible.

    Among the cuts that are equally good in that, the one with the least sum of squares is taken: the parts that are not
    the dearest are even too.

    Args:
        costs: the cost of each item, not negative.
        n_parts: the number of parts; none of them is empty.

    Returns:
        The number of items of each part.

    Raises:
        ValueError: if there are fewer items than parts, or a cost is negative, infinite or no number.
    """
    for i, cost in enumerate(costs):
        if not 0 <= cost < 1e150:  # above that the squares overflow
            raise ValueError(f"cost {i} is {cost!r}; expected a number of at least 0, and below 1e150.")
    if not is_whole(n_parts, 1, len(costs)):
        raise ValueError(
            f"n_parts is {n_parts!r}; expected a whole number from 1 to {len(costs)}, the number of items, so that "
            "every part gets one."
        )
    # Two searches: a prefix that is worse in its dearest part can be better in the sum of squares, and be part of the
    # best whole, where a later part is the dearest anyway. So one search cannot settle both.
    sums = list(itertools.accumulate(costs, initial=0))
    dearest = _least_maximum(sums, n_parts)
    return _least_squares(sums, n_parts, dearest)


def _least_maximum(sums: list[float], n_parts: int) -> float:
    """The cost of the dearest part in the best cut; ``sums[j]`` is the cost of the first j items."""
    n = len(sums) - 1
    best = [math.inf, *sums[1:]]  # best[j]: of the first j items, in as many parts as the loop has got to
    for k in range(2, n_parts + 1):
        best = [min((max(best[i], sums[j] - sums[i]) for i in range(k - 1, j)), default=math.inf) for j in range(n + 1)]
    return best[n]


def _least_squares(sums: list[float], n_parts: int, dearest: float) -> list[int]:
    """The cut with the least sum of squares among those without a part above ``dearest``."""
    n = len(sums) - 1
    best: list[float] = [0] + [math.inf] * n
    starts: list[list[int]] = []  # starts[k][j]: where the last of k + 1 parts begins, if they take the first j items
    for _ in range(n_parts):
        below, best, start = best, [math.inf] * (n + 1), [0] * (n + 1)
        for j in range(1, n + 1):
            for i in range(j):
                part = sums[j] - sums[i]
                if part <= dearest and below[i] + part * part < best[j]:
                    best[j], start[j] = below[i] + part * part, i
        starts.append(start)
    ends = [n]
    for start in reversed(starts):
        ends.append(start[ends[-1]])
    return [end - begin for begin, end in itertools.pairwise(reversed(ends))]
