"""The tools of every day do what they are there for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.nn.utils import get_total_norm

import interlocking_backprop as ib
from tests.recipes.registry import checks
from tests.recipes.steps import assert_gradients, flat, main_nets_of, of_definition, weights


@checks("Gradient alignment over training")
def _(names, steps):
    assert len(steps) == len(names["cosines"]) == 4
    for step, cosines in zip(steps, names["cosines"], strict=True):
        whole = step._replace(inputs=names["images"], targets=names["labels"])
        own, end_to_end = (of_definition(whole, scheme=scheme) for scheme in (ib.pairwise(4), ib.e2e(4)))
        for i, net in enumerate(step.nets):
            n = len(weights([net])[0])
            a, b = (torch.cat([g.flatten() for g in found[i][:n]]) for found in (own, end_to_end))
            torch.testing.assert_close(cosines[i], F.cosine_similarity(a, b, dim=0).item(), rtol=0, atol=1e-4)
    assert [row[2:] for row in names["cosines"]] == [pytest.approx([1, 1])] * 4
    # Nothing has been disturbed: the same weights without a look.
    first = steps[0]
    model = ib.build_model(first.nets, first.heads[:3], ib.pairwise(4), names["sgd"], F.cross_entropy)
    for x, y in names["batches"]:
        model.training_step(x, y)
    assert all(map(torch.equal, flat(weights(first.nets)), flat(steps[-1].after)))


@checks("Random schemes")
def _(names, steps):
    assert len({step.scheme.matrix.tobytes() for step in steps}) > 1
    for step in steps:
        assert np.all(step.scheme.matrix.sum(axis=1) == 1)
        assert_gradients(step.gradients, of_definition(step))


@checks("Global clipping")
def _(names, steps):
    (step,) = steps
    n_main = [len(row) for row in step.before]
    found = [g for i, n in enumerate(n_main) for g in step.gradients[i][:n]]
    norm = get_total_norm(found)
    assert norm > 0.2
    moved = [(b - a) / 0.05 for b, a in zip(flat(step.before), flat(step.after), strict=True)]
    torch.testing.assert_close(get_total_norm(moved), torch.tensor(0.1), rtol=1e-3, atol=0)
    torch.testing.assert_close(moved, [g * 0.1 / norm for g in found], rtol=1e-2, atol=1e-5)
    assert names["norms"] == {i: pytest.approx(get_total_norm(gs).item()) for i, gs in step.gradients.items()}


@checks("Accumulation")
def _(names, steps):
    assert [bool(step.gradients) for step in steps] == [False, False, False, True]
    parts = [of_definition(step._replace(nets=steps[0].nets, heads=steps[0].heads)) for step in steps]
    means = {i: [torch.stack(gs).mean(0) for gs in zip(*(part[i] for part in parts), strict=True)] for i in parts[0]}
    assert_gradients(steps[-1].gradients, means)
    assert all(map(torch.equal, flat(steps[0].before), flat(steps[-1].before)))
    # One call with all batches as its micro-batches.
    nets, heads = steps[0].nets, steps[0].heads[:3]
    model = ib.build_model(nets, heads, ib.pairwise(4), names["sgd"], F.cross_entropy, n_microbatches=4)
    model.training_step(names["images"], names["labels"])
    torch.testing.assert_close(weights(nets), steps[-1].after)


@checks("Loss scaling for float16")
def _(names, steps):
    model, scaler = names["model"], names["scaler"]
    for step in steps:
        expected = of_definition(step)
        for i, gradients in step.gradients.items():
            a, b = (torch.cat([g.flatten() for g in found]) for found in (gradients, expected[i]))
            assert F.cosine_similarity(a, b, dim=0) > 0.99
            assert a.norm() / b.norm() == pytest.approx(1, abs=0.05)
    kept, scale = weights(main_nets_of(model)), scaler.get_scale()
    with torch.autocast("cpu", torch.float16):
        model.training_step(names["images"][:16] * 1e30, names["labels"][:16])
    assert all(map(torch.equal, flat(kept), flat(weights(main_nets_of(model)))))
    assert scaler.get_scale() == scale / 2


@checks("EMA of the weights")
def _(names, steps):
    average = steps[0].after
    for step in steps[1:]:
        average = [
            [0.9 * a + 0.1 * w for a, w in zip(*rows, strict=True)] for rows in zip(average, step.after, strict=True)
        ]
    averaged = names["averaged"].module
    torch.testing.assert_close(weights(main_nets_of(averaged)), average)
    assert not torch.equal(average[0][0], steps[-1].after[0][0])
    y = names["images"]
    for net in main_nets_of(averaged):
        assert not net.training
        y = net(y)
    assert torch.equal(names["scores"], y)
    assert torch.equal(averaged.forward_exits(names["images"])[-1], y)
    assert names["model"].training


@checks("CKA between exits")
def _(names, steps):
    found = names["similarities"]
    torch.testing.assert_close(found.diagonal(), torch.ones(4))
    torch.testing.assert_close(found, found.T)
    assert found.min() >= 0
    assert found.max() <= 1 + 1e-6

    def kernel(x):
        centre = torch.eye(64) - 1 / 64
        return centre @ x.flatten(1) @ x.flatten(1).T @ centre

    exits = names["model"].forward_exits(names["images"])
    for i, j in [(0, 1), (1, 3)]:
        a, b = kernel(exits[i]), kernel(exits[j])
        expected = (a * b).sum() / ((a * a).sum() * (b * b).sum()).sqrt()
        torch.testing.assert_close(found[i, j], expected, rtol=1e-3, atol=1e-3)
        assert expected < 0.999
