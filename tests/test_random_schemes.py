"""Schemes that take turns are planned once, on one device, on several and on ranks; new ones are forgotten in time."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch

import interlocking_backprop as ib
from interlocking_backprop.bench.processes import on_ranks
from interlocking_backprop.runtime import programs
from interlocking_backprop.transport.exchange import Exchange
from tests.small_models import batch, model_of, weights

K = 3
SCHEMES = [ib.e2e(K), ib.local(K), ib.pairwise(K), ib.deep_supervision(K), ib.decaying(K, 0.5), ib.nwise(K, 2, "sum")]


def schedules_in_turn(model: ib.InterlockingBackpropModel) -> tuple[list[ib.Schedule], list[ib.Schedule]]:
    """Those of several schemes, when they are first used and later on."""
    rounds = []
    for _ in range(3):
        rounds.append([])
        for scheme in SCHEMES:
            model.set_scheme(ib.Scheme(scheme.matrix))  # equal to the one before, and another object
            data = batch() if model.rank == 0 else (None, None)
            model.training_step(*data)
            model.training_step(*(None if part is None else part[:4] for part in data))
            rounds[-1].append(model.schedule)
    return rounds[0], rounds[-1]


def planned_once(rank: int, size: int) -> bool:
    model = model_of(SCHEMES[0], n_microbatches=2)
    model.enable_model_parallel()
    first, last = schedules_in_turn(model)
    model.shutdown()
    return all(a is b for a, b in zip(first, last, strict=True))


@pytest.mark.parametrize("devices", [None, ["cpu"] * K])
def test_schemes_in_turn_are_planned_once(devices):
    model = model_of(SCHEMES[0], n_microbatches=2)
    if devices:
        model.enable_model_parallel(devices)
    first, last = schedules_in_turn(model)
    assert len({id(schedule) for schedule in first}) == len(SCHEMES)
    assert all(a is b for a, b in zip(first, last, strict=True))


def test_schemes_in_turn_are_planned_once_on_ranks():
    assert on_ranks(2, planned_once) == [True, True]


@pytest.mark.parametrize("devices", [None, ["cpu"] * K])
def test_a_schedule_bears_the_name_of_the_scheme_that_is_set(devices):
    """Also where an equal scheme of another name was there before."""
    model = model_of(ib.Scheme(ib.e2e(K).matrix, name="drawn"))
    if devices:
        model.enable_model_parallel(devices)
    assert model.schedule.workload.scheme.name == "drawn"
    model.set_scheme(ib.e2e(K))
    assert model.schedule.workload.scheme.name == "e2e"


def drawn(n: int) -> list[ib.Scheme]:
    """Schemes drawn at random, all different."""
    rng = np.random.default_rng(0)
    return [ib.Scheme(np.triu(rng.random((K, K)).round(3) * rng.integers(0, 2, (K, K)))) for _ in range(n)]


def train(model: ib.InterlockingBackpropModel, schemes: list[ib.Scheme]) -> list[torch.Tensor | None]:
    losses = []
    for n, scheme in enumerate(schemes):
        model.set_scheme(scheme)
        losses.append(model.training_step(*(batch(seed=n) if model.rank == 0 else (None, None))).result())
    return losses


N_KEPT = 4


def trained(rank: int, size: int, schemes: list[ib.Scheme]):
    programs._N_PROGRAMS = N_KEPT
    model = model_of(schemes[0])
    model.enable_model_parallel()
    losses = train(model, schemes)
    gc.collect()
    n_exchanges = sum(isinstance(o, Exchange) for o in gc.get_objects())
    state = dict(model.state_dict())
    model.shutdown()
    return losses, n_exchanges, state


def test_a_new_scheme_in_every_step_on_ranks():
    """The same numbers as on one device, also for schemes that come again after they have been forgotten."""
    schemes = drawn(10)
    schemes = [*schemes, *schemes[:3], *schemes[-2:]]
    model = model_of(schemes[0])
    expected = train(model, schemes)
    on_several = on_ranks(2, trained, schemes)
    assert on_several[-1][0] == expected
    assert all(n_exchanges <= N_KEPT + 1 for _, n_exchanges, _ in on_several)
    state = {name: value for _, _, part in on_several for name, value in part.items()}
    assert torch.equal(weights(model), torch.cat([state[name].flatten() for name, _ in model.named_parameters()]))
