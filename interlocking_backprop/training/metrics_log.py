"""Metrics of a run: a line of JSON per event, and the same numbers for TensorBoard."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from torch.utils.tensorboard import SummaryWriter

from interlocking_backprop.common.atomic_files import write_text
from interlocking_backprop.common.json_files import parse_json
from interlocking_backprop.training.run_folder import RunFolder


class MetricsLog:
    """Writes metrics.jsonl and TensorBoard files.

    Args:
        run: is the folder that is written to.
        step: the last step of the checkpoint that the run goes on from, 0 for a new run; what was logged of later ones
            is forgotten, for they are about to be done again.
        tensorboard: whether to write TensorBoard files.
        silent: writes nothing, on ranks other than the first.
    """

    def __init__(self, run: RunFolder, step: int, *, tensorboard: bool, silent: bool = False) -> None:
        self._file: TextIO | None = None
        self._writer: SummaryWriter | None = None
        if silent:
            return
        kept = [line for line in read_metrics(run.metrics) if line["step"] <= step and line["event"] != "test"]
        write_text(run.metrics, "".join(json.dumps(line) + "\n" for line in kept))
        self._file = run.metrics.open("a", buffering=1)
        if tensorboard:
            self._writer = SummaryWriter(run.tensorboard, purge_step=step + 1)

    def close(self) -> None:
        """Closes the files."""
        if self._file is not None:
            self._file.close()
        if self._writer is not None:
            self._writer.close()

    def write(self, event: str, step: int, **values: Any) -> None:
        """Adds an event: "train", "validation" or "test", after a step."""
        if self._file is not None:
            self._file.write(json.dumps({"event": event, "step": step, **values}) + "\n")
        if self._writer is not None:
            for name, value in _flat(values, event):
                self._writer.add_scalar(name, value, step)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Reads all events of a metrics.jsonl, without a last line that a crash cut short.

    Raises:
        ValueError: naming the line that is none.
    """
    if not path.exists():
        return []
    events = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n")[:-1], start=1):
        try:
            events.append(parse_json(line))
        except ValueError as error:
            raise ValueError(f"{path}, line {number}, cannot be read as JSON ({error}).") from None
        if not isinstance(events[-1], dict) or not {"event", "step"} <= events[-1].keys():
            raise ValueError(f"{path}, line {number}, is no event of a run; expected an object with event and step.")
    return events


def _flat(values: Any, name: str) -> Iterator[tuple[str, float]]:
    """Yields the numbers in nested dicts and lists with their paths, which begin with ``name``."""
    if isinstance(values, (int, float)):
        yield name, values
    elif isinstance(values, (dict, list)):
        for key, value in values.items() if isinstance(values, dict) else enumerate(values):
            yield from _flat(value, f"{name}/{key}")
