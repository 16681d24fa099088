from __future__ import annotations

import pytest
import torch
from torch import nn

from interlocking_backprop.nets.auxiliary import build_aux_net

POOL = [nn.AdaptiveAvgPool2d, nn.Flatten, nn.Linear]


@pytest.mark.parametrize(
    ("arch", "expected"),
    [
        ("gbpl_fc", POOL),
        ("conv32_gbpl_fc", [nn.Conv2d, nn.ReLU, *POOL]),
        ("conv32_bn_gbpl_fc", [nn.Conv2d, nn.BatchNorm2d, nn.ReLU, *POOL]),
        ("conv32_conv16_bn_gbpl_fc", [nn.Conv2d, nn.ReLU, nn.Conv2d, nn.BatchNorm2d, nn.ReLU, *POOL]),
        ("bn_gbpl_fc", [nn.BatchNorm2d, nn.ReLU, *POOL]),
    ],
)
def test_layers_in_order(arch, expected):
    net = build_aux_net(arch=arch, in_channels=3, n_classes=10)
    assert [type(layer) for layer in net] == expected
    assert net(torch.randn(5, 3, 16, 16)).shape == (5, 10)


def test_shapes_of_the_parameters():
    net = build_aux_net("conv32_bn_gbpl_fc", in_channels=3, n_classes=10)
    shapes = [tuple(p.shape) for p in net.parameters()]
    assert shapes == [(32, 3, 3, 3), (32,), (32,), (32,), (10, 32), (10,)]


def test_input_is_left_as_it_is():
    x = torch.randn(2, 4, 8, 8)
    before = x.clone()
    build_aux_net("bn_conv4_gbpl_fc", in_channels=4, n_classes=3)(x)
    assert torch.equal(x, before)


def test_bad_string_is_an_error():
    with pytest.raises(ValueError, match="auxiliary net 'conv4_fc'"):
        build_aux_net("conv4_fc", in_channels=4, n_classes=3)
