"""The one progress display of a comparison: bars on a terminal, a line for everything that ends elsewhere."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from interlocking_backprop.compare.jobs import Outcome
from interlocking_backprop.training.interruption import Interruption


@dataclass(frozen=True)
class Item:
    """Something that is shown while it goes on.

    Attributes:
        name: what it is called.
        metrics: the metrics.jsonl that it writes, if it does.
        note: called at its end; returns the line that says how it ended.
    """

    name: str
    note: Callable[[Outcome], str]
    metrics: Path | None = None


class Display:
    """Watches jobs and shows how far they are.

    Args:
        console: where.
        interruption: whether the user has asked to stop.
        title: what the jobs are, together.
        items: one for each job.
        n_done: how many were done before.
        score: the metric that is shown.
    """

    def __init__(
        self,
        console: Console,
        interruption: Interruption,
        title: str,
        items: Sequence[Item],
        n_done: int = 0,
        score: str = "",
    ) -> None:
        self._console, self._interruption, self._title, self._score = console, interruption, title, score
        self._items, self._n_before, self._n_done = items, n_done, n_done
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[text]}"),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._whole = self._progress.add_task(title, total=n_done + len(items), completed=n_done, text="")
        self._running: dict[int, _Running] = {}
        self._begin = time.monotonic()
        self._was_asked = False

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._progress.stop()

    def began(self, job: int) -> None:
        item = self._items[job]
        bar = self._progress.add_task(f"  {escape(item.name)}", total=None, text="")
        self._running[job] = _Running(bar, _Tail(item.metrics))

    def told(self, job: int, message: Any) -> None:
        """The number of steps."""
        self._running[job].n_steps = message

    def ended(self, job: int, outcome: Outcome) -> None:
        self._progress.remove_task(self._running.pop(job).bar)
        line = self._items[job].note(outcome)
        self._n_done += not outcome.was_told_to_stop
        if not self._console.is_terminal or outcome.error:
            counts = f"{self._title} {self._n_done}/{self._n_before + len(self._items)}"
            self._console.print(
                f"{counts}  {line}  {outcome.seconds:.0f} s", markup=False, highlight=False, soft_wrap=True
            )

    def passed(self) -> bool:
        if self._interruption.requested and not self._was_asked:
            self._was_asked = True
            self._console.print("stopping; everything that runs leaves a checkpoint", highlight=False)
        for running in self._running.values():
            running.tail.read()
            self._show(running)
        done = self._n_done + sum(running.share for running in self._running.values())
        self._progress.update(self._whole, completed=done, text=self._summary(done))
        return self._interruption.requested

    def _show(self, running: _Running) -> None:
        tail = running.tail
        parts = [f"epoch {tail.epoch + 1}"] if tail.epoch is not None else []
        if tail.exits and tail.exits[-1]:
            parts.append(f"{self._score} {tail.exits[-1][self._score]:.4f}")
        self._progress.update(
            running.bar, total=running.n_steps, completed=tail.step if running.n_steps else 0, text="  ".join(parts)
        )

    def _summary(self, done: float) -> str:
        total = self._n_before + len(self._items)
        text = f"{self._n_done}/{total}"
        here = done - self._n_before
        if here > 0.02:
            left = (time.monotonic() - self._begin) / here * (total - done)
            text += f"  {int(left) // 60}:{int(left) % 60:02d} left"
        return text


class _Running:
    """A job under way: its bar and how far it is."""

    def __init__(self, bar: TaskID, tail: _Tail) -> None:
        self.bar, self.tail = bar, tail
        self.n_steps: int | None = None

    @property
    def share(self) -> float:
        return min(self.tail.step / self.n_steps, 1.0) if self.n_steps else 0.0


class _Tail:
    """What a metrics.jsonl says last, read as it grows."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file: tuple[int, int] = (0, 0)  # which one, and how far it has been read
        self.step = 0
        self.epoch: int | None = None
        self.exits: list[Any] = []

    def read(self) -> None:
        """Looks for new lines."""
        if self._path is None or not self._path.exists():
            return
        with self._path.open("rb") as file:
            inode = self._path.stat().st_ino
            if inode == self._file[0]:  # a run that goes on replaces the file by one without what it does again
                file.seek(self._file[1])
            start = file.tell()
            text = file.read()
        text = text[: text.rfind(b"\n") + 1]
        self._file = (inode, start + len(text))
        for line in text.splitlines():
            event = json.loads(line)
            self.step = event["step"]
            self.epoch = event.get("epoch", self.epoch)
            self.exits = event.get("exits", self.exits)
