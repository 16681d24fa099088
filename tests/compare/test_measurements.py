"""What is measured on one device, and what is modelled for a device per component."""

from __future__ import annotations

import dataclasses
import math

import pytest

import interlocking_backprop as ib
from interlocking_backprop.planning.estimating import CostModel, Link, estimate
from interlocking_backprop.planning.phases import phases_of
from interlocking_backprop.planning.profiling import profile
from interlocking_backprop.schedule.costs import ComponentCosts
from interlocking_backprop.training.trainer import Trainer
from tests.compare.small import train_config

SCHEMES = ("e2e", "local", "pairwise", "local:1,e2e")


@pytest.fixture(scope="module")
def trainers():
    found = {}
    for scheme in SCHEMES:
        found[scheme] = Trainer(train_config(scheme=scheme, components=4, architecture="4,4", epochs=4, threads=1))
        found[scheme].place()
    return found


@pytest.fixture(scope="module")
def profiles(trainers):
    return {p.name: p for p in profile(trainers, 2)}


@dataclasses.dataclass
class EvenCosts:
    """Components of 1 for F and I, 2 for W and B, whatever the micro-batch; times 1 / M."""

    batch_size: int = 16

    def components(self, m):
        part = ComponentCosts(
            forward=1 / m,
            loss=0.0,
            backward_input=1 / m,
            backward_weight=2 / m,
            full_backward=2 / m,
            split_weight=1 / m,
            output_bytes=8 / m,
            saved_bytes=32 / m,
            gradient_bytes=4,
        )
        return [part] * 4

    def of(self, workload, m):
        return ib.Costs(self.components(m))

    def input_bytes(self, i, m):
        return 8 / m


@pytest.fixture(scope="module")
def estimates(trainers):
    return {(e.name, e.microbatches): e for e in estimate(trainers, EvenCosts(), [1, 2, 4, 16])}


def test_passes_are_those_of_the_schedule(profiles):
    assert profiles["e2e"].passes == {"F": 4, "L": 1, "W": 1, "B": 3}
    assert profiles["local"].passes == {"F": 4, "L": 4, "W": 4}
    assert profiles["pairwise"].passes == {"F": 4, "L": 3, "I": 2, "W": 3, "B": 1}
    assert profiles["e2e, checkpointed"].passes == {"F": 8, "L": 1, "W": 1, "B": 3}


def test_a_scheme_that_changes_costs_the_mean_over_its_phases(trainers, profiles, estimates):
    assert [(phase.scheme, phase.share) for phase in phases_of(trainers["local:1,e2e"])] == [
        (ib.local(4), 0.25),
        (ib.e2e(4), 0.75),
    ]
    # Heads that it needs in one phase are trained in the other too.
    assert profiles["local:1,e2e"].passes == {"F": 4, "L": 4, "W": 0.25 * 4 + 0.75, "B": 0.75 * 3}
    local, e2e, both = (estimates[name, 1].step_seconds for name in ("local", "e2e", "local:1,e2e"))
    assert both == pytest.approx(0.25 * local + 0.75 * e2e)


def test_memory_of_baselines(profiles):
    assert profiles["local"].peak_bytes < profiles["pairwise"].peak_bytes < profiles["e2e"].peak_bytes
    assert profiles["e2e, checkpointed"].peak_bytes < profiles["e2e"].peak_bytes
    accumulating = [p for name, p in profiles.items() if name.endswith("micro-batches")]
    assert accumulating
    for p in accumulating:
        assert p.name == f"e2e, {p.microbatches} micro-batches"
        assert p.passes == {"F": 4 * p.microbatches, "L": p.microbatches, "W": p.microbatches, "B": 3 * p.microbatches}
    fewest = min(p.microbatches for p in accumulating)
    assert next(p for p in accumulating if p.microbatches == fewest).peak_bytes <= profiles["pairwise"].peak_bytes


def test_all_are_timed(profiles):
    assert all(p.step_seconds > 0 and p.n_steps == 2 and p.components == 4 for p in profiles.values())


def test_measuring_leaves_the_nets_as_they_are_made(trainers, profiles):
    for trainer in trainers.values():
        assert trainer.model.n_microbatches == 1
        assert all("forward" not in vars(component.main_net) for component in trainer.model.components)


def test_pipelines_of_e2e_take_what_their_formulas_say(estimates):
    k = 4
    assert estimates["e2e one at a time", 1].units == pytest.approx(3 * k)
    for m in (1, 2, 4):
        assert estimates["e2e 1F1B", m].units == pytest.approx(3 * (m + k - 1) / m)
        assert estimates["e2e 1F1B, checkpointed", m].units == pytest.approx(4 * (m + k - 1) / m)
        assert estimates["e2e zero-bubble", m].units <= estimates["e2e 1F1B", m].units + 1e-9
    assert estimates["e2e zero-bubble", 4].units < estimates["e2e 1F1B", 4].units


def test_interlocking_schemes_reach_their_limits(estimates):
    assert estimates["local", 1].units == pytest.approx(3)
    assert estimates["pairwise", 2].units == pytest.approx(4)
    assert estimates["pairwise", 2].utilization > 0.8
    assert estimates["local", 1].sent_bytes == 3 * 8  # activations alone


def test_checkpointed_pipelines_keep_inputs_and_one_graph(estimates):
    plain, checkpointed = estimates["e2e 1F1B", 4], estimates["e2e 1F1B, checkpointed", 4]
    assert plain.peak_graphs == checkpointed.peak_graphs == 4
    assert plain.peak_bytes == 4 * 32 / 4 + 4
    assert checkpointed.peak_bytes == 4 * 8 / 4 + 4 + 32 / 4


def test_micro_batches_have_two_samples_and_the_best_is_marked(estimates):
    assert {m for name, m in estimates if name == "local"} == {1, 2, 4}
    for name in {name for name, _ in estimates}:
        own = [e for (other, _), e in estimates.items() if other == name]
        assert [e for e in own if e.is_best] == [min(own, key=lambda e: e.step_seconds)]


def test_costs_are_measured_for_each_size_of_micro_batch(trainers):
    model = CostModel(trainers["e2e"].config, Link(1e-5, 1e9), repeats=1)
    workload = trainers["local"].model.schedule.workload
    whole, half = model.of(workload, 1), model.of(workload, 2)
    assert (whole.latency, whole.bandwidth) == (1e-5, 1e9)
    for i, (a, b) in enumerate(zip(whole.components, half.components, strict=True)):
        assert a.output_bytes == 2 * b.output_bytes
        assert a.gradient_bytes == b.gradient_bytes
        assert a.split_weight is not None
        assert a.split_weight > 0
        assert model.input_bytes(i, 1) == (whole.components[i - 1].output_bytes if i else 40 * 64 * 4)
    assert all(c.loss > 0 for c in whole.components)
    assert math.isfinite(sum(c.update for c in model.of(trainers["e2e"].model.schedule.workload, 1).components))
