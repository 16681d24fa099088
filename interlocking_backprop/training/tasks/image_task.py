"""Image classification with ResNets."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from interlocking_backprop import resnet_builder
from interlocking_backprop.data import load_data
from interlocking_backprop.scheme.coefficients import Scheme
from interlocking_backprop.training.config import TrainConfig
from interlocking_backprop.training.tasks.presets import resnet_of
from interlocking_backprop.training.tasks.task import Task, needed_heads


def image_task(config: TrainConfig, schemes: Sequence[Scheme]) -> Task:
    """Loads images and builds a ResNet; weights follow from the configuration's seed.

    Raises:
        ValueError: if data or nets cannot be had as asked for.
    """
    data = load_data(
        config.data_name,
        config.execution.data_root,
        validation_fraction=config.dataset.validation_fraction or 0.1,
        augment=config.dataset.augment,
        image_size=config.dataset.image_size,
    )
    net = resnet_of(config)
    channels, height, width = data.sample_shape
    is_large = max(height, width) >= 64
    torch.manual_seed(config.seed)
    main_nets, heads = resnet_builder.resnet(
        config.resnet.block,
        net.architecture,
        net.aux_architecture,
        config.blocks,
        config.data_name,
        data.n_classes,
        in_channels=channels,
        stem="imagenet" if is_large else "cifar",
        stem_stride=1 if is_large else net.stem_stride,
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
        sample=torch.empty(1, *data.sample_shape, device="meta"),
        files={},
    )


def classification_metrics(output: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Loss and accuracy of class scores (N, C) against classes (N,)."""
    return {
        "n": torch.tensor(float(len(target)), device=output.device),
        "loss": F.cross_entropy(output.float(), target, reduction="sum"),
        "accuracy": (output.argmax(1) == target).sum().float(),
    }
