"""The plain net against torchvision's names and shapes, written down by rule and by their known totals."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from interlocking_backprop.nets.grammar import parse_architecture
from interlocking_backprop.nets.resnet import BasicBlock, Bottleneck, build_blocks, initialise
from interlocking_backprop.resnet_builder import resnet, to_plain

Shapes = dict[str, tuple[int, ...]]

MODELS = {
    "resnet18": ("basic", (2, 2, 2, 2)),
    "resnet34": ("basic", (3, 4, 6, 3)),
    "resnet50": ("bottleneck", (3, 4, 6, 3)),
}


def bn_shapes(name: str, channels: int) -> Shapes:
    shapes: Shapes = {f"{name}.{entry}": (channels,) for entry in ("weight", "bias", "running_mean", "running_var")}
    return shapes | {f"{name}.num_batches_tracked": ()}


def torchvision_shapes(name: str) -> Shapes:
    """The state dict of torchvision's model, in its order."""
    block_type, counts = MODELS[name]
    shapes: Shapes = {"conv1.weight": (64, 3, 7, 7)} | bn_shapes("bn1", 64)
    before = 64
    for layer, count in enumerate(counts, start=1):
        planes = 64 * 2 ** (layer - 1)
        out = planes if block_type == "basic" else 4 * planes
        for b in range(count):
            if block_type == "basic":
                convs = [(planes, before, 3), (planes, planes, 3)]
            else:
                convs = [(planes, before, 1), (planes, planes, 3), (out, planes, 1)]
            prefix = f"layer{layer}.{b}"
            for i, (o, c, size) in enumerate(convs, start=1):
                shapes |= {f"{prefix}.conv{i}.weight": (o, c, size, size)} | bn_shapes(f"{prefix}.bn{i}", o)
            if b == 0 and before != out:
                shapes |= {f"{prefix}.downsample.0.weight": (out, before, 1, 1)}
                shapes |= bn_shapes(f"{prefix}.downsample.1", out)
            before = out
    return shapes | {"fc.weight": (1000, before), "fc.bias": (1000,)}


def plain(name: str) -> nn.Module:
    block_type, counts = MODELS[name]
    architecture = "/".join(f"{64 * 2**i},{count}" for i, count in enumerate(counts))
    with torch.device("meta"):
        return to_plain(resnet(block_type, architecture, dataset="imagenet")[0])


@pytest.mark.parametrize(
    ("name", "n_values", "n_parameters", "n_entries"),
    [
        ("resnet18", 11_689_512, 62, 122),
        ("resnet34", 21_797_672, 110, 218),
        ("resnet50", 25_557_032, 161, 320),
    ],
)
def test_names_shapes_and_order_are_those_of_torchvision(name, n_values, n_parameters, n_entries):
    net = plain(name)
    shapes = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    assert sum(p.numel() for p in net.parameters()) == n_values
    assert len(list(net.parameters())) == n_parameters
    assert len(shapes) == n_entries
    assert list(shapes.items()) == list(torchvision_shapes(name).items())


@pytest.mark.parametrize(
    ("name", "key", "shape"),
    [
        ("resnet18", "layer1.0.conv1.weight", (64, 64, 3, 3)),
        ("resnet18", "layer2.0.downsample.0.weight", (128, 64, 1, 1)),
        ("resnet18", "layer4.1.bn2.running_var", (512,)),
        ("resnet18", "fc.weight", (1000, 512)),
        ("resnet34", "layer3.5.conv2.weight", (256, 256, 3, 3)),
        ("resnet50", "conv1.weight", (64, 3, 7, 7)),
        ("resnet50", "layer1.0.downsample.1.bias", (256,)),
        ("resnet50", "layer2.0.conv1.weight", (128, 256, 1, 1)),
        ("resnet50", "layer4.2.conv3.weight", (2048, 512, 1, 1)),
        ("resnet50", "fc.weight", (1000, 2048)),
    ],
)
def test_single_entries(name, key, shape):
    assert plain(name).state_dict()[key].shape == shape


def test_attributes_are_those_of_torchvision():
    names = ["conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4", "avgpool", "fc"]
    assert [name for name, _ in plain("resnet18").named_children()] == names
    basic = [name for name, _ in BasicBlock(4, 8, 2).named_children()]
    assert basic == ["conv1", "bn1", "relu", "conv2", "bn2", "downsample"]
    bottleneck = [name for name, _ in Bottleneck(4, 8, 2).named_children()]
    assert bottleneck == ["conv1", "bn1", "conv2", "bn2", "conv3", "bn3", "relu", "downsample"]


def test_bottleneck_has_its_stride_in_the_3x3_convolution():
    block = Bottleneck(4, 8, stride=2)
    assert [block.conv1.stride, block.conv2.stride, block.conv3.stride] == [(1, 1), (2, 2), (1, 1)]


@pytest.mark.parametrize("block_type", ["basic", "bottleneck"])
@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_no_block_changes_its_input(block_type, stem):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 16, 16)
    for block in build_blocks(block_type, parse_architecture("4,2/8,2"), 3, 5, stem):
        before = x.clone()
        output = block.module(x)
        assert torch.equal(x, before), block.name
        x = output


def test_resolution_and_width_along_the_row():
    x = torch.randn(1, 3, 32, 32)
    shapes = {}
    for name, module, out_channels in build_blocks("bottleneck", parse_architecture("4,1/8,2/16,1"), 3, 5, "cifar"):
        x = module.eval()(x)
        shapes[name] = tuple(x.shape[1:])
        assert x.shape[1] == out_channels
    assert shapes == {
        "stem": (4, 32, 32),
        "layer1_0": (16, 32, 32),
        "layer2_0": (32, 16, 16),
        "layer2_1": (32, 16, 16),
        "layer3_0": (64, 8, 8),
        "head": (5,),
    }


@pytest.mark.parametrize(("stem", "stride", "size"), [("cifar", 1, 32), ("cifar", 2, 16), ("imagenet", 1, 8)])
def test_resolution_behind_the_stem(stem, stride, size):
    module = build_blocks("basic", parse_architecture("4,1"), 1, 5, stem, stride)[0].module
    assert module(torch.randn(2, 1, 32, 32)).shape == (2, 4, size, size)


def test_initialisation():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(64, 128, kernel_size=3), nn.BatchNorm2d(128))
    nn.init.uniform_(module[1].weight)
    initialise(module)
    assert module[0].weight.std().item() == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.02)
    assert module[0].weight.mean().item() == pytest.approx(0, abs=1e-3)
    assert torch.equal(module[1].weight, torch.ones(128))
    assert torch.equal(module[1].bias, torch.zeros(128))
