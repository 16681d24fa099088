"""What is measured on one device for each scheme and baseline, and what is modelled for a device per component."""

from __future__ import annotations

import dataclasses
import math

import pytest

import interlocking_backprop as ib
from interlocking_backprop.compare.step_costs import estimate_schemes, network_costs, phases_of, profile_schemes
from interlocking_backprop.scheme.streams import Workload
from interlocking_backprop.training.trainer import Trainer
from tests.compare.small import train_config

SCHEMES = ("e2e", "local", "pairwise", "local:1,e2e")


def placed(scheme, **changes):
    trainer = Trainer(train_config(scheme=scheme, components=4, architecture="4,4", epochs=4, threads=1, **changes))
    trainer.place()
    return trainer


@pytest.fixture(scope="module")
def trainers():
    return {scheme: placed(scheme) for scheme in SCHEMES}


@pytest.fixture(scope="module")
def measured(trainers):
    return {p.name: p for p in profile_schemes(trainers, 2)}


@pytest.fixture(scope="module")
def costs_of():
    return network_costs(placed("e2e", heads="all"), latency=1e-5, bandwidth=1e9, repeats=1)


@pytest.fixture(scope="module")
def modelled(trainers, costs_of):
    return {(e.name, e.microbatches): e for e in estimate_schemes(trainers, costs_of, [1, 2, 4, 32])}


def test_passes_are_those_of_the_schedule(measured):
    assert measured["e2e"].passes == {"F": 4, "L": 1, "W": 1, "B": 3}
    assert measured["local"].passes == {"F": 4, "L": 4, "W": 4}
    assert measured["pairwise"].passes == {"F": 4, "L": 3, "I": 2, "W": 3, "B": 1}
    assert measured["e2e, checkpointed"].passes == {"F": 8, "L": 1, "W": 1, "B": 3}


def test_a_scheme_that_changes_costs_the_mean_over_its_phases(trainers, measured):
    assert phases_of(trainers["local:1,e2e"]) == [(ib.local(4), 0.25), (ib.e2e(4), 0.75)]
    # Heads that it needs in one phase are trained in the other too.
    assert measured["local:1,e2e"].passes == {"F": 4, "L": 4, "W": 0.25 * 4 + 0.75, "B": 0.75 * 3}


def test_phases_that_a_run_does_not_come_to_do_not_count():
    trainer = placed("local:1,pairwise:3,e2e", max_steps=50)  # of 30 steps an epoch
    assert phases_of(trainer) == [(ib.local(4), 30 / 50), (ib.pairwise(4), 20 / 50)]


def test_memory_of_baselines(measured):
    assert measured["local"].peak_bytes < measured["pairwise"].peak_bytes < measured["e2e"].peak_bytes
    assert measured["e2e, checkpointed"].peak_bytes < measured["e2e"].peak_bytes
    accumulating = [p for name, p in measured.items() if name.endswith("micro-batches")]
    assert accumulating
    for p in accumulating:
        assert p.name == f"e2e, {p.microbatches} micro-batches"
        assert p.passes == {"F": 4 * p.microbatches, "L": p.microbatches, "W": p.microbatches, "B": 3 * p.microbatches}
    fewest = min(p.microbatches for p in accumulating)
    assert next(p for p in accumulating if p.microbatches == fewest).peak_bytes <= measured["pairwise"].peak_bytes


def test_all_are_timed(measured):
    assert all(p.step_seconds > 0 and p.n_steps == 2 and p.components == 4 for p in measured.values())


def test_measuring_leaves_the_nets_as_they_are_made(trainers, measured):
    for trainer in trainers.values():
        assert trainer.model.n_microbatches == 1
        assert all("forward" not in vars(component.main_net) for component in trainer.model.components)


def test_micro_batches_have_two_samples_and_the_best_is_marked(modelled):
    assert {m for name, m in modelled if name == "local"} == {1, 2, 4}
    assert {m for name, m in modelled if name == "e2e one at a time"} == {1}
    for name in {name for name, _ in modelled}:
        own = [e for (other, _), e in modelled.items() if other == name]
        assert [e for e in own if e.is_best] == [min(own, key=lambda e: e.step_seconds)]


def test_units_are_the_forward_pass_of_a_component(modelled, costs_of):
    unit = sum(c.forward for c in costs_of(1).costs.components) / 4
    assert all(e.units == pytest.approx(e.step_seconds / unit) for e in modelled.values())


def test_the_scheme_of_an_estimate_is_the_one_whose_gradients_it_has(modelled):
    for (name, _), estimate in modelled.items():
        assert estimate.scheme == ("e2e" if name.startswith("e2e") else name)


def test_costs_are_measured_for_each_size_of_micro_batch(costs_of):
    workload = Workload.of(ib.local(4))
    whole, half = costs_of(1).of(workload), costs_of(2).of(workload)
    assert (whole.latency, whole.bandwidth) == (1e-5, 1e9)
    for a, b in zip(whole.components, half.components, strict=True):
        assert a.output_bytes == 2 * b.output_bytes
        assert a.gradient_bytes == b.gradient_bytes
    assert costs_of(1).input_bytes == 2 * costs_of(2).input_bytes == 40 * 64 * 4
    assert all(c.loss > 0 for c in whole.components)
    checkpointed = costs_of(1).of(workload, checkpointed=True).components
    assert [c.saved_bytes for c in checkpointed] == [40 * 64 * 4, *(c.output_bytes for c in whole.components[:-1])]
    assert all(math.isfinite(value) for c in whole.components for value in dataclasses.astuple(c))
