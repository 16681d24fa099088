"""What a new run is asked for fits together: found out before data is read or anything is built.

A run that goes on, or is evaluated, is not checked again: it has come as far as it has.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Iterator
from itertools import pairwise
from typing import Any

from interlocking_backprop.common.fields import flag
from interlocking_backprop.common.folders import check_folder
from interlocking_backprop.nets.grammar import parse_architecture, parse_aux_net, parse_block_counts
from interlocking_backprop.training import config_groups as groups
from interlocking_backprop.training.config import TrainConfig
from interlocking_backprop.training.tasks.presets import resnet_of

_NAMES = {"resnet": "a ResNet", "transformer": "a Transformer"}


def check_run(config: TrainConfig, given: Collection[str] = ()) -> None:
    """Makes sure that what a new run is asked for fits together.

    Args:
        config: of the run.
        given: the fields whose flags stand on the command line, be it with the values that they have by default.

    Raises:
        ValueError: naming the flag, its value, what was expected and the remedy.
    """
    _check_unused(config, given)
    _check_data(config)
    _check_epochs(config)
    _check_cut(config)
    _check_memory(config)
    optimization = config.optimization
    fits = optimization.microbatches <= optimization.batch_size
    optimization.expect("microbatches", fits, f"at most --batch-size, which is {optimization.batch_size}")


def check_batch(config: TrainConfig, n_samples: int) -> None:
    """Makes sure that a batch is not larger than what there is to train on.

    Raises:
        ValueError: if it is.
    """
    what = "windows of text" if config.network.model == "transformer" else "images"
    fits = config.optimization.batch_size <= n_samples
    expected = f"at most {n_samples}, the number of {what} that {config.data_name} has to train on"
    config.optimization.expect("batch_size", fits, expected)


def check_reached(config: TrainConfig, steps_per_epoch: int, n_steps: int) -> None:
    """Makes sure that a run which --max-steps ends comes to all phases of its scheme.

    Raises:
        ValueError: if it does not.
    """
    for phase in config.phases:
        if phase.end is not None and phase.end * steps_per_epoch >= n_steps:
            raise ValueError(
                f"scheme {config.scheme!r} changes at epoch {phase.end}, which begins after "
                f"{phase.end * steps_per_epoch} steps ({steps_per_epoch} to an epoch), but --max-steps ends the run "
                f"after {n_steps}, and it never comes to what follows; give more --max-steps, shorter epochs "
                "(--epoch-steps), or leave that out."
            )


def _check_unused(config: TrainConfig, given: Collection[str]) -> None:
    """A flag that is given and changes nothing is a mistake."""
    kind, optimization = config.network.model, config.optimization
    if kind == "transformer":
        unused = [*_given(config.resnet, given), *_given(config.dataset, given, _OF_IMAGES)]
    else:
        unused = [*_given(config.transformer, given)]
    other = "resnet" if kind == "transformer" else "transformer"
    for name, value in unused:
        raise ValueError(
            f"{flag(name)} is {value}, but {_NAMES[kind]} has no such setting; leave it out, or choose --model {other}."
        )
    _check_optimizer(config, given)
    users = {"milestones": ("multistep",), "gamma": ("multistep", "plateau")}
    for name, value in _given(optimization, given, users):
        if optimization.lr_schedule not in users[name]:
            shown = ",".join(map(str, value)) if isinstance(value, tuple) else value
            raise ValueError(
                f"{flag(name)} is {shown}, but the {optimization.lr_schedule} schedule has none; leave it out, or "
                f"choose --lr-schedule {' or '.join(users[name])}."
            )


def _check_optimizer(config: TrainConfig, given: Collection[str]) -> None:
    """The network has something for the optimizer to update, and the optimizer a use for its flags."""
    name, optimization = config.optimizer_name, config.optimization
    if name == "muon" and config.network.model == "resnet":
        raise ValueError(
            "--optimizer is muon, which takes matrices, and a ResNet has none but that of its head: its kernels have "
            "four dimensions; choose --optimizer sgd or adamw, or --model transformer."
        )
    of_sgd = {"adamw": "AdamW has none", "muon": "it is SGD's: Muon has a momentum of 0.95, Nesterov's"}
    if name in of_sgd:
        for field, value in _given(optimization, given, ("momentum", "nesterov")):
            raise ValueError(f"{flag(field)} is {value}, but {of_sgd[name]}; leave it out, or choose --optimizer sgd.")
    if name != "muon" and optimization.adamw_lr is not None:
        raise ValueError(
            f"--adamw-lr is {optimization.adamw_lr:g}, but there is no AdamW beside another optimizer; give --lr, or "
            "choose --optimizer muon."
        )


_OF_IMAGES = ("image_size", "augment")


def _given(group: Any, given: Collection[str], among: Any = None) -> Iterator[tuple[str, Any]]:
    """The fields, all or some of them, that the command line names or whose values are not those by default."""
    default = type(group)()
    for field in dataclasses.fields(group):
        name, value = field.name, getattr(group, field.name)
        if (among is None or name in among) and (name in given or value != getattr(default, name)):
            yield name, value


def _check_data(config: TrainConfig) -> None:
    name, model = config.data_name, config.network.model
    is_text = name == "stdlib" or name.startswith("text:")
    is_images = name in ("digits", "fashion-mnist", "cifar10", "cifar100") or name.startswith("folder:")
    if is_text and model == "resnet":
        raise ValueError(
            f"--data is {name}, which is text, and a ResNet learns from images; choose --model transformer, or images "
            "such as digits or folder:PATH."
        )
    if is_images and model == "transformer":
        raise ValueError(
            f"--data is {name}, which are images, and a Transformer learns from text; choose --model resnet, or text "
            "such as stdlib or text:PATH."
        )
    root = config.execution.data_root.expanduser()
    if model == "transformer" and not (root / "text-cache").is_dir():
        check_folder("--data-root", root)


def _check_epochs(config: TrainConfig) -> None:
    """What is to happen at an epoch happens in the course of the run."""
    phases, optimization = config.phases, config.optimization
    for phase in phases:
        if phase.end is not None and phase.end >= optimization.epochs:
            raise ValueError(
                f"scheme {config.scheme!r} changes at epoch {phase.end}, but the run ends at epoch "
                f"{optimization.epochs} and never comes to what follows; give more --epochs, or leave that out."
            )
        if not phase.scheme.uses.any():
            raise ValueError(
                f"scheme {config.scheme!r} trains nothing: all coefficients of {phase.scheme.name} are 0; expected one "
                "at least that is not."
            )
        factors = config.rate_factors(phase.scheme)
        if config.transformer.tied and factors[0] != factors[-1]:
            raise ValueError(
                f"--delay-lr-power is {optimization.delay_lr_power:g}, with which scheme {phase.scheme.name!r} gives "
                "the embedding and the head, one weight with --tied, different learning rates; give --delay-lr-power "
                "0, or leave out --tied."
            )
    if optimization.lr_schedule == "multistep":
        fits = optimization.milestones[0] < optimization.epochs
        optimization.expect("milestones", fits, f"a first one below the number of epochs, {optimization.epochs}")


def _check_cut(config: TrainConfig) -> None:
    """There are as many blocks as it takes, and not more than can be handled."""
    network, shape = config.network, config.transformer
    if network.model == "transformer":
        n_blocks = shape.depth + 2
        what = f"the {shape.depth} blocks of --depth, the embedding and the head"
    else:
        architecture = resnet_of(config).architecture
        n_blocks = 2 + sum(superblock.n_blocks for superblock in parse_architecture(architecture))
        what = f"the {n_blocks - 2} blocks of --architecture {architecture}, the input layers and the output layers"
        if n_blocks > groups.MOST_BLOCKS:
            raise ValueError(
                f"--architecture is {architecture}, which has {n_blocks:,} blocks; expected at most "
                f"{groups.MOST_BLOCKS}."
            )
    if config.components > n_blocks:
        raise ValueError(f"--components is {config.components}; expected at most {n_blocks}: {what}.")
    counts = network.blocks_per_component
    if counts != "auto" and len(parse_block_counts(counts, n_blocks)) != config.components:
        raise ValueError(
            f"--blocks-per-component {counts} makes {len(parse_block_counts(counts, n_blocks))} components, "
            f"--components is {config.components}; make them agree."
        )


def _check_memory(config: TrainConfig) -> None:
    """The weights, which a run makes in the memory of this machine, fit into it."""
    n_bytes = 4 * _least_parameters(config)
    if not hasattr(os, "sysconf"):  # on Windows, which tells it in another way
        return
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if n_bytes > there:
        shape = config.transformer
        what = f"--architecture {resnet_of(config).architecture} with heads {resnet_of(config).aux_architecture}"
        if config.network.model == "transformer":
            rank = f"--aux-rank {shape.aux_rank}"
            what = f"--width {shape.width}, --depth {shape.depth}, --context {shape.context} and {rank}"
        raise ValueError(
            f"{what} take {n_bytes / 2**30:,.0f} GiB for the weights alone, and this machine has {there / 2**30:,.1f} "
            "GiB of memory; choose a smaller network."
        )


def _least_parameters(config: TrainConfig) -> int:
    """About the number of weights, and never more: those of the large matrices and kernels."""
    shape = config.transformer
    if config.network.model == "transformer":
        ends = shape.width * (256 + shape.context * (shape.positions == "learned"))
        return ends + 12 * shape.depth * shape.width**2 + shape.aux_rank * shape.width * (config.components > 1)
    net = resnet_of(config)
    of_block = 17 if config.resnet.block == "bottleneck" else 18
    superblocks = parse_architecture(net.architecture)
    # The first block of a superblock may have narrower inputs, but has a projection.
    main = sum((of_block * block.n_blocks - 9) * block.planes**2 for block in superblocks)
    channels = [
        superblocks[0].planes,
        *(layer.channels for layer in parse_aux_net(net.aux_architecture) if layer.channels),
    ]
    return main + 9 * sum(a * b for a, b in pairwise(channels)) * (config.components > 1)
