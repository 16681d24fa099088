"""Boxes lie in the image; cutting out and resizing keeps what is in them."""

from __future__ import annotations

import math

import pytest
import torch

from interlocking_backprop.data.framing import CentreFrame, RandomFrame


@pytest.mark.parametrize(("height", "width"), [(100, 100), (37, 50), (500, 20), (1, 1), (2, 300)])
def test_random_boxes_lie_in_the_image(height, width):
    torch.manual_seed(0)
    frame = RandomFrame(64)
    for _ in range(200):
        box = frame.box(height, width)
        assert box.height >= 1
        assert box.width >= 1
        assert 0 <= box.top <= height - box.height
        assert 0 <= box.left <= width - box.width


def test_random_boxes_have_the_asked_for_areas_and_ratios():
    torch.manual_seed(0)
    boxes = [RandomFrame(64).box(400, 400) for _ in range(500)]
    areas = [box.height * box.width / 400**2 for box in boxes]
    assert min(areas) > 0.07
    assert max(areas) > 0.9
    assert 0.35 < sum(areas) / len(areas) < 0.6
    ratios = [math.log(box.width / box.height) for box in boxes]
    assert max(map(abs, ratios)) < math.log(4 / 3) + 0.02
    assert abs(sum(ratios) / len(ratios)) < 0.03


def test_centre_of_a_wide_image():
    image = torch.zeros(3, 20, 60, dtype=torch.uint8)
    image[:, :, 20:40] = 200
    assert torch.equal(CentreFrame(20)(image), torch.full((3, 20, 20), 200, dtype=torch.uint8))
    assert torch.equal(CentreFrame(10)(image), torch.full((3, 10, 10), 200, dtype=torch.uint8))


def test_centre_with_a_share():
    image = torch.zeros(1, 16, 16, dtype=torch.uint8)
    image[:, 1:15, 1:15] = 100
    assert torch.equal(CentreFrame(14, share=7 / 8)(image), torch.full((1, 14, 14), 100, dtype=torch.uint8))


def test_resizing_is_antialiased():
    stripes = torch.zeros(1, 64, 64, dtype=torch.uint8)
    stripes[:, :, ::2] = 200
    middle = CentreFrame(16)(stripes)[:, 2:-2, 2:-2].float()
    assert (middle - 100).abs().max() < 12


def test_enlarging():
    assert CentreFrame(70)(torch.zeros(3, 5, 9, dtype=torch.uint8)).shape == (3, 70, 70)
