"""What is learned: data, nets, loss and the metrics by which it is judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from interlocking_backprop import resnet_builder
from interlocking_backprop.data import Split, load_data
from interlocking_backprop.losses import LossFunction
from interlocking_backprop.scheme import Scheme
from interlocking_backprop.training.config import TrainConfig
from interlocking_backprop.tree import Tree

Metrics = Callable[[Tree, Tree], dict[str, Tensor]]
"""Of a batch's output and target: sums over the samples by name, with their number under "n"."""


@dataclass(frozen=True)
class Task:
    """A network in components and what it is trained for.

    Attributes:
        main_nets: the components.
        aux_nets: a head at every exit but the last; None where none is needed.
        loss_function: of every exit.
        train: batches are drawn from it in random order, augmented.
        validation: what the best checkpoint is chosen by.
        test: used at the end, and by ``eval``.
        metrics: sums of a batch, see `Metrics`; the mean of each is reported.
        score: the metric by which checkpoints are compared; higher is better.
    """

    main_nets: list[nn.Module]
    aux_nets: list[nn.Module | None]
    loss_function: LossFunction
    train: Split
    validation: Split
    test: Split
    metrics: Metrics
    score: str


class _Preset(NamedTuple):
    architecture: str
    aux_architecture: str
    stem_stride: int


# Nets that suit the data: the smaller ones train in seconds on a CPU, the last is the paper's.
_PRESETS = {
    "digits": _Preset("8,3/16,3", "conv16_bn_gbpl_fc", 1),
    "fashion-mnist": _Preset("8,2/16,1/32,1", "conv32_bn_gbpl_fc", 2),
}
_PAPER = _Preset("64,3/128,4/256,6/512,3", "conv128_bn_conv64_bn_gbpl_fc", 1)


def build_task(config: TrainConfig, schemes: Sequence[Scheme]) -> Task:
    """Loads the data and builds the nets that a configuration asks for; weights follow from its seed.

    Args:
        config: what is asked for.
        schemes: all that the run will follow; they decide which heads are needed.

    Raises:
        ValueError: if data or nets cannot be had as asked for.
    """
    data = load_data(
        config.data,
        config.data_root,
        validation_fraction=config.validation_fraction,
        augment=config.augment,
        image_size=config.image_size,
    )
    preset = _PRESETS.get(config.data, _PAPER)
    channels, height, width = data.sample_shape
    is_large = max(height, width) >= 64
    blocks: int | str = config.components
    if config.blocks_per_component != "auto":
        blocks = config.blocks_per_component
    torch.manual_seed(config.seed)
    main_nets, heads = resnet_builder.resnet(
        config.block,
        preset.architecture if config.architecture == "auto" else config.architecture,
        preset.aux_architecture if config.aux_architecture == "auto" else config.aux_architecture,
        blocks,
        config.data,
        data.n_classes,
        in_channels=channels,
        stem="imagenet" if is_large else "cifar",
        stem_stride=1 if is_large else config.stem_stride or preset.stem_stride,
        image_size=max(height, width),
    )
    if len(main_nets) != config.components:
        raise ValueError(
            f"--blocks-per-component {blocks} makes {len(main_nets)} components, --components is {config.components}; "
            "make them agree."
        )
    return Task(
        main_nets=main_nets,
        aux_nets=_needed(heads, schemes, keep_all=config.heads == "all"),
        loss_function=F.cross_entropy,
        train=data.train,
        validation=data.validation,
        test=data.test,
        metrics=classification_metrics,
        score="accuracy",
    )


def classification_metrics(output: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Loss and accuracy of class scores (N, C) against classes (N,)."""
    return {
        "n": torch.tensor(float(len(target)), device=output.device),
        "loss": F.cross_entropy(output.float(), target, reduction="sum"),
        "accuracy": (output.argmax(1) == target).sum().float(),
    }


def _needed(heads: Sequence[nn.Module], schemes: Sequence[Scheme], *, keep_all: bool) -> list[nn.Module | None]:
    used = np.any([scheme.matrix.any(axis=0) for scheme in schemes], axis=0)
    return [head if keep_all or used[j] else None for j, head in enumerate(heads)]
