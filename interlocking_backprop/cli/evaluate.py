"""``ibp eval``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from interlocking_backprop.cli.arguments import parse
from interlocking_backprop.cli.terminal import exits_table, show
from interlocking_backprop.common.fields import Checked, at_least
from interlocking_backprop.training.run_folder import RunFolder
from interlocking_backprop.training.trainer import Trainer


@dataclass(frozen=True, kw_only=True)
class EvalConfig(Checked):
    """Evaluates a run on the test set: every exit, with the metrics of its task."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of the run."""
    checkpoint: Literal["best", "last"] = "best"
    """Which of its checkpoints is evaluated."""
    split: Literal["test", "validation"] = "test"
    """Part of the data on which it is evaluated."""
    batch_size: Annotated[int | None, at_least(1)] = None
    """Samples in a batch; by default as many as in the run."""
    device: str = "auto"
    """cpu, cuda, cuda:1, …"""
    data_root: Path | None = None
    """Where the files of data sets are, if they have moved."""
    json: bool = False
    """Prints JSON in place of a table."""


def evaluate_run(arguments: Sequence[str]) -> int:
    """Evaluates; returns the exit code."""
    config = parse(EvalConfig, arguments, prog="ibp eval")
    run = RunFolder(config.run)
    trained = run.config()
    trainer = Trainer(
        trained.replace(
            device=config.device,
            data_root=config.data_root or trained.execution.data_root,
            batch_size=config.batch_size or trained.optimization.batch_size,
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
