"""``ibp train``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from interlocking_backprop.cli.arguments import parse
from interlocking_backprop.cli.failure import fail, is_first_rank
from interlocking_backprop.cli.terminal import exits_table, show
from interlocking_backprop.training.config import TrainConfig, load_config
from interlocking_backprop.training.divergence import Diverged
from interlocking_backprop.training.interruption import Stopped
from interlocking_backprop.training.run_folder import RunFolder
from interlocking_backprop.training.trainer import Trainer


def train(arguments: Sequence[str]) -> int:
    """Trains; returns the exit code."""
    config = read_config(arguments)
    trainer = Trainer(config)
    quiet = config.output.quiet or not is_first_rank()
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
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--config", type=Path)
    try:
        known, flags = parser.parse_known_args(arguments)
    except argparse.ArgumentError:
        raise ValueError("--config has no value; expected a JSON file, e.g. the config.json of a run.") from None
    default = None if known.config is None else load_config(known.config)
    config = parse(TrainConfig, flags, "ibp train [--config FILE]", default)
    if config.output.resume and default is None:
        return parse(TrainConfig, flags, "ibp train", RunFolder(config.run_folder).config())
    return config
