"""Which part of an image the network sees: a box, cut out and resized to a square.

Images of a folder differ in size and shape, so they are framed one by one, as uint8 tensors, before they are a batch.
Resizing is antialiased, in training as in evaluation: otherwise the network would be tested on smoother images than
those it was trained on. Legend: C channels, H height, W width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Box(NamedTuple):
    """A rectangle of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class CentreFrame:
    """The square in the middle of the image.

    Attributes:
        size: side of the result.
        share: side of the square, as a share of the image's shorter side.
    """

    size: int
    share: float = 1.0

    def __call__(self, image: Tensor) -> Tensor:  # (C, H, W) -> (C, size, size)
        height, width = image.shape[-2:]
        side = max(round(min(height, width) * self.share), 1)
        return _cut(image, Box((height - side) // 2, (width - side) // 2, side, side), self.size)


@dataclass(frozen=True)
class RandomFrame:
    """A random part of the image, of random size and shape, as is usual for photographs (Szegedy et al., CVPR 2015).

    Draws from torch's global generator, which the caller seeds.

    Attributes:
        size: side of the result.
        least_area: smallest share of the image's area.
        greatest_ratio: of width to height, or height to width, of the part.
    """

    size: int
    least_area: float = 0.08
    greatest_ratio: float = 4 / 3

    def __call__(self, image: Tensor) -> Tensor:  # (C, H, W) -> (C, size, size)
        height, width = image.shape[-2:]
        return _cut(image, self.box(height, width), self.size)

    def box(self, height: int, width: int) -> Box:
        """Draws the part: the first of ten candidates that lies in the image, or else the greatest square."""
        x, y = torch.rand(2).tolist()
        for u, v in torch.rand(10, 2).tolist():
            area = height * width * (self.least_area + (1 - self.least_area) * u)
            ratio = math.exp(math.log(self.greatest_ratio) * (2 * v - 1))
            h, w = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
            if 0 < h <= height and 0 < w <= width:
                break
        else:
            h = w = min(height, width)
        return Box(int(y * (height - h + 1)), int(x * (width - w + 1)), h, w)


def _cut(image: Tensor, box: Box, size: int) -> Tensor:
    part = image[:, box.top : box.top + box.height, box.left : box.left + box.width]
    if part.shape[-2:] == (size, size):
        return part
    return F.interpolate(part[None], size=(size, size), mode="bilinear", antialias=True, align_corners=False)[0]
