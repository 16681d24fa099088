"""Gradients in hand on several ranks equal those of one device, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import interlocking_backprop as ib
from interlocking_backprop.bench.processes import Ranks, on_ranks
from tests.small_nets import mlp_components

K = 5
RANDOM = ib.Scheme(np.triu(np.random.default_rng(4).normal(size=(K, K))), name="random")


def by_depth(output, target, component, component_input, network_input):
    """A loss that asks for everything it can get."""
    reconstruction = F.mse_loss(output, network_input) + F.mse_loss(output, component_input)
    return F.mse_loss(output, target) / (1 + component) + 0.1 * reconstruction


LOSSES = [F.smooth_l1_loss, by_depth, None, by_depth]
# Scheme, whether the ends share a weight, and the losses of the heads.
CASES = [(ib.e2e(K), True, None), (ib.nwise(K, 3), False, LOSSES), (RANDOM, True, LOSSES)]


def model_of(scheme: ib.Scheme, tied: bool, losses: list | None, m: int) -> ib.InterlockingBackpropModel:
    main_nets, aux_nets = mlp_components(K, batch_norm=True, dropout=0.3)
    if tied:
        main_nets[-1][0].weight = main_nets[0][0].weight
    sgd = lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)  # noqa: E731
    return ib.build_model(
        main_nets, aux_nets, scheme, sgd, F.mse_loss, n_microbatches=m, seed=5, aux_loss_function=losses
    )


def batches(sizes=(11, 11, 8)):
    generator = torch.Generator().manual_seed(2)
    for size in sizes:
        yield tuple(torch.randn(size, 5, generator=generator).double() for _ in range(2))


def run(model: ib.InterlockingBackpropModel, *, tied: bool) -> dict:
    """Trains, with gradients asked for between the steps and changed before the updates, and returns all of it."""

    def function(component: int, parameters: list) -> None:
        seen.append(component)
        for p in parameters[tied:]:  # shared weights, which come first, have to be treated alike
            p.grad.add_(torch.randn_like(p), alpha=0.1)

    seen: list[int] = []
    gradients, alignments, exit_losses = [], [], []
    model.on_gradients(function)
    for x, target in batches():
        mine = (x, target) if model.rank == 0 else (None, None)
        gradients += [model.gradients(*mine), model.gradients(*mine, ib.pairwise(K), by_loss=True)]
        alignments.append(model.alignment(*mine))
        model.training_step(*mine)
        exit_losses.append(model.exit_losses)
    return {
        "gradients": gradients,
        "alignments": alignments,
        "exit_losses": exit_losses,
        "seen": sorted(seen),
        "state": dict(model.state_dict()),
    }


def on_rank(rank: int, size: int, m: int) -> list[dict]:
    results = []
    for scheme, tied, losses in CASES:
        model = model_of(scheme, tied, losses, m)
        model.enable_model_parallel()
        results.append(run(model, tied=tied))
        model.shutdown()
    return results


def flat(gradients: ib.ComponentGradients) -> dict:
    parts = {"main": gradients.main, "head": gradients.head, **gradients.by_loss}
    return {(part, name): gradient for part, found in parts.items() for name, gradient in found.items()}


def on_devices(m: int) -> list[dict]:
    results = []
    for scheme, tied, losses in CASES:
        model = model_of(scheme, tied, losses, m)
        model.enable_model_parallel(["cpu"] * K)
        results.append(run(model, tied=tied))
    return results


@pytest.mark.parametrize(("size", "m"), [(1, 3), (2, 1), (2, 3), (3, 2), (4, 3)])
def test_the_same_as_on_one_device(size, m):
    """On ranks, or (size 1) with a device per component in one process; per-component losses among the cases."""
    on_several = on_ranks(size, on_rank, m) if size > 1 else [on_devices(m)]
    for n, (scheme, tied, losses) in enumerate(CASES):
        expected = run(model_of(scheme, tied, losses, m), tied=tied)
        parts = [results[n] for results in on_several]
        assert sorted(i for part in parts for i in part["seen"]) == expected["seen"]
        for call, found in enumerate(expected["gradients"]):
            for i, gradients in enumerate(found):
                (there,) = (part["gradients"][call][i] for part in parts if part["gradients"][call][i] is not None)
                wanted, got = flat(gradients), flat(there)
                assert wanted.keys() == got.keys()
                assert all(torch.equal(wanted[key], got[key]) for key in wanted), (scheme.name, call, i)
        for call, found in enumerate(expected["alignments"]):
            for i, alignment in enumerate(found):
                there = [part["alignments"][call][i] for part in parts]
                assert [a for a in there if a is not None] == [alignment]
        for step, found in enumerate(expected["exit_losses"]):
            for i, loss in enumerate(found):
                (there,) = (part["exit_losses"][step][i] for part in parts if part["exit_losses"][step][i] is not None)
                assert torch.equal(there, loss)
        together = {name: value for part in parts for name, value in part["state"].items()}
        assert all(torch.equal(together[name], value) for name, value in expected["state"].items())


def different_calls(rank: int, size: int) -> None:
    model = model_of(ib.local(K), tied=False, losses=None, m=1)
    model.enable_model_parallel()
    x, target = next(batches())
    if rank == 0:
        model.training_step(x, target)
    else:
        model.gradients(None, None)


def test_the_ranks_have_to_make_the_same_call():
    with Ranks(2, different_calls) as ranks:
        assert all(code != 0 for code in ranks.join())
        assert "rank 1 calls model.gradients(), but rank 0 model.training_step()" in ranks.errors()[1]
