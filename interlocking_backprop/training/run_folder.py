"""The folder of a run: what was asked for, on what it ran, what came out, and where to go on.

config.json          the full configuration
environment.json     versions, hardware, the command
metrics.jsonl        one line per event: train, validation, test
tensorboard/         the same for TensorBoard
last.pt, best.pt     checkpoints: the newest, and the one with the best validation score
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from pathlib import Path
from typing import Any

import torch

from interlocking_backprop.files import replacing, write_text
from interlocking_backprop.training.config import RESUMABLE_FIELDS, TrainConfig, load_config
from interlocking_backprop.version import __version__


class RunFolder:
    """A run on disk.

    Args:
        path: its folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last = path / "last.pt"
        self.best = path / "best.pt"
        self.metrics = path / "metrics.jsonl"
        self.tensorboard = path / "tensorboard"
        self._config = path / "config.json"

    @classmethod
    def create(cls, config: TrainConfig) -> RunFolder:
        """Begins a run.

        Raises:
            ValueError: if the folder holds one already.
        """
        run = cls(config.run_folder)
        if run._config.exists():
            raise ValueError(f"{run.path} holds a run already; go on with --resume, or choose another --out.")
        config.save(run._config)
        write_text(run.path / "environment.json", json.dumps(environment(), indent=2) + "\n")
        return run

    @classmethod
    def resume(cls, config: TrainConfig) -> RunFolder:
        """Takes up a run where its last checkpoint was written.

        Raises:
            ValueError: if there is none, or the configuration differs in what the run computes.
        """
        run = cls(config.run_folder)
        before = run.config()
        for field, value in vars(before).items():
            if field not in RESUMABLE_FIELDS and getattr(config, field) != value:
                flag = field.replace("_", "-")
                raise ValueError(
                    f"--{flag} is {getattr(config, field)}, but the run in {run.path} was begun with {value}; leave "
                    "the flag out, or begin another run with another --out."
                )
        return run

    def config(self) -> TrainConfig:
        """The configuration that the run was begun with.

        Raises:
            ValueError: if the folder holds no run.
        """
        if not self._config.exists():
            raise ValueError(f"{self.path} holds no run (no config.json); expected one that `ibp train` made.")
        return load_config(self._config)

    def save_checkpoint(self, state: dict[str, Any], *, is_best: bool) -> None:
        """Replaces the last checkpoint, and before it the best one if this is it, whole."""
        for path in (self.best, self.last) if is_best else (self.last,):
            with replacing(path) as temporary:
                torch.save(state, temporary)

    def load_checkpoint(self, path: Path, device: torch.device) -> dict[str, Any]:
        """Reads a checkpoint. Nothing in it is executed.

        Raises:
            ValueError: if there is none, or it cannot be read.
        """
        if not path.exists():
            raise ValueError(f"{path} does not exist; the run in {self.path} has not come to its first checkpoint.")
        try:
            state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        except Exception as error:
            raise ValueError(f"{path} cannot be read as a checkpoint ({type(error).__name__}: {error}).") from None
        return state


def environment() -> dict[str, Any]:
    """Versions, hardware and command, as every figure should name them."""
    return {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "interlocking_backprop": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cpu_count": os.cpu_count(),
        "accelerators": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        if names:
            return names[0]
    return platform.processor() or platform.machine()
