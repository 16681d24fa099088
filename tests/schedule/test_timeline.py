"""Timelines as text."""

from __future__ import annotations

import pytest

import interlocking_backprop as ib
from tests.schedule.test_draw import scheduled


def costs(k: int, **more: float) -> ib.Costs:
    return ib.Costs.uniform(k, split_weight=1.0, **more)


def text(schedule: ib.Schedule, own_costs: ib.Costs, width: int = 100, steps: int = 2) -> list[str]:
    return ib.format_timeline(ib.simulate(schedule, own_costs, timeline_steps=steps), width).splitlines()


def test_a_timeline_as_text():
    """Steps in capital and small letters, idle time as dots, the axis above."""
    assert text(scheduled(ib.pairwise(3), 1), costs(3), width=60) == [
        "        0                   5                   10",
        "rank 0  F0- ........W0----- f0- ........w0-----",
        "rank 1      F0- I0- ....W0----- f0- i0- ....w0-----",
        "rank 2          F0- I0- W0- ........f0- i0- w0-",
    ]


def test_components_that_share_a_rank_are_named():
    assert text(scheduled(ib.local(4), 1, ranks=2), costs(4), width=60, steps=1) == [
        "        0           2           4           6           8",
        "rank 0  0F0-- 1F0-- 1W0-------- 0W0--------",
        "rank 1              2F0-- 3F0-- 3W0-------- 2W0--------",
    ]


def test_names_give_way_where_there_is_no_room():
    lines = text(scheduled(ib.e2e(2), 4), costs(2, loss=0.1, update=0.1), width=40)
    assert all(len(line) <= 40 for line in lines)
    assert lines[1].startswith("rank 0  ")


def test_a_line_is_never_wider_than_asked_for():
    schedule = scheduled(ib.nwise(8, 3), 2)
    for width in (40, 77, 100, 200):
        lines = text(schedule, costs(8), width)
        assert len(lines) == 9
        assert max(map(len, lines)) <= width


def test_a_timeline_needs_something_to_show_and_room_for_it():
    schedule = scheduled(ib.local(2), 1)
    with pytest.raises(ValueError, match="has no timeline; call simulate"):
        ib.format_timeline(ib.simulate(schedule, costs(2), timeline_steps=0))
    with pytest.raises(ValueError, match="width is 10; expected at least 18"):
        ib.format_timeline(ib.simulate(schedule, costs(2)), width=10)
