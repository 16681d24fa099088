"""Timelines as pictures."""

from __future__ import annotations

import pytest

import interlocking_backprop as ib
from interlocking_backprop.schedule.placement import balanced_placement
from interlocking_backprop.schedule.schedule import Schedule


def scheduled(scheme: ib.Scheme, m: int, ranks: int | None = None) -> Schedule:
    k = scheme.n_components
    return ib.list_schedule(ib.Workload.of(scheme), m, balanced_placement(k, ranks or k))


def labels(figure) -> list[str]:
    return [t.get_text() for t in figure.axes[0].texts if t.get_text()]


def ticks(axis) -> list[str]:
    return [t.get_text() for t in axis.get_ticklabels()]


def test_a_picture_says_what_it_shows(tmp_path):
    figure = ib.draw(scheduled(ib.pairwise(3), 2), tmp_path / "timeline.png")
    axes = figure.axes[0]
    assert axes.get_title(loc="left") == (
        "pairwise, K = 3, M = 2   ·   step time 8 units (4 per micro-batch)   ·   utilization 83 %"
    )
    assert axes.get_xlabel() == "time (units)"
    assert axes.get_xlim() == (0, 3 * 8)
    assert ticks(axes.yaxis) == ["rank 0", "rank 1", "rank 2"]
    legend = [t.get_text() for t in figure.legends[0].get_texts()]
    assert legend == [
        "F  forward",
        "I  input gradient",
        "W  weight gradient",
        "idle",
        "one step; paler: those around it",
    ]
    assert (tmp_path / "timeline.png").read_bytes().startswith(b"\x89PNG")


def test_the_boxes_are_the_actions_of_the_steady_state():
    """Rank 0: F0 F1, two units idle, W0 W1; three steps are in view."""
    figure = ib.draw(scheduled(ib.pairwise(3), 2), steps=3)
    extents = [path.get_extents() for c in figure.axes[0].collections for path in c.get_paths()]
    first_row = [(float(box.x0), float(box.x1)) for box in extents if box.y0 == -0.4]
    assert first_row[0] == (0, 24)  # the row itself
    assert first_row[1:5] == [(0, 1), (1, 2), (4, 6), (6, 8)]
    assert [(a - 8, b - 8) for a, b in first_row[5:9]] == first_row[1:5]
    assert len(first_row) == 1 + 3 * 4
    assert all(0 <= box.x0 < box.x1 <= 24 for box in extents)


def test_actions_are_named_where_there_is_room():
    found = labels(ib.draw(scheduled(ib.pairwise(3), 2)))
    assert "one step: 8 units" in found
    assert {"F0", "F1", "I0", "I1", "W0", "W1"} <= set(found)
    crowded = labels(ib.draw(scheduled(ib.local(2), 1), steps=60))
    assert crowded == ["one step: 3 units"]


def test_late_passes_bear_the_age_of_their_batch():
    """In two lines where one is too wide."""
    figure = ib.draw(scheduled(ib.e2e(4).delay([1, 1, 1, 0]), 2))
    assert {"F0", "W0~1", "I1~1", "I0", "W0"} <= set(labels(figure))
    assert figure.legends[0].get_texts()[-1].get_text() == "~2  for the batch two steps before"
    mixture = 0.5 * ib.pairwise(8) + 0.5 * ib.e2e(8).delay([3, 2, 2, 2, 1, 1, 1, 0])
    found = labels(ib.draw(scheduled(mixture, 2)))
    assert "W0.1~2" in found
    assert "W0.1\n~2" in found
    boxes = [text for text in found if text[0] in "FIWB"]
    assert len(boxes) > 200


def test_without_late_passes_the_legend_knows_no_ages():
    legend = ib.draw(scheduled(ib.e2e(4), 2)).legends[0]
    assert not any("~" in text.get_text() for text in legend.get_texts())


def test_costs_in_seconds_are_shown_in_milliseconds():
    seconds = ib.Costs([ib.ComponentCosts(0.001, 0, 0.001, 0.002, 0.002, split_weight=0.001)] * 4)
    axes = ib.draw(scheduled(ib.pairwise(4), 2, ranks=2), costs=seconds, in_seconds=True, steps=1).axes[0]
    assert axes.get_xlabel() == "time (ms)"
    assert axes.get_xlim() == pytest.approx((0, 14))
    assert "step time 14 ms (7 per micro-batch)" in axes.get_title(loc="left")
    assert ticks(axes.yaxis) == ["rank 0: 0-1", "rank 1: 2-3"]


def test_the_ending_of_the_path_says_as_what_it_is_saved(tmp_path):
    costs = ib.Costs.uniform(2, forward=2.0)
    figure = ib.draw(scheduled(ib.local(2), 1), tmp_path / "a.svg", costs)
    assert "step time 4 units" in figure.axes[0].get_title(loc="left")
    assert "<svg" in (tmp_path / "a.svg").read_text()
    assert list(tmp_path.iterdir()) == [tmp_path / "a.svg"]


def test_what_cannot_be_drawn_is_an_error(tmp_path):
    schedule = scheduled(ib.local(2), 1)
    with pytest.raises(ValueError, match="nothing in the schedule takes time; pass costs"):
        ib.draw(schedule, costs=ib.Costs([ib.ComponentCosts(0, 0, 0, 0, 0)] * 2))
    with pytest.raises(ValueError, match="steps is 0; expected a whole number of at least 1"):
        ib.draw(schedule, steps=0)
    with pytest.raises(ValueError, match="'xyz' is not supported"):
        ib.draw(schedule, tmp_path / "a.xyz")
    assert not any(tmp_path.iterdir())
