"""ResNets (He et al., CVPR 2016) as a row of blocks to be cut anywhere, and as one plain net.

Attributes and parameters have torchvision's names, so that its weights fit, and the bottleneck has its stride in the
3x3 convolution, as there. The row differs from the plain net in names alone: ``stem.conv1`` and ``head.fc`` for
``conv1`` and ``fc``, ``layer2_1`` for ``layer2.1``. They say where a block is in the network, so the keys of a state
dict do not depend on the cut.

No block changes its input in place: it may be the output of another component, which is kept for backward passes.
Inside a block the ReLUs do work in place, on tensors that nothing else needs.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal, NamedTuple

from torch import Tensor, nn

from interlocking_backprop.nets.grammar import Superblock

Stem = Literal["cifar", "imagenet"]
STEMS: tuple[Stem, ...] = ("cifar", "imagenet")


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, as in ResNet-18 and ResNet-34."""

    expansion = 1

    def __init__(self, in_channels: int, planes: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = _conv3x3(in_channels, planes, stride)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = _conv3x3(planes, planes)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = _shortcut(in_channels, planes * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += x if self.downsample is None else self.downsample(x)
        result: Tensor = self.relu(out)
        return result


class Bottleneck(nn.Module):
    """A 3x3 convolution between two 1x1 ones, beside a shortcut, as from ResNet-50 on. Four times as wide outside."""

    expansion = 4

    def __init__(self, in_channels: int, planes: int, stride: int = 1) -> None:
        super().__init__()
        out_channels = planes * self.expansion
        self.conv1 = _conv1x1(in_channels, planes)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = _conv3x3(planes, planes, stride)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = _conv1x1(planes, out_channels)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += x if self.downsample is None else self.downsample(x)
        result: Tensor = self.relu(out)
        return result


BLOCK_TYPES: dict[str, type[BasicBlock] | type[Bottleneck]] = {"basic": BasicBlock, "bottleneck": Bottleneck}


class NamedBlock(NamedTuple):
    """A piece that is not cut: the stem, a residual block, or the head."""

    name: str
    module: nn.Module
    out_channels: int


def build_blocks(
    block_type: str,
    superblocks: Sequence[Superblock],
    in_channels: int,
    n_classes: int,
    stem: Stem,
    stem_stride: int = 1,
) -> list[NamedBlock]:
    """Builds the network as a row: stem, residual blocks, head.

    Args:
        block_type: a key of `BLOCK_TYPES`.
        superblocks: the first one has stride 1 and gives the stem its width, the others have stride 2.
        in_channels: of the images.
        n_classes: how many scores the head returns.
        stem: "cifar" is a 3x3 convolution, "imagenet" a 7x7 one with stride 2 and max-pooling.
        stem_stride: of the 3x3 convolution.
    """
    block = BLOCK_TYPES[block_type]
    channels = superblocks[0].planes
    blocks = [NamedBlock("stem", _stem(in_channels, channels, stem, stem_stride), channels)]
    for s, (planes, n_blocks) in enumerate(superblocks, start=1):
        for b in range(n_blocks):
            stride = 2 if s > 1 and b == 0 else 1
            blocks.append(NamedBlock(f"layer{s}_{b}", block(channels, planes, stride), planes * block.expansion))
            channels = planes * block.expansion
    return [*blocks, NamedBlock("head", _head(channels, n_classes), n_classes)]


def initialise(module: nn.Module) -> None:
    """Draws convolution weights as He et al. (ICCV 2015) do for ReLUs, counting outputs, and resets normalisations."""
    for m in module.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(m, nn.BatchNorm2d):
            nn.init.ones_(m.weight)
            nn.init.zeros_(m.bias)


class ResNet(nn.Module):
    """The plain network, put together from the blocks of a row; the modules are shared, not copied.

    Args:
        stem: with ``conv1``, ``bn1``, ``relu`` and ``maxpool``.
        layers: the residual blocks of each superblock; they become ``layer1``, ``layer2``, …
        head: with ``avgpool``, ``flatten`` and ``fc``.
    """

    def __init__(self, stem: nn.Module, layers: Sequence[Sequence[nn.Module]], head: nn.Module) -> None:
        super().__init__()
        self.conv1 = stem.get_submodule("conv1")
        self.bn1 = stem.get_submodule("bn1")
        self.relu = stem.get_submodule("relu")
        self.maxpool = stem.get_submodule("maxpool")
        self._layers = [f"layer{s}" for s in range(1, len(layers) + 1)]
        for name, blocks in zip(self._layers, layers, strict=True):
            self.add_module(name, nn.Sequential(*blocks))
        self.avgpool = head.get_submodule("avgpool")
        self.fc = head.get_submodule("fc")
        # The shared modules keep their mode, whatever it is, and the new ones go with it.
        for container in (self, *map(self.get_submodule, self._layers)):
            container.training = stem.training

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for name in self._layers:
            x = self.get_submodule(name)(x)
        scores: Tensor = self.fc(self.avgpool(x).flatten(1))
        return scores


def _stem(in_channels: int, channels: int, kind: Stem, stride: int) -> nn.Sequential:
    conv: nn.Module
    pool: nn.Module
    if kind == "cifar":
        conv, pool = _conv3x3(in_channels, channels, stride), nn.Identity()
    else:
        conv = nn.Conv2d(in_channels, channels, kernel_size=7, stride=2, padding=3, bias=False)
        pool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
    return nn.Sequential(
        OrderedDict(conv1=conv, bn1=nn.BatchNorm2d(channels), relu=nn.ReLU(inplace=True), maxpool=pool)
    )


def _head(in_channels: int, n_classes: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(avgpool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), fc=nn.Linear(in_channels, n_classes))
    )


def _conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False)


def _conv1x1(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False)


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(_conv1x1(in_channels, out_channels, stride), nn.BatchNorm2d(out_channels))
