"""What a person sees of a run: a progress bar on a terminal, one line per epoch elsewhere."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from interlocking_backprop.training.evaluation import ExitScores


class Display:
    """Shows the progress of a run.

    Args:
        n_steps: is the length of the whole run.
        done: is how many steps a resumed run has taken already.
        quiet: shows nothing.
    """

    def __init__(self, n_steps: int, done: int = 0, *, quiet: bool = False) -> None:
        self.console = Console(quiet=quiet, highlight=False)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.3f}  {task.fields[rate]:,.0f} samples/s"),
            TimeRemainingColumn(),
            console=self.console,
            disable=quiet or not self.console.is_terminal,
            transient=True,
        )
        self._task = self._progress.add_task("", total=n_steps, completed=done, loss=float("nan"), rate=0.0)
        self._started = time.monotonic()
        self._progress.start()

    def close(self) -> None:
        """Takes the progress bar away."""
        self._progress.stop()

    def begin(self, introduction: str) -> None:
        """Says what the run is."""
        self.console.print(introduction, markup=False, soft_wrap=True)

    def step(self, epoch: int, step: int, loss: float, rate: float) -> None:
        """Shows a step's loss, and the samples per second of late."""
        self._progress.update(self._task, description=f"epoch {epoch + 1}", completed=step, loss=loss, rate=rate)

    def epoch(self, epoch: int, scheme: str, loss: float, scores: ExitScores, rate: float) -> None:
        """Writes the line of an epoch: the loss in training and the score of every exit in validation."""
        final = scores[-1] or {}
        text = "  ".join(f"{name} {value:.4f}" for name, value in final.items())
        self.console.print(
            f"epoch {epoch + 1:3d}  {scheme}  train loss {loss:.4f}  validation {text}  "
            f"{rate:,.0f} samples/s  {time.monotonic() - self._started:.0f} s",
            soft_wrap=True,
        )
