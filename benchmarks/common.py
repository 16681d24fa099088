"""What all benchmarks share: both sides of a ratio in turn, and the circumstances beside every figure."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from interlocking_backprop.common.atomic_files import write_text
from interlocking_backprop.training.run_folder import environment

console = Console(width=120, highlight=False)


def timed(action: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def in_turn(sides: Mapping[str, Callable[[], object]], rounds: int, warmup: int = 2) -> dict[str, list[float]]:
    """Times the sides in turn, round by round, so that a drifting machine slows all of them alike."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for n in range(warmup + rounds):
        for name, action in sides.items():
            seconds = timed(action)
            if n >= warmup:
                times[name].append(seconds)
    return times


def summary(values: list[float]) -> dict[str, float]:
    """Mean, standard deviation, median and number."""
    return {
        "mean": statistics.mean(values),
        "std": statistics.stdev(values) if len(values) > 1 else 0.0,
        "median": statistics.median(values),
        "n": len(values),
    }


def report(title: str, rows: list[dict[str, Any]], out: Path | None, **settings: Any) -> None:
    """Prints a table with the circumstances, and writes both as JSON."""
    circumstances = environment()
    table = Table(title=title, title_justify="left")
    for name in rows[0]:
        table.add_column(name, justify="left" if isinstance(rows[0][name], str) else "right")
    for row in rows:
        table.add_row(*(f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()))
    console.print(table)
    console.print(
        f"{circumstances['command']}\n{circumstances['processor']}, {circumstances['cpu_count']} cores, torch "
        f"{circumstances['torch']}, python {circumstances['python']}"
        + "".join(f", {k} {v}" for k, v in settings.items()),
        soft_wrap=True,
    )
    if out is not None:
        content = {"title": title, "rows": rows, "settings": settings, "environment": circumstances}
        write_text(out, json.dumps(content, indent=1) + "\n")
