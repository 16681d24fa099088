"""The one progress display of a comparison: bars on a terminal, a line for everything that ends elsewhere."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from interlocking_backprop.compare.jobs import Job, Outcome
from interlocking_backprop.training.interruption import Interruption


class Display:
    """Shows how far jobs are.

    Args:
        console: where.
        interruption: whether the user has asked to stop.
        title: what the jobs are, together.
        n_jobs: how many there are.
        n_done: how many of them were done before.
        score: the metric that is shown.
    """

    def __init__(
        self,
        console: Console,
        interruption: Interruption,
        title: str,
        n_jobs: int,
        n_done: int = 0,
        score: str = "",
    ) -> None:
        self._console, self._interruption, self._title, self._score = console, interruption, title, score
        self._n_jobs, self._n_done, self._has_said_so = n_jobs, n_done, False
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(compact=True),
            console=console,
            disable=not console.is_terminal,
            transient=True,
            speed_estimate_period=600,
        )
        self._whole = self._progress.add_task(title, total=n_jobs, completed=n_done, text="")
        self._bars: dict[Job, TaskID] = {}

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._progress.stop()

    def ended(self, job: Job, outcome: Outcome) -> None:
        """Has the job take down its outcome, and says so in a line."""
        if job in self._bars:
            self._progress.remove_task(self._bars.pop(job))
        line = job.note(outcome) or f"{job.name}  {outcome.error or 'done'}"
        self._n_done += not outcome.was_told_to_stop
        if not self._console.is_terminal or outcome.error:
            text = f"{self._title} {self._n_done}/{self._n_jobs}  {line}  {outcome.seconds:.0f} s"
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def should_stop(self, running: Sequence[Job]) -> bool:
        """Brings the bars to where the running jobs are; returns whether the user has asked to stop."""
        if self._interruption.requested and not self._has_said_so:
            self._has_said_so = True
            self._console.print("stopping; everything that runs leaves a checkpoint", highlight=False)
        done = float(self._n_done)
        for job in running:
            if job not in self._bars:
                self._bars[job] = self._progress.add_task(f"  {escape(job.name)}", total=job.n_steps, text="")
            last = _last_events(job.metrics) if job.metrics else {}
            parts = [f"epoch {last['epoch'] + 1}"] if "epoch" in last else []
            if "exits" in last:
                parts.append(f"{self._score} {last['exits'][-1][self._score]:.4f}")
            step = last.get("step", 0)
            self._progress.update(self._bars[job], completed=step, text="  ".join(parts))
            done += min(step / job.n_steps, 1.0) if job.n_steps else 0.0
        self._progress.update(self._whole, completed=done, text=f"{self._n_done}/{self._n_jobs}")
        return self._interruption.requested


def _last_events(metrics: Path) -> dict[str, Any]:
    """What the last lines of a metrics.jsonl say, which is being written to; of each name the newest value."""
    found: dict[str, Any] = {}
    if metrics.exists():
        with metrics.open("rb") as file:
            is_cut = file.seek(max(metrics.stat().st_size - 65536, 0)) > 0
            for line in file.read().split(b"\n")[int(is_cut) : -1]:
                found |= json.loads(line)
    return found
