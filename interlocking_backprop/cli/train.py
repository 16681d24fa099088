"""``ibp train``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from interlocking_backprop.cli.arguments import given, parse
from interlocking_backprop.cli.failure import fail, is_first_rank
from interlocking_backprop.cli.terminal import exits_table, show
from interlocking_backprop.training.config import TrainConfig, load_config
from interlocking_backprop.training.divergence import Diverged
from interlocking_backprop.training.interruption import Stopped
from interlocking_backprop.training.run_checks import check_run
from interlocking_backprop.training.run_folder import RunFolder
from interlocking_backprop.training.trainer import Trainer


def train(arguments: Sequence[str]) -> int:
    """Trains; returns the exit code."""
    config = read_config(arguments)
    if not config.output.resume:
        check_run(config, given(arguments))
        RunFolder.new(config)  # to find out whether it can be had, before data is read
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

    The flags of a run that is resumed by its ``--out`` are read beside its own configuration alone: --dropout, say, is
    no flag of the default ResNet.

    Raises:
        ValueError: if a flag or a file does not fit.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--config", type=Path)
    resumed = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    resumed.add_argument("--out", type=Path)
    resumed.add_argument("--resume", action="store_true")
    try:
        known, flags = parser.parse_known_args(arguments)
        run = resumed.parse_known_args(flags)[0]
    except argparse.ArgumentError as error:
        expected = "a JSON file, e.g. the config.json of a run" if error.argument_name == "--config" else "a folder"
        raise ValueError(f"{error.argument_name} has no value; expected {expected}.") from None
    default = None if known.config is None else load_config(known.config)
    if run.resume and run.out is not None and default is None:
        default = RunFolder(run.out).config()
    config = parse(TrainConfig, flags, "ibp train [--config FILE]", default)
    if config.output.resume and default is None:
        return parse(TrainConfig, flags, "ibp train", RunFolder(config.run_folder).config())
    return config
