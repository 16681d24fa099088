"""Which ResNet suits which images, where the configuration says "auto"."""

from __future__ import annotations

from typing import NamedTuple

from interlocking_backprop.training.config import TrainConfig


class Preset(NamedTuple):
    """How a ResNet is built, in the words of the flags."""

    architecture: str
    aux_architecture: str
    stem_stride: int


# Nets that suit the data: the smaller ones train in seconds on a CPU, the last is the paper's.
_PRESETS = {
    "digits": Preset("8,3/16,3", "conv16_bn_gbpl_fc", 1),
    "fashion-mnist": Preset("8,2/16,1/32,1", "conv32_bn_gbpl_fc", 2),
}
_PAPER = Preset("64,3/128,4/256,6/512,3", "conv128_bn_conv64_bn_gbpl_fc", 1)


def resnet_of(config: TrainConfig) -> Preset:
    """The ResNet that a configuration asks for, "auto" being resolved."""
    resnet, preset = config.resnet, _PRESETS.get(config.data_name, _PAPER)
    return Preset(
        preset.architecture if resnet.architecture == "auto" else resnet.architecture,
        preset.aux_architecture if resnet.aux_architecture == "auto" else resnet.aux_architecture,
        resnet.stem_stride or preset.stem_stride,
    )
