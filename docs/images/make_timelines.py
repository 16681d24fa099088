"""Makes the pictures of docs/schedules.md: timelines of K = 8 equal components and two micro-batches.

    python docs/images/make_timelines.py

Costs are the default ones, in units of a forward pass.
"""

from __future__ import annotations

from pathlib import Path

import interlocking_backprop as ib

K, M = 8, 2


def main() -> None:
    late = ib.e2e(K).delay(ib.least_delays(ib.e2e(K), M))
    for name, scheme, steps in (
        ("pairwise", ib.pairwise(K), 3),
        ("3wise", ib.nwise(K, 3), 3),
        ("e2e", ib.e2e(K), 2),
        ("e2e-late", late, 3),
    ):
        schedule = ib.list_schedule(ib.Workload.of(scheme), M, range(K))
        ib.draw(schedule, Path(__file__).parent / f"timeline-{name}-k{K}.png", steps=steps)


if __name__ == "__main__":
    main()
