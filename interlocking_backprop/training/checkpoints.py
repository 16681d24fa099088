"""Checkpoints of a run: a folder each, with a file per component, so that every rank writes what it has.

    checkpoints/step-00000120/component-0000.pt … progress.json
    checkpoints/index.json                         which of them is the last, and which the best

The index is replaced when a checkpoint is complete; until then the one before counts. The files are the same whether
the components were on one device or on many ranks, so a run can go on with another number of ranks.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any, Literal

import torch

from interlocking_backprop.common.atomic_files import replacing, write_text
from interlocking_backprop.common.checks import is_whole
from interlocking_backprop.common.json_files import read_json
from interlocking_backprop.model import InterlockingBackpropModel

Which = Literal["last", "best"]


class Checkpoints:
    """The checkpoints in a folder.

    Args:
        folder: where they are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._index = folder / "index.json"

    def has(self, which: Which) -> bool:
        """Whether there is such a checkpoint."""
        return which in self._names()

    def save(self, model: InterlockingBackpropModel, progress: dict[str, Any], *, is_best: bool) -> None:
        """Writes a checkpoint; all ranks call this.

        Args:
            model: each rank writes its components.
            progress: what else a resumed run has to know; rank 0's is kept. Its "step" names the checkpoint.
            is_best: whether it is the best so far.
        """
        model.settle()
        name = f"step-{progress['step']:08d}"
        for i in model.local_components:
            component = model.components[i]
            state = {"model": component.state_dict(), "training": component.training_state_dict()}
            with replacing(self._folder / name / f"component-{i:04d}.pt") as path:
                torch.save(state, path)
        model.gather(None)  # everything is written
        names = self._names() | {"last": name} | ({"best": name} if is_best else {})
        if model.rank == 0:
            write_text(self._folder / name / "progress.json", json.dumps(progress) + "\n")
            write_text(self._index, json.dumps(names) + "\n")
        kept = set(model.gather(names)[0].values())
        for folder in self._folder.glob("step-*"):
            if folder.name not in kept:
                shutil.rmtree(folder, ignore_errors=True)

    def load(self, model: InterlockingBackpropModel, which: Which, *, weights_only: bool = False) -> dict[str, Any]:
        """Reads a checkpoint; all ranks call this. Nothing in it is executed.

        Args:
            model: takes weights and training state.
            which: the last one or the best.
            weights_only: leaves optimizers, schedules and counters as they are.

        Returns:
            The progress that was saved with it.

        Raises:
            ValueError: if there is none, it cannot be read, or is of another network.
        """
        here = self._names().get(which)
        name, progress = model.gather((here, self._progress(here)))[0]
        if name is None:
            raise ValueError(f"{self._folder} holds no {which} checkpoint; the run has not come to its first one.")
        model.settle()
        for i in model.local_components:
            path = self._folder / name / f"component-{i:04d}.pt"
            component = model.components[i]
            try:
                state = torch.load(path, map_location=component.device, weights_only=True)
                component.load_state_dict(state["model"])
                training = state["training"]
            except Exception as error:
                reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
                raise ValueError(f"{path} cannot be read as a checkpoint of component {i} ({reason}).") from None
            if not weights_only:
                component.load_training_state_dict(training)
        return dict(progress)

    def _names(self) -> dict[str, str]:
        if not self._index.exists():
            return {}
        content = read_json(self._index, _INDEX)
        if not isinstance(content, dict) or not all(_is_name(name) for name in content.values()):
            raise ValueError(f"{self._index} holds no index of checkpoints; expected {_INDEX}.")
        return content

    def _progress(self, name: str | None) -> dict[str, Any] | None:
        if name is None:
            return None
        path = self._folder / name / "progress.json"
        content = read_json(path, _PROGRESS)
        if not isinstance(content, dict) or not _is_progress(content):
            raise ValueError(f"{path} does not say how far a run has come; expected {_PROGRESS}.")
        return content


_INDEX = "the names of the last checkpoint and the best, as `ibp train` writes them"
_PROGRESS = "step, loss_sum, best and state of a run, as `ibp train` writes them"


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(re.fullmatch("step-[0-9]+", value))


def _is_progress(content: dict[str, Any]) -> bool:
    step, loss_sum, best, state = (content.get(name) for name in ("step", "loss_sum", "best", "state"))
    is_of_model = isinstance(state, dict) and all(is_whole(state.get(name), 0) for name in ("n_steps", "seed"))
    are_numbers = all(isinstance(value, (int, float)) for value in (loss_sum, 0 if best is None else best))
    return len(content) == 4 and is_whole(step, 0) and are_numbers and is_of_model
