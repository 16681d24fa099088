"""Delayed credit: ranks, whose passes come late, compute what one device does that keeps gradients in a queue."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import interlocking_backprop as ib
from interlocking_backprop.bench.processes import on_ranks
from tests.small_nets import mlp_components

K = 5
NUMBERS = np.random.default_rng(3)
RANDOM = ib.Scheme(
    np.triu(NUMBERS.normal(size=(K, K))),
    name="random",
    delayed={1: np.triu(NUMBERS.normal(size=(K, K))), 3: np.triu(NUMBERS.normal(size=(K, K)))},
)
SCHEMES = [
    ib.e2e(K).delay([3, 2, 2, 1, 0]),
    ib.e2e(K).delay(1),
    ib.e2e(K).delay([4, 3, 2, 1, 0]),
    0.5 * ib.pairwise(K) + 0.5 * ib.e2e(K).delay([3, 2, 2, 1, 0]),
    ib.local(K).delay(2),
    RANDOM,
]
# Messages that are long under way, so that passes are late wherever they may be.
COSTS = ib.Costs(ib.Costs.uniform(K).components, latency=3.0)
# What is trained by before a step; a scheme that is left has credit under way, to components that the next one freezes.
FIRST_LAYERS_FROZEN = ib.Scheme(np.diag([0, 0, 1, 1, 1]), name="first layers frozen")


def model_of(scheme: ib.Scheme, m: int) -> ib.InterlockingBackpropModel:
    nets = mlp_components(scheme.n_components, batch_norm=True, dropout=0.3)
    sgd = lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=1e-3)  # noqa: E731
    return ib.build_model(*nets, scheme, sgd, F.mse_loss, n_microbatches=m, seed=5, max_grad_norm=0.5)


def batches(sizes=(11, 11, 11, 8, 11, 11, 11, 11, 11)):
    generator = torch.Generator().manual_seed(2)
    for size in sizes:
        yield tuple(torch.randn(size, 5, generator=generator).double() for _ in range(2))


def run(model: ib.InterlockingBackpropModel, rank: int = 0) -> dict:
    """Trains, evaluates between steps, changes the scheme, and returns everything that can be compared."""
    first = rank == 0
    losses, outputs = [], []
    for n, (x, target) in enumerate(batches()):
        losses.append(model.training_step(x if first else None, target if first else None).result())
        if n == 5:
            model.eval()
            outputs.append(model(x if first else None))
            model.train()
            model.set_scheme(FIRST_LAYERS_FROZEN)
        if n == 6:
            model.set_scheme(ib.e2e(K).delay(1))
    return {"losses": losses, "outputs": outputs, "state": dict(model.state_dict())}


def on_rank(rank: int, size: int, m: int) -> list[dict]:
    results = []
    for scheme in SCHEMES:
        model = model_of(scheme, m)
        model.enable_model_parallel(costs=COSTS)
        assert any(action.age for _, action in model.schedule) == (scheme.name != "local~2"), scheme.name
        results.append(run(model, rank))
        model.shutdown()
    return results


def check(parts: list[dict], expected: dict, name: str) -> None:
    assert parts[-1]["losses"] == expected["losses"], name
    state = {key: value for part in parts for key, value in part["state"].items()}
    assert state.keys() == expected["state"].keys()
    for key, value in expected["state"].items():
        assert torch.equal(value, state[key]), (name, key)
    assert torch.equal(parts[-1]["outputs"][0], expected["outputs"][0])


@pytest.mark.parametrize(("size", "m"), [(2, 1), (3, 2), (4, 4)])
def test_same_numbers(size, m):
    on_several = on_ranks(size, on_rank, m)
    for n, scheme in enumerate(SCHEMES):
        check([results[n] for results in on_several], run(model_of(scheme, m)), scheme.name)


@pytest.mark.parametrize("m", [1, 2, 3])
@pytest.mark.parametrize("scheme", SCHEMES, ids=str.split("deep 2bw pipedream mixture local random"))
def test_devices_of_one_process(scheme, m):
    model = model_of(scheme, m)
    model.enable_model_parallel(["cpu"] * K, costs=COSTS)
    assert any(action.age for _, action in model.schedule) == (scheme.name != "local~2")
    check([run(model)], run(model_of(scheme, m)), scheme.name)


def resumed_on_rank(rank: int, size: int) -> list[dict]:
    data = list(batches()) if rank == 0 else [(None, None)] * 9
    results = []
    for scheme in SCHEMES:
        model = model_of(scheme, 2)
        model.enable_model_parallel()
        for x, target in data[:4]:
            model.training_step(x, target)
        results.append({"model": dict(model.state_dict()), "training": model.training_state_dict()})
        model.shutdown()
    return results


def test_credit_under_way_is_part_of_the_training_state():
    """Stopped on three ranks and resumed on one device is the uninterrupted run."""
    saved = on_ranks(3, resumed_on_rank)
    for n, scheme in enumerate(SCHEMES):
        resumed, uninterrupted = model_of(scheme, 2), model_of(scheme, 2)
        parts = [results[n] for results in saved]
        resumed.load_state_dict({key: value for part in parts for key, value in part["model"].items()})
        saved_parts = [part["training"]["components"] for part in parts]
        components = [next(filter(None, states)) for states in zip(*saved_parts, strict=True)]
        assert any("credit" in state for state in components)
        resumed.load_training_state_dict({**parts[0]["training"], "components": components})
        for step, (x, target) in enumerate(batches()):
            loss = uninterrupted.training_step(x, target).result()
            if step >= 4:
                assert resumed.training_step(x, target).result() == loss, (scheme.name, step)
        for key, value in uninterrupted.state_dict().items():
            assert torch.equal(resumed.state_dict()[key], value), (scheme.name, key)
