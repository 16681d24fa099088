"""Profiles of steps: what is timed, in which order, and how phases count."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch

from interlocking_backprop.planning.step_profile import fewest_microbatches, profile_steps, step_peak

CPU = torch.device("cpu")


class Steps:
    """Steps that note their names and make tensors of so many bytes."""

    def __init__(self):
        self.done: list[str] = []

    def phase(self, name, n_bytes=0):
        @contextmanager
        def prepared():
            self.done.append(f"prepare {name}")
            yield lambda: (self.done.append(name), torch.zeros(n_bytes, dtype=torch.uint8))

        return prepared


def test_all_take_turns_and_each_step_is_prepared():
    steps = Steps()
    trainings = {"a": [(steps.phase("a"), 1.0)], "b": [(steps.phase("b0"), 0.5), (steps.phase("b1"), 0.5)]}
    found = profile_steps(trainings, 2, CPU)
    one_round = ["prepare a", "a", "prepare b0", "b0", "prepare b1", "b1"]
    assert steps.done[-18:] == 3 * one_round  # a warm-up and two that count
    assert {name: profile.n_steps for name, profile in found.items()} == {"a": 2, "b": 2}


def test_phases_count_by_their_share(monkeypatch):
    seconds = iter([9.0, 9.0, 1.0, 10.0, 3.0, 10.0])  # the first of each phase is the warm-up
    monkeypatch.setattr(
        "interlocking_backprop.planning.step_profile.timed", lambda step, device: (step(), next(seconds))
    )
    steps = Steps()
    found = profile_steps({"a": [(steps.phase("a0", 100), 0.25), (steps.phase("a1", 300), 0.75)]}, 2, CPU)["a"]
    assert found.step_seconds == 0.25 * 2.0 + 0.75 * 10.0
    assert found.step_std == pytest.approx((0.25 * 2.0) ** 0.5)  # the variance of 1 and 3 is 2
    assert found.peak_bytes == 300


def test_what_only_the_first_step_makes_is_no_peak():
    state = []

    @contextmanager
    def prepared():
        yield lambda: state.append(torch.zeros(1000 if not state else 10, dtype=torch.uint8))

    assert step_peak([(prepared, 1.0)], CPU) == 10


@pytest.mark.parametrize(("at_least", "bound"), [(1, 8), (1, 100), (1, 13), (3, 30), (2, 5)])
def test_the_fewest_micro_batches_that_fit(at_least, bound):
    def peak(m):
        return 100 / m

    fitting = [m for m in range(at_least, 21) if peak(m) <= bound]
    assert fewest_microbatches(peak, bound, at_least, 20) == fitting[0]


def test_no_number_of_micro_batches_may_be_enough():
    asked = []
    assert fewest_microbatches(lambda m: asked.append(m) or 100, 50, 1, 20) is None
    assert asked == [1, 2, 4, 8, 16, 20]
