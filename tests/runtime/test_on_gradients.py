"""Functions between the gradients of a component and its update."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import interlocking_backprop as ib
from tests.runtime.test_inspected import expected, model_of, tied_nets
from tests.small_models import batch, sgd
from tests.small_nets import mlp_components


class TestOnGradients:
    def test_it_is_called_before_clipping_and_update(self):
        model = model_of(ib.pairwise(3), sgd, max_grad_norm=1e-3)
        before = {p: p.detach().clone() for p in model.parameters()}
        expected = model.gradients(*batch())
        seen = []

        def function(i, parameters):
            component = model.components[i]
            assert parameters == list(component.parameters())
            assert all(torch.equal(p, before[p]) for p in parameters)
            gradients = [*expected[i].main.values(), *expected[i].head.values()]
            assert all(map(torch.equal, (p.grad for p in parameters), gradients))
            seen.append(i)

        model.on_gradients(function)
        model.training_step(*batch())
        assert sorted(seen) == [0, 1, 2]
        assert not any(torch.equal(p, before[p]) for p in model.parameters())

    def test_several_are_called_in_order_until_removed(self):
        model = model_of(ib.local(2))
        calls = []
        first = model.on_gradients(lambda i, _: calls.append(("first", i)))
        model.on_gradients(lambda i, _: calls.append(("second", i)))
        model.training_step(*batch())
        assert calls == [(name, i) for i in range(2) for name in ("first", "second")]
        calls.clear()
        first.remove()
        model.training_step(*batch())
        assert calls == [("second", 0), ("second", 1)]

    def test_one_may_remove_itself(self):
        model = model_of(ib.local(3))
        calls = []
        handle = model.on_gradients(lambda i, _: (calls.append(i), handle.remove()))
        model.on_gradients(lambda i, _: calls.append(-i))
        model.training_step(*batch())
        assert calls == [0, 0, -1, -2]

    def test_it_may_change_gradients_replace_them_and_leave_parameters_out(self):
        model = model_of(ib.local(2), lambda p: torch.optim.SGD(p, lr=1, weight_decay=0.5))
        before = {p: p.detach().clone() for p in model.parameters()}

        def function(i, parameters):
            first, second, *others = parameters
            first.grad.zero_()
            second.grad = torch.ones_like(second)
            for p in others:
                p.grad = None

        model.on_gradients(function)
        model.training_step(*batch())
        for component in model.components:
            first, second, *others = component.parameters()
            torch.testing.assert_close(first.detach(), before[first] * 0.5)
            torch.testing.assert_close(second.detach(), before[second] * 0.5 - 1)
            assert all(torch.equal(p, before[p]) for p in others)

    def test_it_records_no_graph(self):
        model = model_of(ib.local(2), lambda p: torch.optim.SGD(p, lr=1))
        decayed = model_of(ib.local(2), lambda p: torch.optim.SGD(p, lr=1, weight_decay=0.5))
        graphs = []

        def decay(_, parameters):
            for p in parameters:
                p.grad.add_(p, alpha=0.5)
                graphs.append(p.grad.requires_grad)

        model.on_gradients(decay)
        for each in (model, decayed):
            each.training_step(*batch())
        assert graphs
        assert not any(graphs)
        assert all(map(torch.equal, model.parameters(), decayed.parameters()))

    def test_what_it_changes_is_clipped(self):
        plain, scaled = (model_of(ib.local(2), sgd, max_grad_norm=1e-3) for _ in range(2))
        scaled.on_gradients(lambda _, parameters: [p.grad.mul_(1e3) for p in parameters])
        for model in (plain, scaled):
            model.training_step(*batch())
        for p, q in zip(plain.parameters(), scaled.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=0, atol=1e-8)

    def test_it_gets_what_is_there(self):
        """No call for a component without anything to update; a head alone; the sum for shared weights."""
        model = model_of(ib.Scheme([[0, 0, 0], [0, 0, 0], [0, 0, 1]]), nets=_without_head_0(mlp_components(3)))
        calls = {}
        model.on_gradients(lambda i, parameters: calls.update({i: parameters}))
        model.training_step(*batch())
        assert calls.keys() == {1, 2}
        assert calls[1] == list(model.components[1].aux_net.parameters())
        model = model_of(ib.local(3), nets=tied_nets(3))
        model.on_gradients(lambda i, parameters: calls.update({i: [p.grad.clone() for p in parameters[:1]]}))
        wanted = [main for main, _ in expected(model, ib.local(3), *batch())]
        model.training_step(*batch())
        assert torch.equal(*(calls[i][0] for i in (0, 2)))
        torch.testing.assert_close(calls[0][0], wanted[0][0] + wanted[2][0], rtol=0, atol=1e-10)

    def test_an_error_ends_the_step_and_drops_its_gradients(self):
        model = model_of(ib.e2e(3), sgd)

        def function(i, _):
            if i == 1:
                raise RuntimeError("enough")

        handle = model.on_gradients(function)
        with pytest.raises(RuntimeError, match="enough"):
            model.training_step(*batch())
        assert all(p.grad is None for p in model.parameters())
        handle.remove()
        model.training_step(*batch())

    def test_looking_on_changes_nothing(self):
        plain, watched = (model_of(ib.pairwise(3), Noisy, batch_norm=True, n_microbatches=2) for _ in range(2))
        watched.on_gradients(lambda *_: torch.randn(3))
        for step in range(3):
            for model in (plain, watched):
                model.training_step(*batch(seed=step))
        assert all(map(torch.equal, plain.state_dict().values(), watched.state_dict().values()))

    def test_noise_depends_on_seed_step_and_component_alone(self):
        one, parallel = (model_of(ib.nwise(3, 2), sgd, n_microbatches=2) for _ in range(2))
        parallel.enable_model_parallel(["cpu"] * 3)
        drawn = {}
        for model in (one, parallel):
            model.on_gradients(add_noise)
            for step in range(2):
                model.training_step(*batch(seed=step))
        assert all(map(torch.equal, one.state_dict().values(), parallel.state_dict().values()))
        one.on_gradients(lambda i, _: drawn.setdefault(i, []).append(torch.rand(1).item()))
        for step in range(2):
            one.training_step(*batch(seed=step))
        assert len({number for numbers in drawn.values() for number in numbers}) == 6

    def test_what_is_no_function(self):
        with pytest.raises(
            ValueError, match=r"on_gradients got None; expected a function\(component index, parameters"
        ):
            model_of(ib.local(2)).on_gradients(None)


def add_noise(_: int, parameters: list[nn.Parameter]) -> None:
    for p in parameters:
        p.grad.add_(torch.randn_like(p), alpha=0.1)


class Noisy(torch.optim.SGD):
    """An optimizer that draws random numbers itself."""

    def __init__(self, params) -> None:
        super().__init__(params, lr=0.1)

    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.grad.add_(torch.randn_like(p))
        super().step()


def _without_head_0(nets):
    main_nets, aux_nets = nets
    return main_nets, [None, *aux_nets[1:]]
