"""A device per component in one process: the numbers of the simulated mode, to the bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import interlocking_backprop as ib
from interlocking_backprop.schedule.simulate import simulate
from tests.small_nets import mlp_components

RANDOM = ib.Scheme(np.triu(np.random.default_rng(3).normal(size=(5, 5))), name="random")
SCHEMES = [
    ib.e2e(5),
    ib.local(5),
    ib.pairwise(5),
    ib.nwise(5, 3),
    ib.nwise(5, 3, "sum"),
    ib.nwise(5, 2, "mean"),
    RANDOM,
]


def model_of(scheme: ib.Scheme, m: int) -> ib.InterlockingBackpropModel:
    nets = mlp_components(scheme.n_components, batch_norm=True, dropout=0.3)
    sgd = lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=1e-3)  # noqa: E731
    return ib.build_model(*nets, scheme, sgd, F.mse_loss, n_microbatches=m, seed=5)


def train(model: ib.InterlockingBackpropModel, steps: int = 4) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return [
        model.training_step(
            torch.randn(11, 5, generator=generator).double(), torch.randn(11, 5, generator=generator).double()
        ).result()
        for _ in range(steps)
    ]


@pytest.mark.parametrize("m", [1, 2, 4])
@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.name)
def test_same_numbers(scheme, m):
    simulated, parallel = model_of(scheme, m), model_of(scheme, m)
    parallel.enable_model_parallel(devices=["cpu"] * 5)
    assert train(simulated) == train(parallel)
    for (name, a), b in zip(simulated.state_dict().items(), parallel.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert simulated.exit_losses == parallel.exit_losses
    x = torch.randn(3, 5).double()
    assert torch.equal(simulated.eval()(x), parallel.eval()(x))
    for a, b in zip(simulated.forward_exits(x), parallel.forward_exits(x), strict=True):
        assert torch.equal(a, b)


def test_the_schedule_is_that_of_the_devices():
    model = model_of(ib.nwise(5, 2), 2)
    model.enable_model_parallel(devices=["cpu"] * 5)
    assert model.schedule.n_ranks == 5
    ib.validate(model.schedule)
    train(model, 1)
    costs = ib.Costs.uniform(5)
    assert simulate(model.schedule, costs).step_time == pytest.approx(2 * 4)


def test_costs_and_memory_shape_the_schedule():
    model = model_of(ib.e2e(5), 8)
    model.enable_model_parallel(devices=["cpu"] * 5)
    fast = simulate(model.schedule, ib.Costs.uniform(5, split_weight=1.0))
    model.enable_model_parallel(devices=["cpu"] * 5, max_graphs=5)
    lean = simulate(model.schedule, ib.Costs.uniform(5, split_weight=1.0))
    assert max(lean.peak_graphs) == 5 < max(fast.peak_graphs)
    assert lean.step_time > fast.step_time
    model.enable_model_parallel(devices=["cpu"] * 5, max_graphs=1)
    with pytest.raises(ValueError, match=r"max_graphs is 1, but scheme 'e2e' .* at least 5 graphs"):
        train(model, 1)


def test_measured_costs():
    model = model_of(ib.pairwise(5), 2)
    before = [p.clone() for p in model.parameters()]
    costs = model.measure_costs(torch.randn(8, 5).double(), torch.randn(8, 5).double(), repeats=2)
    assert len(costs.components) == 5
    assert all(c.forward > 0 and c.backward_weight > 0 and c.loss > 0 and c.update > 0 for c in costs.components)
    assert costs.components[0].backward_input == 0  # nobody wants it
    assert costs.components[1].output_bytes == 8 * 5 * 8
    assert all(torch.equal(p, q) for p, q in zip(before, model.parameters(), strict=True))
    assert all(p.grad is None for p in model.parameters())
    model.enable_model_parallel(devices=["cpu"] * 5, costs=costs)
    train(model, 1)


@pytest.mark.parametrize(
    ("devices", "message"),
    [
        (["cpu"] * 3, "3 devices for 5 components"),
        (["cpu"] * 4 + ["warp:0"], "device 'warp:0' cannot be used"),
    ],
)
def test_devices_that_do_not_fit_are_rejected(devices, message):
    with pytest.raises(ValueError, match=message):
        model_of(ib.local(5), 1).enable_model_parallel(devices=devices)


@pytest.mark.skipif(torch.accelerator.device_count() >= 5, reason="this machine has an accelerator per component")
def test_too_few_accelerators_are_explained():
    with pytest.raises(ValueError, match=r"5 components and \d accelerators .*give devices that repeat"):
        model_of(ib.local(5), 1).enable_model_parallel()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.name)
def test_same_numbers_on_gpus(scheme):
    """All components on one GPU, or on several where there are."""
    devices = [f"cuda:{i % torch.cuda.device_count()}" for i in range(5)]
    one, many = model_of(scheme, 2).cuda(), model_of(scheme, 2)
    many.enable_model_parallel(devices=devices)
    for a, b in zip(train(one), train(many), strict=True):
        torch.testing.assert_close(a.cpu(), b.cpu())
