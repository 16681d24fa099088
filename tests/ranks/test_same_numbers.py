"""Several ranks compute what one device computes, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import interlocking_backprop as ib
from interlocking_backprop.bench.processes import on_ranks
from tests.small_nets import mlp_components

K = 5
RANDOM = ib.Scheme(np.triu(np.random.default_rng(3).normal(size=(K, K))), name="random")
SCHEMES = [
    ib.e2e(K),
    ib.local(K),
    ib.pairwise(K),
    ib.nwise(K, 3),
    ib.nwise(K, 3, "sum"),
    ib.nwise(K, 2, "mean"),
    RANDOM,
]


def model_of(scheme: ib.Scheme, m: int) -> ib.InterlockingBackpropModel:
    nets = mlp_components(scheme.n_components, batch_norm=True, dropout=0.3)
    sgd = lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=1e-3)  # noqa: E731
    return ib.build_model(*nets, scheme, sgd, F.mse_loss, n_microbatches=m, seed=5)


def batches(sizes=(11, 11, 11, 8, 11)):
    generator = torch.Generator().manual_seed(2)
    for size in sizes:
        yield tuple(torch.randn(size, 5, generator=generator).double() for _ in range(2))


def run(model: ib.InterlockingBackpropModel, rank: int = 0) -> dict:
    """Trains, evaluates between steps, changes the scheme, and returns everything that can be compared."""
    first = rank == 0
    losses, exit_losses, outputs = [], [], []
    for n, (x, target) in enumerate(batches()):
        losses.append(model.training_step(x if first else None, target if first else None).result())
        exit_losses.append(model.exit_losses)
        if n == 2:
            model.eval()
            outputs.append(model(x if first else None))
            outputs += model.map_exits(F.mse_loss, *((x, target) if first else (None, None)))
            model.train()
            model.set_scheme(ib.deep_supervision(K))
    return {"losses": losses, "exit_losses": exit_losses, "outputs": outputs, "state": dict(model.state_dict())}


def on_rank(rank: int, size: int, m: int) -> list[dict]:
    results = []
    for scheme in SCHEMES:
        model = model_of(scheme, m)
        model.enable_model_parallel()
        results.append(run(model, rank))
        model.shutdown()
    return results


@pytest.mark.parametrize(("size", "m"), [(2, 1), (2, 3), (3, 2), (4, 4)])
def test_same_numbers(size, m):
    on_several = on_ranks(size, on_rank, m)
    for n, scheme in enumerate(SCHEMES):
        expected = run(model_of(scheme, m))
        parts = [results[n] for results in on_several]
        assert parts[-1]["losses"] == expected["losses"], scheme.name
        assert all(loss is None for part in parts[:-1] for loss in part["losses"])
        state = {name: value for part in parts for name, value in part["state"].items()}
        assert state.keys() == expected["state"].keys()
        for name, value in expected["state"].items():
            assert torch.equal(value, state[name]), (scheme.name, name)
        for step, all_exits in enumerate(expected["exit_losses"]):
            for i, loss in enumerate(all_exits):
                assert [p["exit_losses"][step][i] for p in parts if p["exit_losses"][step][i] is not None] == [loss]
        assert torch.equal(parts[-1]["outputs"][0], expected["outputs"][0])
        for i, value in enumerate(expected["outputs"][1:], start=1):
            assert [part["outputs"][i] for part in parts if part["outputs"][i] is not None] == [value]
