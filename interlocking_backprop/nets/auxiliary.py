"""Heads for convolutional components: small nets that turn a component's output into class scores.

(Not ``aux.py``: Windows reserves that name, and a repository with it cannot be checked out there.)
"""

from __future__ import annotations

from torch import nn

from interlocking_backprop.nets.grammar import parse_aux_net


def build_aux_net(arch: str, in_channels: int, n_classes: int) -> nn.Sequential:
    """Builds a head for images (N, C, H, W) from its string; it returns class scores (N, n_classes).

    Args:
        arch: layers between underscores, e.g. ``conv128_bn_conv64_bn_gbpl_fc``. ``conv<channels>`` is a 3x3 convolution
            with a ReLU behind it, ``bn`` a batch normalisation, which goes between a convolution and its ReLU, ``gbpl``
            global average pooling and ``fc`` the linear layer to the classes. The string ends in ``gbpl_fc``.
        in_channels: of the component's output.
        n_classes: how many scores the net returns.

    Raises:
        ValueError: if the string does not read, showing where.
    """
    layers: list[nn.Module] = []
    for kind, channels in parse_aux_net(arch):
        if kind == "conv":
            layers += [nn.Conv2d(in_channels, channels, kernel_size=3, padding=1), nn.ReLU()]
            in_channels = channels
        elif kind == "bn":
            if layers and isinstance(layers[-1], nn.ReLU):
                layers.pop()
            layers += [nn.BatchNorm2d(in_channels), nn.ReLU()]
        elif kind == "gbpl":
            layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        else:
            layers.append(nn.Linear(in_channels, n_classes))
    return nn.Sequential(*layers)
