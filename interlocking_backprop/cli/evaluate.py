"""``ibp eval``."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from interlocking_backprop.cli.report import exits_table, show
from interlocking_backprop.common.arguments import parse
from interlocking_backprop.training.run_folder import RunFolder
from interlocking_backprop.training.trainer import Trainer


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """Evaluates a run on the test set: every exit, with the metrics of its task."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of the run."""
    checkpoint: Literal["best", "last"] = "best"
    """Which of its checkpoints."""
    split: Literal["test", "validation"] = "test"
    """Which part of the data."""
    batch_size: int = 0
    """Samples in a batch; 0 takes that of the run."""
    device: str = "auto"
    """cpu, cuda, cuda:1, …"""
    data_root: Path | None = None
    """Where the files of data sets are, if they have moved."""
    json: bool = False
    """Prints JSON in place of a table."""


def main(arguments: Sequence[str]) -> int:
    """Evaluates; returns the exit code."""
    config = parse(EvalConfig, arguments, prog="ibp eval")
    if config.batch_size < 0:
        raise ValueError(f"--batch-size is {config.batch_size}; expected a whole number of at least 0.")
    run = RunFolder(config.run)
    trained = run.config()
    trainer = Trainer(
        dataclasses.replace(
            trained,
            device=config.device,
            data_root=config.data_root or trained.data_root,
            batch_size=config.batch_size or trained.batch_size,
        )
    )
    trainer.place()
    trainer.load(run, config.checkpoint, weights_only=True)
    scores = trainer.evaluate(config.split)
    if config.json:
        print(json.dumps({"run": str(config.run), "checkpoint": config.checkpoint, config.split: scores}))
    else:
        show(f"{config.split} set, {config.checkpoint} checkpoint of {config.run}")
        show(exits_table(scores))
    return 0
