"""A schedule as a picture for notebooks: a box for every action that takes time, and a bounded size."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from xml.etree import ElementTree

import pytest

import interlocking_backprop as ib
from interlocking_backprop.scheme.streams import Workload
from tests.schedule.orders import unchecked

SVG = "{http://www.w3.org/2000/svg}"


def boxes(schedule: ib.Schedule) -> list[ElementTree.Element]:
    svg = ElementTree.fromstring(schedule._repr_html_()).find(f"{SVG}svg")
    return [rect for rect in svg.iter(f"{SVG}rect") if rect.find(f"{SVG}title") is not None]


def timed_actions(schedule: ib.Schedule) -> Counter[str]:
    return Counter(str(a) for _, a in schedule if str(a.kind) in "FIWB")


@pytest.mark.parametrize("scheme", [ib.pairwise(4), ib.nwise(4, 3, "sum"), ib.e2e(4)])
def test_on_one_device_every_action_has_a_box(scheme):
    schedule = ib.depth_first(Workload.of(scheme), 2)
    found = boxes(schedule)
    assert Counter(box.findtext(f"{SVG}title") for box in found) == timed_actions(schedule)
    spans = sorted((float(box.get("x")), float(box.get("x")) + float(box.get("width"))) for box in found)
    # One after another, without a gap, from the left end to the right end.
    assert all(a[1] == pytest.approx(b[0], abs=0.11) for a, b in pairwise(spans))
    assert spans[-1][1] - spans[0][0] == pytest.approx(760, abs=0.1)
    # Each in the row of its component.
    assert all(float(box.get("y")) == int(box.findtext(f"{SVG}title")[0]) * 20 + 2 for box in found)


def test_on_ranks_one_step_is_in_full_colours_and_the_utilization_is_shown():
    schedule = ib.list_schedule(Workload.of(ib.pairwise(4)), 2, (0, 1, 1, 2))
    html = schedule._repr_html_()
    full = Counter(box.findtext(f"{SVG}title") for box in boxes(schedule) if box.get("fill-opacity") == "1.0")
    assert full == timed_actions(schedule)
    assert "component 2 (rank 1)" in html
    simulation = ib.simulate(schedule, ib.Costs.uniform(4, split_weight=1.0))
    assert [f">{100 * share:.0f} %<" in html for share in simulation.utilization] == [True] * 3


def test_no_two_boxes_of_a_rank_overlap():
    schedule = ib.list_schedule(Workload.of(ib.nwise(5, 3)), 3, (0, 0, 1, 1, 2))
    for rank in range(3):
        spans = sorted(
            (float(box.get("x")), float(box.get("x")) + float(box.get("width")))
            for box in boxes(schedule)
            if schedule.placement[int(box.findtext(f"{SVG}title")[0])] == rank
        )
        assert all(a[1] <= b[0] + 0.11 for a, b in pairwise(spans))


def test_late_passes_bear_the_age_of_their_batch():
    late = ib.list_schedule(Workload.of(ib.e2e(4).delay([1, 1, 1, 0])), 2, range(4))
    html = late._repr_html_()
    assert ">W0~1</text>" in html
    assert "~2  for the batch two steps before" in html
    full = Counter(box.findtext(f"{SVG}title") for box in boxes(late) if box.get("fill-opacity") == "1.0")
    assert full == timed_actions(late)
    assert "~" not in ib.list_schedule(Workload.of(ib.e2e(4)), 2, range(4))._repr_html_()
    mixture = 0.5 * ib.pairwise(8) + 0.5 * ib.e2e(8).delay([3, 2, 2, 2, 1, 1, 1, 0])
    assert ">~1</text>" in ib.list_schedule(Workload.of(mixture), 2, range(8))._repr_html_()  # where W0.1~1 is too wide


def test_an_evaluation_has_a_picture():
    assert len(boxes(ib.depth_first(Workload.evaluation([True] * 3)))) == 3


def test_an_impossible_schedule_is_shown_with_its_fault_marked():
    schedule = ib.depth_first(Workload.of(ib.local(2)))
    html = unchecked(schedule, "0F0,0L0,0U,0W0,1F0,1L0,1W0,1U")._repr_html_()
    assert html.startswith("<pre>the schedule cannot run: 0U waits for ever for 0W0")
    assert "&gt;0U&lt;" in html
    assert "rank 0 lacks 1U" in unchecked(schedule, "0F0,0L0,0W0,0U,1F0,1L0,1W0")._repr_html_()


def test_what_is_too_large_for_a_picture_is_a_line():
    large = ib.depth_first(Workload.of(ib.deep_supervision(40)), 40)
    assert len(large._repr_html_()) < 300
    assert "too many for a picture here" in large._repr_html_()
    largest = ib.list_schedule(Workload.of(ib.nwise(16, 3)), 10, range(16), rules=ib.schedule.rules.RULES[:1])
    assert sum(map(len, largest.actions)) > 1200
    assert len(largest._repr_html_()) < 1_000_000
