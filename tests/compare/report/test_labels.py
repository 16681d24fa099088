import itertools
import random

import pytest

from interlocking_backprop.compare.report.figures.labels import Box, place, spread_out


@pytest.mark.parametrize("seed", range(5))
def test_labels_of_a_crowd_lie_on_nothing(seed):
    chance = random.Random(seed)
    frame = Box(0, 0, 340, 240)
    points = [(chance.uniform(90, 250), chance.uniform(60, 180)) for _ in range(9)]
    sizes = [(chance.uniform(30, 90), 12.0) for _ in points]
    marks = [Box(x - 5, y - 5, x + 5, y + 5) for x, y in points]
    boxes = place(points, sizes, marks, frame)
    assert [(b.right - b.left, b.top - b.bottom) for b in boxes] == [pytest.approx(size) for size in sizes]
    assert all(a.overlap(b) == 0 for a, b in itertools.combinations(boxes, 2))
    assert all(box.overlap(mark) == 0 for box in boxes for mark in marks)
    assert all(box.overlap(frame) == pytest.approx(box.area) for box in boxes)


def test_a_label_alone_is_at_its_point():
    (box,) = place([(50.0, 50.0)], [(20.0, 10.0)], [], Box(0, 0, 100, 100))
    assert 0 < box.left - 50 <= 10
    assert box.bottom < 50 < box.top


def test_spread_out_moves_only_what_is_too_close():
    assert spread_out([10, 50, 90], 12, 0, 100) == [10, 50, 90]
    assert spread_out([50, 50], 10, 0, 100) == [45, 55]
    assert spread_out([90, 20, 22], 10, 0, 100) == [90, 16, 26]


def test_spread_out_stays_within_and_keeps_the_order():
    found = spread_out([99, 98, 97, 100], 10, 0, 100)
    assert found == [90, 80, 70, 100]
    assert spread_out([0, 0, 0], 80, 0, 100) == [0, 50, 100]
    assert spread_out([], 10, 0, 100) == []
