"""Where labels go, so that they lie neither on one another nor on what they name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

# A label further off than this, in points, needs a line to what it names.
LEADER_FROM = 12.0


class Box(NamedTuple):
    """A rectangle, in points.

    Attributes:
        left: where it begins.
        bottom: where it begins.
        right: where it ends.
        top: where it ends.
    """

    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: Box) -> float:
        """The area that two have in common."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(0.0, width) * max(0.0, height)

    def contains(self, x: float, y: float) -> bool:
        return self.left <= x <= self.right and self.bottom <= y <= self.top

    @property
    def area(self) -> float:
        return (self.right - self.left) * (self.top - self.bottom)


def spread_out(wanted: Sequence[float], distance: float, low: float, high: float) -> list[float]:
    """Positions on a line as close as can be to those wanted, in the same order, with a distance between neighbours.

    Args:
        wanted: positions.
        distance: between two neighbours, at least; less where the line is too short for all.
        low: where the line begins.
        high: where it ends.

    Returns:
        A position for each, in the order of ``wanted``.
    """
    if not wanted:
        return []
    distance = min(distance, (high - low) / max(1, len(wanted) - 1))
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    # Taken less their distances, positions have only to rise: what falls is pooled at its mean.
    pools: list[list[float]] = []
    for rank, i in enumerate(order):
        pools.append([wanted[i] - rank * distance])
        while len(pools) > 1 and _mean(pools[-2]) > _mean(pools[-1]):
            last = pools.pop()
            pools[-1] += last
    most = high - (len(wanted) - 1) * distance
    level = [min(max(_mean(pool), low), most) for pool in pools for _ in pool]
    result = [0.0] * len(wanted)
    for rank, i in enumerate(order):
        result[i] = level[rank] + rank * distance
    return result


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def place(
    points: Sequence[tuple[float, float]],
    sizes: Sequence[tuple[float, float]],
    obstacles: Sequence[Box],
    frame: Box,
    sweeps: int = 4,
) -> list[Box]:
    """Finds a place for the label of each point: near it, free of other things, inside the frame.

    Each label in turn takes the best of some hundred places around its point, given where the others are; a few sweeps
    over all labels settle who gives way.

    Args:
        points: what is named.
        sizes: width and height of each label.
        obstacles: what must not be covered; the points themselves too, if they are to be seen.
        frame: in which labels must lie.
        sweeps: how often every label may move.

    Returns:
        The place of each label.
    """
    candidates = [
        [(box, _alone(box, i, points, obstacles, frame)) for box in _candidates(point, size)]
        for i, (point, size) in enumerate(zip(points, sizes, strict=True))
    ]
    crowded = sorted(range(len(points)), key=lambda i: -_neighbours(i, points))
    places: dict[int, Box] = {}
    for _ in range(sweeps):
        before = dict(places)
        for i in crowded:
            others = [box for j, box in places.items() if j != i]
            costs = [cost + _among(box, points[i], others) for box, cost in candidates[i]]
            places[i] = candidates[i][costs.index(min(costs))][0]
        if places == before:
            break
    return [places[i] for i in range(len(points))]


def leader(point: tuple[float, float], box: Box) -> tuple[float, float]:
    """The point of a label's edge that is nearest to what it names."""
    return min(max(point[0], box.left), box.right), min(max(point[1], box.bottom), box.top)


def _candidates(point: tuple[float, float], size: tuple[float, float]) -> list[Box]:
    boxes = []
    for distance in (8.0, 13.0, 20.0, 29.0, 40.0, 53.0, 68.0):
        for turn in range(16):
            angle = 2 * math.pi * turn / 16
            # The edge is at the distance, whatever the label's shape, and near the axes the label slides along.
            across, along = math.cos(angle), math.sin(angle)
            x = point[0] + across * distance + max(-1.0, min(1.0, 1.5 * across)) * size[0] / 2
            y = point[1] + along * distance + max(-1.0, min(1.0, 1.5 * along)) * size[1] / 2
            boxes.append(Box(x - size[0] / 2, y - size[1] / 2, x + size[0] / 2, y + size[1] / 2))
    return boxes


def _alone(box: Box, index: int, points: Sequence[tuple[float, float]], obstacles: Sequence[Box], frame: Box) -> float:
    """How bad a place is for the label of a point, wherever the other labels are."""
    point = points[index]
    distance = math.dist(point, leader(point, box))
    outside = box.area - box.overlap(frame)
    covered = sum(box.overlap(other) for other in obstacles)
    # Near the point its own mark is in the way, which does not matter.
    spots = [spot for spot in _leader_spots(point, box) if math.dist(spot, point) > 8]
    crossed = sum(any(other.contains(*spot) for other in obstacles) for spot in spots)
    # Whoever reads a label takes it for that of the nearest mark.
    nearest = min((math.dist(p, leader(p, box)) for i, p in enumerate(points) if i != index), default=math.inf)
    misread = max(0.0, distance + 4 - nearest)
    # All else being equal, a label stands to the right of its point.
    aside = (0.0 if box.left >= point[0] else 1.0) + abs((box.bottom + box.top) / 2 - point[1]) / 10
    return 20 * outside + 6 * covered + 25 * crossed + 3 * misread + distance + aside


def _among(box: Box, point: tuple[float, float], others: Sequence[Box]) -> float:
    """How much a label at a place is in the way of other labels."""
    covered = sum(box.overlap(other) for other in others)
    crossed = sum(any(other.contains(*spot) for other in others) for spot in _leader_spots(point, box))
    return 10 * covered + 25 * crossed


def _leader_spots(point: tuple[float, float], box: Box) -> list[tuple[float, float]]:
    """Points on the line to a label that is so far off that it has one."""
    end = leader(point, box)
    if math.dist(point, end) <= LEADER_FROM:
        return []
    return [(point[0] + (end[0] - point[0]) * n / 8, point[1] + (end[1] - point[1]) * n / 8) for n in range(1, 8)]


def _neighbours(index: int, points: Sequence[tuple[float, float]]) -> int:
    return sum(math.dist(points[index], other) < 40 for other in points)
