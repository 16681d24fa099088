"""ResNets cut into components, with their heads, and the way back to one plain ResNet.

main_nets, aux_nets = resnet("bottleneck", dataset="imagenet", blocks_per_component=4)
load_plain_state_dict(main_nets, torch.load("resnet50.pth"))      # torchvision's names
…                                                                 # training
torch.save(to_plain(main_nets).state_dict(), "trained.pth")       # torchvision's names again
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from interlocking_backprop.common.checks import check_whole
from interlocking_backprop.nets.auxiliary import build_aux_net
from interlocking_backprop.nets.flops import forward_flops
from interlocking_backprop.nets.grammar import parse_architecture, parse_aux_net
from interlocking_backprop.nets.resnet import BLOCK_TYPES, STEMS, NamedBlock, ResNet, Stem, build_blocks, initialise
from interlocking_backprop.nets.row import component_sizes, describe, sequential

__all__ = ["DATASETS", "ImageFormat", "build_aux_net", "describe", "load_plain_state_dict", "resnet", "to_plain"]


class ImageFormat(NamedTuple):
    """What a network needs to know of a data set."""

    in_channels: int
    image_size: int
    n_classes: int
    stem: Stem


DATASETS = {
    "cifar10": ImageFormat(3, 32, 10, "cifar"),
    "cifar100": ImageFormat(3, 32, 100, "cifar"),
    "imagenet": ImageFormat(3, 224, 1000, "imagenet"),
    "digits": ImageFormat(1, 8, 10, "cifar"),
    "fashion-mnist": ImageFormat(1, 28, 10, "cifar"),
}


def resnet(
    block_type: str = "basic",
    architecture: str = "64,3/128,4/256,6/512,3",
    aux_net_architecture: str = "conv128_bn_conv64_bn_gbpl_fc",
    blocks_per_component: int | str | Sequence[int | str] = ("1", "1", "rest"),
    dataset: str = "cifar10",
    n_classes: int | None = None,
    *,
    in_channels: int | None = None,
    stem: Stem | None = None,
    stem_stride: int = 1,
    image_size: int | None = None,
) -> tuple[list[nn.Module], list[nn.Module]]:
    """Builds a ResNet in components, and a head for each component but the last.

    With the same random seed the main nets get the same weights whatever the cut and the heads are.

    Args:
        block_type: "basic" (ResNet-18, ResNet-34) or "bottleneck" (ResNet-50 and above).
        architecture: ``planes,blocks`` of each superblock, between slashes. The default is ResNet-34 with "basic" and
            ResNet-50 with "bottleneck".
        aux_net_architecture: see `build_aux_net`.
        blocks_per_component: how many blocks each component takes, the last one "rest": ``["1", "1", "rest"]`` or
            ``"1,1,rest"``. The input layers together count as the first block, the output layers as the last. Or the
            number of components, which are then cut such that the one with the most floating-point operations has as
            few as possible.
        dataset: what the arguments below are taken from where they are not given. Any name will do if all of
            ``n_classes``, ``in_channels``, ``stem`` and ``image_size`` are given.
        n_classes: how many scores the network and the heads return.
        in_channels: of the images.
        stem: "cifar" begins with a 3x3 convolution, "imagenet" with a 7x7 one of stride 2 and max-pooling.
        stem_stride: of the 3x3 convolution; 2 makes the whole network about four times as cheap.
        image_size: side of the images in pixels. The network takes any size; this one serves to estimate costs for
            ``blocks_per_component`` as a number.

    Returns:
        The K main nets and the K - 1 heads.

    Raises:
        ValueError: if an argument does not fit, with the remedy.
    """
    if block_type not in BLOCK_TYPES:
        raise ValueError(f"block_type is {block_type!r}; expected one of {', '.join(map(repr, BLOCK_TYPES))}.")
    superblocks = parse_architecture(architecture)
    parse_aux_net(aux_net_architecture)  # a bad string is to be found before anything is built
    images = _image_format(
        dataset, {"in_channels": in_channels, "image_size": image_size, "n_classes": n_classes, "stem": stem}
    )
    check_whole("stem_stride", stem_stride)
    if images.stem == "imagenet" and stem_stride != 1:
        raise ValueError(
            f"stem_stride is {stem_stride} with the 'imagenet' stem, which has a stride of its own; leave it out, or "
            "choose stem='cifar'."
        )

    def build() -> list[NamedBlock]:
        return build_blocks(block_type, superblocks, images.in_channels, images.n_classes, images.stem, stem_stride)

    def flops() -> list[int]:
        with torch.device("meta"):
            modules = [block.module.eval() for block in build()]
            sample = torch.empty(1, images.in_channels, images.image_size, images.image_size)
        return forward_flops(modules, sample)

    n_blocks = 2 + sum(superblock.n_blocks for superblock in superblocks)
    sizes = component_sizes(blocks_per_component, n_blocks, flops)
    blocks = build()
    for block in blocks:
        initialise(block.module)
    ends = list(itertools.accumulate(sizes))
    named = [(block.name, block.module) for block in blocks]
    main_nets: list[nn.Module] = [sequential(named[end - n : end]) for end, n in zip(ends, sizes, strict=True)]
    aux_nets: list[nn.Module] = []
    for end in ends[:-1]:
        aux_nets.append(build_aux_net(aux_net_architecture, blocks[end - 1].out_channels, images.n_classes))
        initialise(aux_nets[-1])
    return main_nets, aux_nets


def to_plain(main_nets: Sequence[nn.Module]) -> ResNet:
    """Puts components together to one plain ResNet with torchvision's names. The modules are shared, not copied.

    Args:
        main_nets: all that `resnet` returned, in that order, trained or not; of a model,
            ``[component.main_net for component in model.components]``.

    Raises:
        ValueError: if these are not all the components of a ResNet.
    """
    blocks = [block for net in main_nets for block in net.named_children()]
    rows = [list(row) for _, row in itertools.groupby(blocks[1:-1], key=lambda block: block[0].partition("_")[0])]
    expected = [f"layer{s}_{b}" for s, row in enumerate(rows, start=1) for b in range(len(row))]
    names = [name for name, _ in blocks]
    if names != ["stem", *expected, "head"]:
        raise ValueError(
            f"the blocks of the main nets are {', '.join(names) or 'none'}; expected stem, layer1_0, … and head. Give "
            "all the main nets that resnet() returned, in that order."
        )
    return ResNet(blocks[0][1], [[module for _, module in row] for row in rows], blocks[-1][1])


def load_plain_state_dict(
    main_nets: Sequence[nn.Module], state_dict: Mapping[str, Tensor], strict: bool = True
) -> tuple[list[str], list[str]]:
    """Loads a state dict with torchvision's names, such as its ImageNet weights, into components.

    Nothing is loaded unless everything fits.

    Args:
        main_nets: all that `resnet` returned, in that order.
        state_dict: of a plain ResNet.
        strict: whether keys have to be the same on both sides. If not, those in common are loaded.

    Returns:
        The keys that the network has and the state dict lacks, and the other way round.

    Raises:
        ValueError: if keys or shapes do not fit, naming them.
    """
    plain = to_plain(main_nets)
    own = plain.state_dict()
    # Weights of before 2018 do not count batches, and nothing here uses the count.
    missing = [key for key in own if key not in state_dict and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state_dict if key not in own]
    in_common = [key for key in own if key in state_dict]
    problems = []
    if missing and (strict or not in_common):
        problems.append(f"it lacks {_some(missing)}")
    if unexpected and (strict or not in_common):
        problems.append(f"the network has no {_some(unexpected)}")
    misfits = [key for key in in_common if state_dict[key].shape != own[key].shape]
    if misfits:
        shapes = [f"{key} {tuple(state_dict[key].shape)} in place of {tuple(own[key].shape)}" for key in misfits]
        problems.append(f"shapes differ: {_some(shapes)}")
    if problems:
        raise ValueError(
            f"the state dict does not fit the network: {'; '.join(problems)}. Build the network with the block_type, "
            "architecture, n_classes and stem of the one that was saved; or drop the entries that are not wanted "
            "(fc.weight and fc.bias for other classes) and pass strict=False."
        )
    plain.load_state_dict(state_dict, strict=False)
    return missing, unexpected


def _image_format(dataset: str, given: dict[str, Any]) -> ImageFormat:
    given = {name: value for name, value in given.items() if value is not None}
    lacking = [name for name in ImageFormat._fields if name not in given]
    if dataset not in DATASETS and lacking:
        raise ValueError(
            f"dataset is {dataset!r}, which is not known; expected one of {', '.join(map(repr, DATASETS))}. For any "
            f"other data set give {', '.join(lacking)} too."
        )
    images = DATASETS[dataset]._replace(**given) if dataset in DATASETS else ImageFormat(**given)
    for name in ("in_channels", "image_size", "n_classes"):
        check_whole(name, getattr(images, name))
    if images.stem not in STEMS:
        raise ValueError(f"stem is {images.stem!r}; expected one of {', '.join(map(repr, STEMS))}.")
    return images


def _some(items: Sequence[str], n: int = 4) -> str:
    more = f", … ({len(items)} in all)" if len(items) > n else ""
    return ", ".join(items[:n]) + more
