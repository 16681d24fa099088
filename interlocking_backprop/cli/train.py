"""``ibp train``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from interlocking_backprop.cli.main import fail
from interlocking_backprop.cli.report import exits_table, is_first_rank, show
from interlocking_backprop.common.arguments import parse
from interlocking_backprop.training.config import TrainConfig, load_config
from interlocking_backprop.training.divergence import Diverged
from interlocking_backprop.training.interruption import Stopped
from interlocking_backprop.training.run_folder import RunFolder
from interlocking_backprop.training.trainer import Trainer


def main(arguments: Sequence[str]) -> int:
    """Trains; returns the exit code."""
    config = read_config(arguments)
    trainer = Trainer(config)
    quiet = config.quiet or not is_first_rank()
    try:
        scores = trainer.fit()
    except Stopped as stopped:
        trainer.model.shutdown()
        show(f"{stopped}: ibp train --out {config.run_folder} --resume", quiet=quiet)
        return 130
    except Diverged as diverged:
        trainer.model.shutdown()
        return fail(str(diverged), code=1)
    show(f"{'test' if config.test else 'validation'} set, best checkpoint of {config.run_folder}", quiet=quiet)
    show(exits_table(scores), quiet=quiet)
    return 0


def read_config(arguments: Sequence[str]) -> TrainConfig:
    """The configuration from ``--config FILE``, from the run that is resumed, or the defaults; flags override it.

    Raises:
        ValueError: if a flag or a file does not fit.
    """
    arguments = list(arguments)
    if "--config" in arguments:
        at = arguments.index("--config")
        if at + 1 == len(arguments):
            raise ValueError("--config has no value; expected a JSON file, e.g. the config.json of a run.")
        return load_config(Path(arguments[at + 1]), arguments[:at] + arguments[at + 2 :])
    config = parse(TrainConfig, arguments, prog="ibp train [--config FILE]")
    if config.resume:
        RunFolder(config.run_folder).config()
        return load_config(config.run_folder / "config.json", arguments)
    return config
