"""Time for an order that stays the same, with waits for earlier steps; the step time that it comes to."""

from __future__ import annotations

import pytest

from interlocking_backprop.schedule.clock import Clock, Entry, place, steady_step_time


def clock(*entries: tuple, ranks: int = 2) -> Clock:
    return Clock([Entry(n, *entry) for n, entry in enumerate(entries)], ranks)


def test_an_action_waits_for_another_rank():
    found = clock((0, 2.0, []), (1, 1.0, [(place(0, 2), 0.5)]))
    found.step()
    assert (found.begins, found.now) == ([0.0, 2.5], [2.0, 3.5])
    found.step()
    assert (found.begins, found.now) == ([2.0, 4.5], [4.0, 5.5])


@pytest.mark.parametrize(("steps_back", "step_time"), [(1, 8), (2, 4), (4, 2), (8, 2)])
def test_a_way_round_that_takes_several_steps(steps_back, step_time):
    """Rank 0 (2), rank 1 (1), and 5 on the way back: 8 in so many steps, or the 2 of rank 0."""
    found = clock((0, 2.0, [(place(1, 2, steps_back=steps_back), 5.0)]), (1, 1.0, [(place(0, 2), 0.0)]))
    assert steady_step_time(found, limit=2.0) == step_time


def test_a_rank_that_is_slower_than_those_below_it_sets_the_pace():
    found = clock((0, 2.0, []), (1, 3.0, [(place(0, 2), 0.0)]))
    assert steady_step_time(found, limit=3.0) == 3
    found = clock((0, 2.0, []), (1, 3.0, [(place(0, 2), 0.0)]))
    assert steady_step_time(found, limit=0.0) == 3  # without the limit in hand, from the mean of many steps


def test_messages_share_a_link():
    """Two messages of 3 leave at 1 and 2: they are there at 4 and 7."""
    found = clock(
        (0, 1.0, [], 0, 3.0),
        (0, 1.0, [], 0, 3.0),
        (1, 0.0, [(place(0, 4, message=True), 0.0)]),
        (1, 0.0, [(place(1, 4, message=True), 0.5)]),
    )
    found.step()
    assert found.begins == [0, 1, 4, 7.5]
