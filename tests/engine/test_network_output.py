"""Losses that ask for the network's output: the oracle with `detach`, and the same numbers on devices and on ranks."""

from __future__ import annotations

import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import interlocking_backprop as ib
from interlocking_backprop.bench.processes import on_ranks
from interlocking_backprop.schedule.action import Kind
from tests import oracle
from tests.engine.test_gradients import schemes
from tests.small_models import batch, sgd
from tests.small_nets import Recorder, mlp_components, recorded

K = 4
SCHEMES = [ib.e2e(K), ib.local(K), ib.pairwise(K), ib.nwise(K, 3, "sum"), ib.deep_supervision(K)]


def distil(output, target, network_output):
    return F.mse_loss(output, target) + 0.5 * F.smooth_l1_loss(output, network_output)


def by_depth(output, target, component, network_input, network_output):
    return F.mse_loss(output, network_output) * (component + 1) + (output * network_input).mean()


@settings(max_examples=60, deadline=None)
@given(schemes(), st.integers(1, 4), st.booleans(), st.booleans())
def test_any_matrix(scheme, m, dropout, devices):
    k = scheme.n_components
    main_nets, aux_nets = mlp_components(k, dropout=0.3 if dropout else 0.0)
    options = {"n_microbatches": m, "seed": 3, "aux_loss_function": distil}
    model = ib.build_model(main_nets, aux_nets, scheme, Recorder, F.mse_loss, **options)
    if devices:
        model.enable_model_parallel(["cpu"] * k)
    x, target = batch(7)
    parts = list(zip(x.tensor_split(m), target.tensor_split(m), strict=True))
    expected = oracle.gradients(main_nets, aux_nets, scheme, F.mse_loss, parts, (3, 0), distil)
    gradients = model.gradients(x, target)
    model.training_step(x, target)
    for nets, of_nets, which in ((main_nets, expected[0], "main"), (aux_nets, expected[1], "head")):
        for i, (net, grads) in enumerate(zip(nets, of_nets, strict=False)):
            for (name, p), grad in zip(net.named_parameters(), grads, strict=True):
                torch.testing.assert_close(recorded(model, p), grad, rtol=0, atol=1e-10)
                found = getattr(gradients[i], which).get(name, torch.zeros_like(p))
                torch.testing.assert_close(found, grad, rtol=0, atol=1e-10)


def test_no_gradient_flows_through_the_output():
    """The last component follows its own loss alone, which is 0 here, however much the others learn from its output."""
    model = ib.build_model(
        *mlp_components(K), ib.deep_supervision(K), Recorder, lambda o, t: o.sum() * 0, aux_loss_function=distil
    )
    model.training_step(*batch())
    for p in model.components[-1].parameters():
        assert not recorded(model, p).any()
    assert all(recorded(model, p).any() for p in model.components[0].parameters())


@pytest.mark.parametrize("m", [1, 2])
def test_what_a_loss_is_given(m):
    """The output for the same micro-batch, as the last component made it in this step; the last loss gets its own."""
    seen = []

    def look(output, target, component, network_output):
        assert not network_output.requires_grad
        seen.append((component, output.detach(), network_output))
        return F.mse_loss(output, target)

    look.n_samples = len
    model = ib.build_model(*mlp_components(K), ib.pairwise(K), sgd, look, n_microbatches=m)
    x, target = batch()
    expected = model(x)
    model.training_step(x, target)
    assert sorted(component for component, _, _ in seen) == sorted(list(range(K)) * m)
    for i in range(K):
        torch.testing.assert_close(torch.cat([given for c, _, given in seen if c == i]), expected)
    assert all(torch.equal(output, given) for c, output, given in seen if c == K - 1)


def test_outputs_of_any_structure():
    class Both(nn.Module):
        def forward(self, y):
            return {"scores": y, "rest": (y.mean(1), 3)}

    def distil_both(output, target, network_output):
        assert network_output["rest"][1] == 3
        return F.mse_loss(output, network_output["scores"]) + network_output["rest"][0].mean()

    found = []
    for devices in (None, ["cpu"] * K):
        main_nets, aux_nets = mlp_components(K)
        nets = [*main_nets[:-1], nn.Sequential(main_nets[-1], Both())]
        model = ib.build_model(
            nets, aux_nets, ib.pairwise(K), sgd, lambda o, t: F.mse_loss(o["scores"], t), aux_loss_function=distil_both
        )
        if devices:
            model.enable_model_parallel(devices)
        model.training_step(*batch())
        found.append(model.exit_losses)
    assert found[0] == found[1]


def test_what_is_asked_for_is_not_changed_in_place():
    def sharpened(output, target, network_output):
        return F.mse_loss(output, network_output.div_(2))

    model = ib.build_model(*mlp_components(K), ib.local(K), sgd, F.mse_loss, aux_loss_function=sharpened)
    with pytest.raises(ValueError, match=r"the loss .*sharpened changes network_output in place"):
        model.training_step(*batch())


@pytest.mark.parametrize("devices", [None, ["cpu"] * K])
def test_it_is_let_go_after_its_last_use(devices):
    """While losses run, no more outputs are alive than there are micro-batches under way; after the step none is."""
    alive = []

    def look(output, target, network_output):
        alive.append(weakref.ref(network_output))
        return F.mse_loss(output, network_output)

    look.n_samples = len
    model = ib.build_model(*mlp_components(K), ib.local(K), sgd, F.mse_loss, aux_loss_function=look, n_microbatches=3)
    if devices:
        model.enable_model_parallel(devices)
    model.components[0].optimizer.register_step_pre_hook(
        lambda *_: seen.append(sum(reference() is not None for reference in alive))
    )
    seen: list[int] = []
    model.training_step(*batch())
    assert len(alive) == 3 * (K - 1)
    assert seen == [0]


def test_costs_are_measured_and_exits_evaluated():
    model = ib.build_model(*mlp_components(K), ib.local(K), sgd, F.mse_loss, aux_loss_function=by_depth)
    x, target = batch()
    assert len(model.measure_costs(x, target, repeats=1).components) == K
    assert len(model.map_exits(F.mse_loss, x, target)) == K
    assert all(output is not None for output in model.forward_exits(x))


def model_of(scheme: ib.Scheme, m: int, aux_loss=by_depth) -> ib.InterlockingBackpropModel:
    nets = mlp_components(K, batch_norm=True, dropout=0.3)
    if aux_loss is not by_depth:  # gradients of shared weights are on their way, too
        nets[0][-1][0].weight = nets[0][0][0].weight
    return ib.build_model(*nets, scheme, sgd, F.mse_loss, n_microbatches=m, seed=5, aux_loss_function=aux_loss)


LOSSES = [by_depth, [distil, None, by_depth], [None, distil, None]]


def run(model: ib.InterlockingBackpropModel) -> dict:
    """Trains by two schemes, with all else that can be asked for in between."""
    seen: dict = {"losses": [], "gradients": [], "alignment": [], "kinds": set()}
    for n in range(4):
        data = batch(7, seed=n) if model.rank == 0 else (None, None)
        if n == 2:
            seen["gradients"] = model.gradients(*data, by_loss=True)
            seen["alignment"] = model.alignment(*data)
            model.eval()
            seen["exits"] = model.map_exits(F.mse_loss, *data)
            model.train()
            model.set_scheme(ib.nwise(K, 2, "sum"))
        model.training_step(*data)
        seen["losses"].append(model.exit_losses)
    seen["kinds"] = {(a.component, a.kind, a.stream) for _, a in model.schedule if a.kind.is_communication}
    seen["state"] = {name: value.clone() for name, value in model.state_dict().items()}
    return seen


def on_rank(rank: int, size: int, m: int) -> list[dict]:
    results = []
    for scheme in SCHEMES[1:4]:
        for aux_loss in LOSSES:
            model = model_of(scheme, m, aux_loss)
            model.enable_model_parallel()
            results.append(run(model))
            model.shutdown()
    return results


def compare(expected: dict, parts: list[dict]) -> None:
    state = {name: value for part in parts for name, value in part["state"].items()}
    assert all(torch.equal(value, state[name]) for name, value in expected["state"].items())
    for n, losses in enumerate(expected["losses"]):
        for i, loss in enumerate(losses):
            assert [p["losses"][n][i] for p in parts if p["losses"][n][i] is not None] == [loss]
    for i, gradients in enumerate(expected["gradients"]):
        (found,) = [part["gradients"][i] for part in parts if part["gradients"][i] is not None]
        a, b = ({**g.by_loss, "main": g.main, "head": g.head} for g in (gradients, found))
        assert a.keys() == b.keys()
        for which in a:
            assert all(torch.equal(a[which][name], b[which][name]) for name in {**a[which], **b[which]})
        assert [p["exits"][i] for p in parts if p["exits"][i] is not None] == [expected["exits"][i]]
        assert [p["alignment"][i] for p in parts if p["alignment"][i] is not None] == [expected["alignment"][i]]


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.name)
@pytest.mark.parametrize("m", [1, 3])
def test_on_devices_the_same(scheme, m):
    for aux_loss in LOSSES:
        one, several = model_of(scheme, m, aux_loss), model_of(scheme, m, aux_loss)
        several.enable_model_parallel(["cpu"] * K)
        compare(run(one), [run(several)])


@pytest.mark.parametrize(("size", "m"), [(2, 3), (3, 2), (4, 1)])
def test_on_ranks_the_same(size, m):
    on_several = on_ranks(size, on_rank, m)
    cases = [(scheme, aux_loss) for scheme in SCHEMES[1:4] for aux_loss in LOSSES]
    for n, (scheme, aux_loss) in enumerate(cases):
        compare(run(model_of(scheme, m, aux_loss)), [results[n] for results in on_several])
        if size == K:  # nothing is sent to those that don't ask
            asking = {i for i in range(K - 1) if aux_loss is by_depth or aux_loss[i] is not None}
            kinds = on_several[0][n]["kinds"]
            assert {i for i, kind, _ in kinds if kind is Kind.RECV_Y} == asking
            assert {i for _, kind, i in kinds if kind is Kind.SEND_Y} == asking
