"""Samples per second, of late and on the whole."""

from __future__ import annotations

import time


class Stopwatch:
    """Counts samples against the time since it was made."""

    def __init__(self) -> None:
        self._start = self._mark = time.perf_counter()
        self._n = self._n_since_mark = 0

    def count(self, n_samples: int) -> None:
        """Adds samples."""
        self._n += n_samples
        self._n_since_mark += n_samples

    def rate(self) -> float:
        """Samples per second since it was last asked."""
        now = time.perf_counter()
        rate = self._n_since_mark / max(now - self._mark, 1e-9)
        self._mark, self._n_since_mark = now, 0
        return rate

    def mean_rate(self) -> float:
        """Samples per second since the beginning."""
        return self._n / max(time.perf_counter() - self._start, 1e-9)
