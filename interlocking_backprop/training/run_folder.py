"""The folder of a run holds what was asked for, on what it ran, what came out, and where to go on.

config.json          the full configuration
environment.json     versions, hardware, the command
metrics.jsonl        one line per event: train, validation, test
tensorboard/         the same for TensorBoard
checkpoints/         the newest, and the one with the best validation score
trace-rank0.json.gz  with --profile: what a rank did in some steps, for Perfetto or Chrome
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from interlocking_backprop.common.atomic_files import write_text
from interlocking_backprop.common.fields import flag
from interlocking_backprop.common.folders import check_folder
from interlocking_backprop.training.checkpoints import Checkpoints
from interlocking_backprop.training.config import RESUMABLE_FIELDS, TrainConfig, load_config
from interlocking_backprop.version import __version__


class RunFolder:
    """A run on disk.

    Args:
        path: its folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = Checkpoints(path / "checkpoints")
        self.metrics = path / "metrics.jsonl"
        self.tensorboard = path / "tensorboard"
        self._config = path / "config.json"

    def trace(self, rank: int) -> Path:
        """The file for the trace of a rank."""
        return self.path / f"trace-rank{rank}.json.gz"

    @classmethod
    def new(cls, config: TrainConfig) -> RunFolder:
        """The folder of a new run; nothing is written yet.

        Raises:
            ValueError: if the folder holds a run or a comparison already, or cannot be written.
        """
        run = cls(config.run_folder)
        check_folder("--out", run.path)
        if (run.path / "comparison.json").exists():
            raise ValueError(f"{run.path} holds a comparison of `ibp compare`; choose another --out.")
        if run._config.exists():
            raise ValueError(f"{run.path} holds a run already; go on with --resume, or choose another --out.")
        return run

    def write(self, config: TrainConfig, files: Mapping[str, str]) -> None:
        """Begins the folder: the configuration, the environment, and files by name such as a tokenizer."""
        for name, text in files.items():
            write_text(self.path / name, text)
        write_text(self.path / "environment.json", json.dumps(environment(), indent=2) + "\n")
        config.save(self._config)

    @classmethod
    def resume(cls, config: TrainConfig) -> RunFolder:
        """The folder of a run that is to go on.

        Raises:
            ValueError: if there is none, or the configuration differs in what the run computes.
        """
        run = cls(config.run_folder)
        now = config.flat() | {"scheme": config.resolved_scheme}
        for name, value in run.config().flat().items():
            if name not in RESUMABLE_FIELDS and now[name] != value:
                raise ValueError(
                    f"{flag(name)} is {now[name]}, but the run in {run.path} was begun with {value}; leave the flag "
                    "out, or begin another run with another --out."
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


def environment() -> dict[str, Any]:
    """Collects versions, hardware and command, which every figure should name."""
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
