"""Delayed credit is the definition: every weight equals that of a plain loop with a queue of past gradients."""

from __future__ import annotations

from collections import defaultdict
from copy import deepcopy

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import interlocking_backprop as ib
from tests import oracle
from tests.small_nets import mlp_components

SEED = 5


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=1e-2)


@st.composite
def schemes(draw, most_components=6, most_age=4):
    k = draw(st.integers(1, most_components))
    ages = draw(st.lists(st.integers(0, most_age), min_size=1, max_size=3, unique=True))
    numbers = np.random.default_rng(draw(st.integers(0, 10**6)))

    def matrix():
        # Rows of zeros, and rows that are multiples of one another at different ages.
        entries = numbers.normal(size=(k, k)) * numbers.integers(0, 2, size=(k, k))
        return np.triu(entries if numbers.random() < 0.7 else np.ones((k, k)))

    found = {age: matrix() for age in ages}
    assume(any(found[age].any() for age in ages))  # a model refuses a scheme that trains nothing
    return ib.Scheme(found.pop(0, np.zeros((k, k))), delayed=found)


def batches(n, size):
    generator = torch.Generator().manual_seed(2)
    for _ in range(n):
        yield tuple(torch.randn(size, 5, generator=generator).double() for _ in range(2))


class Queue:
    """A plain loop: gradients by autograd on the undetached graph, and a queue for those that are not due yet."""

    def __init__(self, nets, heads, optimizer=sgd):
        self.nets, self.heads = nets, heads
        self.main_optimizers = [optimizer(net.parameters()) for net in nets]
        self.head_optimizers = [head and optimizer(head.parameters()) for head in heads]
        self.due = defaultdict(lambda: defaultdict(list))
        self.step = 0

    def train(self, scheme, x, target, m):
        parts = list(zip(x.tensor_split(m), target.tensor_split(m), strict=True))
        for age in range(scheme.max_delay + 1):
            matrix = scheme.coefficients(age)
            fresh = ib.Scheme(matrix)
            main, aux = oracle.gradients(self.nets, self.heads, fresh, F.mse_loss, parts, (SEED, self.step))
            for i in np.flatnonzero(matrix.any(axis=1)):
                self.due[self.step + age][i].append(main[i])
        for i, optimizer in enumerate(self.main_optimizers):
            arrived = self.due[self.step][i]
            if arrived:
                for parameter, *terms in zip(self.nets[i].parameters(), *arrived, strict=True):
                    parameter.grad = sum(terms)
                optimizer.step()
        for head, optimizer, gradients in zip(self.heads, self.head_optimizers, aux, strict=False):
            if head is not None:
                for parameter, gradient in zip(head.parameters(), gradients, strict=True):
                    parameter.grad = gradient
                optimizer.step()
        self.step += 1


def assert_close(model, plain):
    nets = [component.main_net for component in model.components]
    heads = [component.aux_net for component in model.components[:-1]]
    for net, other in zip([*nets, *heads], [*plain.nets, *plain.heads], strict=True):
        for p, q in zip(net.parameters() if net else (), other.parameters() if other else (), strict=True):
            assert torch.allclose(p, q, rtol=0, atol=1e-10)


@given(schemes(), st.integers(1, 4), st.booleans())
@settings(max_examples=40, deadline=None)
def test_every_weight_equals_that_of_a_loop_with_a_queue(scheme, m, has_devices):
    nets, heads = mlp_components(scheme.n_components, dropout=0.3)
    plain = Queue(*deepcopy((nets, heads)))
    apart = lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=1e-2)  # noqa: E731
    model = ib.build_model(
        nets, heads, scheme, sgd, F.mse_loss, n_microbatches=m, seed=SEED, aux_optimizer_constructor=apart
    )
    if has_devices:
        model.enable_model_parallel(["cpu"] * scheme.n_components)
    for x, target in batches(2 + scheme.max_delay + 2, 7):
        model.training_step(x, target)
        plain.train(scheme, x, target, m)
    assert_close(model, plain)


@given(schemes(most_components=4), schemes(most_components=4), st.booleans())
@settings(max_examples=20, deadline=None)
def test_credit_under_way_arrives_at_its_time_when_the_scheme_has_changed(first, second, has_devices):
    if first.n_components != second.n_components:
        return
    nets, heads = mlp_components(first.n_components)
    plain = Queue(*deepcopy((nets, heads)))
    apart = lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=1e-2)  # noqa: E731
    model = ib.build_model(
        nets, heads, first, sgd, F.mse_loss, n_microbatches=2, seed=SEED, aux_optimizer_constructor=apart
    )
    if has_devices:
        model.enable_model_parallel(["cpu"] * first.n_components)
    for n, (x, target) in enumerate(batches(10, 6)):
        scheme = first if n < 3 or n > 7 else second
        model.set_scheme(scheme)
        model.training_step(x, target)
        plain.train(scheme, x, target, 2)
    assert_close(model, plain)


@pytest.mark.parametrize("has_devices", [False, True])
def test_what_is_computed_again_is_computed_with_the_weights_of_its_forward_pass(has_devices):
    class Recomputed(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, x):
            return checkpoint(self.net, x, use_reentrant=False)

    nets, heads = mlp_components(4)
    plain = Queue(*deepcopy((nets, heads)))
    scheme = ib.e2e(4).delay([3, 2, 1, 0])
    model = ib.build_model(list(map(Recomputed, nets)), heads, scheme, sgd, F.mse_loss, seed=SEED)
    if has_devices:
        model.enable_model_parallel(["cpu"] * 4)
        assert any(action.age for _, action in model.schedule)
    for x, target in batches(8, 7):
        model.training_step(x, target)
        plain.train(scheme, x, target, 1)
    for component, net in zip(model.components, plain.nets, strict=True):
        for p, q in zip(component.main_net.parameters(), net.parameters(), strict=True):
            assert torch.allclose(p, q, rtol=0, atol=1e-10)


def test_a_component_without_credit_in_a_step_is_not_updated_in_it():
    nets, heads = mlp_components(3)
    model = ib.build_model(nets, heads, ib.e2e(3).delay([2, 1, 0]), sgd, F.mse_loss)
    before = [deepcopy(net.state_dict()) for net in nets]
    for n, (x, target) in enumerate(batches(3, 7)):
        model.training_step(x, target)
        now = [net.state_dict() for net in nets]
        moved = [any(not torch.equal(a[k], b[k]) for k in a) for a, b in zip(now, before, strict=True)]
        assert moved == [n >= 2, n >= 1, True]


def test_gradients_and_alignment_are_those_of_all_that_a_batch_contributes():
    nets, heads = mlp_components(3)
    late = ib.build_model(nets, heads, ib.e2e(3).delay([2, 1, 0]), sgd, F.mse_loss)
    ((x, target),) = batches(1, 7)
    late.training_step(x, target)
    found, expected = late.gradients(x, target), late.gradients(x, target, ib.e2e(3))
    for a, b in zip(found, expected, strict=True):
        assert all(torch.equal(a.main[name], b.main[name]) for name in b.main)
    assert all(alignment.cosine == pytest.approx(1) for alignment in late.alignment(x, target))


@pytest.mark.parametrize(
    ("options", "word"), [({"accumulate": 2}, "accumulate"), ({"grad_scaler": torch.amp.GradScaler("cpu")}, "bfloat16")]
)
def test_what_does_not_go_with_delay_is_refused(options, word):
    nets, heads = mlp_components(3)
    with pytest.raises(ValueError, match=f"e2e~1.*{word}"):
        ib.build_model(nets, heads, ib.e2e(3).delay(1), sgd, F.mse_loss, **options)


def test_a_change_in_place_of_what_the_backward_pass_needs_is_an_error_there_too():
    class Wrong(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(5, 5).double()

        def forward(self, x):
            y = torch.tanh(self.layer(x))
            z = y * 2
            y.add_(1)
            return z

    nets, heads = mlp_components(3)
    nets[1] = Wrong()
    model = ib.build_model(nets, heads, ib.e2e(3).delay([2, 1, 0]), sgd, F.mse_loss)
    model.enable_model_parallel(["cpu"] * 3)
    assert any(action.age and action.component == 1 for _, action in model.schedule)

    def train():
        for x, target in batches(3, 7):
            model.training_step(x, target)

    with pytest.raises(RuntimeError, match="inplace"):
        train()


@pytest.mark.parametrize("has_devices", [False, True])
def test_a_copy_takes_the_credit_under_way_with_it(has_devices):
    nets, heads = mlp_components(3)
    model = ib.build_model(nets, heads, ib.e2e(3).delay([2, 1, 0]), sgd, F.mse_loss)
    if has_devices:
        model.enable_model_parallel(["cpu"] * 3)
    data = list(batches(6, 7))
    for x, target in data[:3]:
        model.training_step(x, target)
    other = deepcopy(model)
    for one in (model, other):
        for x, target in data[3:]:
            one.training_step(x, target)
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        assert p is not q
        assert torch.equal(p, q)


def test_credit_under_way_survives_a_change_of_devices():
    nets, heads = mlp_components(4)
    others = deepcopy((nets, heads))
    scheme = ib.e2e(4).delay([3, 2, 1, 0])
    model, expected = (ib.build_model(*parts, scheme, sgd, F.mse_loss, seed=SEED) for parts in ((nets, heads), others))
    for n, (x, target) in enumerate(batches(9, 7)):
        if n in (2, 5):
            model.enable_model_parallel(["cpu"] * 4)
        model.training_step(x, target)
        expected.training_step(x, target)
    for p, q in zip(model.parameters(), expected.parameters(), strict=True):
        assert torch.equal(p, q)
