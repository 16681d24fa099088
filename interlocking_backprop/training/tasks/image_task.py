"""Image classification with ResNets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from interlocking_backprop import resnet_builder
from interlocking_backprop.data import load_data
from interlocking_backprop.scheme.coefficients import Scheme
from interlocking_backprop.training.config import TrainConfig
from interlocking_backprop.training.tasks.task import Task, needed_heads


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


def image_task(config: TrainConfig, schemes: Sequence[Scheme]) -> Task:
    """Loads images and builds a ResNet; weights follow from the configuration's seed.

    Raises:
        ValueError: if data or nets cannot be had as asked for.
    """
    resnet = config.resnet
    data = load_data(
        config.data_name,
        config.execution.data_root,
        validation_fraction=config.dataset.validation_fraction or 0.1,
        augment=config.dataset.augment,
        image_size=config.dataset.image_size,
    )
    preset = _PRESETS.get(config.data_name, _PAPER)
    channels, height, width = data.sample_shape
    is_large = max(height, width) >= 64
    torch.manual_seed(config.seed)
    main_nets, heads = resnet_builder.resnet(
        resnet.block,
        preset.architecture if resnet.architecture == "auto" else resnet.architecture,
        preset.aux_architecture if resnet.aux_architecture == "auto" else resnet.aux_architecture,
        config.blocks,
        config.data_name,
        data.n_classes,
        in_channels=channels,
        stem="imagenet" if is_large else "cifar",
        stem_stride=1 if is_large else resnet.stem_stride or preset.stem_stride,
        image_size=max(height, width),
    )
    return Task(
        main_nets=main_nets,
        aux_nets=needed_heads(heads, schemes, keep_all=config.network.heads == "all"),
        loss_function=F.cross_entropy,
        train=data.train,
        validation=data.validation,
        test=data.test,
        metrics=lambda part: classification_metrics,
        derived=lambda means: {},
        score="accuracy",
        maximize=True,
        files={},
    )


def classification_metrics(output: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Loss and accuracy of class scores (N, C) against classes (N,)."""
    return {
        "n": torch.tensor(float(len(target)), device=output.device),
        "loss": F.cross_entropy(output.float(), target, reduction="sum"),
        "accuracy": (output.argmax(1) == target).sum().float(),
    }
