"""Every recipe is short, runs as it stands on the page, and does what is claimed, by plain autograd.

A new recipe is a section of the page, and a function here that is registered for its heading. It gets the names that
the section's code has left behind, and the training steps that it has made.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import get_total_norm

import interlocking_backprop as ib
from tests.recipe_steps import Step, assert_gradients, flat, main_nets_of, of_definition, recorded, weights

PAGES = [Path(__file__).parents[1] / "docs" / "recipes.md"]
MOST_LINES = 8

_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


class Recipe(NamedTuple):
    preamble: str
    name: str
    text: str

    @property
    def code(self) -> str:
        (code,) = _BLOCK.findall(self.text)
        return code

    @property
    def lines(self) -> list[str]:
        """What a user writes, imports aside."""
        return [line for line in self.code.splitlines() if line and not re.match(r"(import|from) ", line)]


def recipes() -> list[Recipe]:
    found = []
    for page in PAGES:
        beginning, *sections = re.split(r"^## ", page.read_text(), flags=re.MULTILINE)
        (preamble,) = _BLOCK.findall(beginning)
        found += [Recipe(preamble, *section.split("\n", 1)) for section in sections]
    return found


RECIPES = recipes()


@pytest.fixture
def steps(monkeypatch) -> list[Step]:
    return recorded(monkeypatch)


CHECKS: dict[str, Callable[..., None]] = {}


def checks(name: str):
    def register(function):
        CHECKS[name] = function
        return function

    return register


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("recipe", RECIPES, ids=[recipe.name for recipe in RECIPES])
def test_a_recipe_does_what_it_claims(recipe, steps):
    names: dict[str, Any] = {"__name__": "recipe"}
    exec(compile(recipe.preamble, "the beginning of the page", "exec"), names)
    exec(compile(recipe.code, recipe.name, "exec"), names)
    assert recipe.name in CHECKS, "what does this recipe achieve? Say so in a function that checks it."
    CHECKS[recipe.name](names, list(steps))


@pytest.mark.parametrize("recipe", RECIPES, ids=[recipe.name for recipe in RECIPES])
def test_a_recipe_is_short_and_needs_no_private_names(recipe):
    assert len(recipe.lines) <= MOST_LINES
    assert [line for line in recipe.code.splitlines() if len(line) > 120 or ";" in line] == []
    assert re.findall(r"\._\w+", recipe.code) == []
    before, after = (part.strip() for part in _BLOCK.split(recipe.text)[::2])
    assert before.endswith(".")
    assert after.endswith(".")


def test_there_are_recipes():
    assert len(RECIPES) >= 13
    assert set(CHECKS) == {recipe.name for recipe in RECIPES}


def test_lines_are_counted():
    code = "import copy\nfrom torch import nn\n\n\ndef f():\n    # a comment\n    return 1\n\n\nx = f()\n"
    assert Recipe("", "", f"Text.\n\n```python\n{code}```\n").lines == [
        "def f():",
        "    # a comment",
        "    return 1",
        "x = f()",
    ]


@checks("DGL")
def _(names, steps):
    (step,) = steps
    # Of component 0 by its own loss alone, without the scheme and without what is above.
    net, head = copy.deepcopy((step.nets[0], step.heads[0]))
    loss = F.cross_entropy(head(net(step.inputs)), step.targets)
    expected = torch.autograd.grad(loss, [*net.parameters(), *head.parameters()])
    assert_gradients({0: step.gradients[0]}, {0: list(expected)})
    assert_gradients(step.gradients, of_definition(step, scheme=ib.local(4)))
    assert {str(action.kind) for action in names["model"].schedule.actions[0]}.isdisjoint("IB")
    assert [sum(isinstance(m, nn.Conv2d) for m in head.modules()) for head in names["heads"]] == [3] * 3


@checks("PredSim")
def _(names, steps):
    (step,) = steps

    def cosines(x):
        x = x - x.mean(dim=1, keepdim=True)
        x = x / x.norm(dim=1, keepdim=True)
        return x @ x.T

    def loss(i, output, target):
        if i == 3:
            return F.cross_entropy(output, target)
        difference = cosines(output["features"].flatten(2).std(dim=2)) - cosines(torch.eye(10)[target])
        return 0.01 * F.cross_entropy(output["scores"], target) + 0.99 * difference.square().mean()

    assert_gradients(step.gradients, of_definition(step, loss, scheme=ib.local(4)))


@checks("InfoPro with weights per depth")
def _(names, steps):
    (step,) = steps

    def loss(i, output, target):
        if i == 3:
            return F.cross_entropy(output, target)
        of_image, of_scores = [(5.0, 0.5), (2.5, 0.75), (0.0, 1.0)][i]
        image = F.binary_cross_entropy(output["image"].sigmoid(), step.inputs)
        return of_image * image + of_scores * F.cross_entropy(output["scores"], target)

    assert_gradients(step.gradients, of_definition(step, loss, scheme=ib.local(4)))


@checks("AugLocal")
def _(names, steps):
    (step,) = steps
    assert_gradients(step.gradients, of_definition(step, scheme=ib.local(4)))
    blocks, n_above = names["blocks"], [len(names["main_nets"][i]) for i in range(4)]
    for i, (head, n_chosen) in enumerate(zip(step.heads[:3], (3, 2, 1), strict=True)):
        above = blocks[sum(n_above[: i + 1]) : -3]
        assert len(head) == min(n_chosen, len(above)) + 3
        assert [str(block) for block in head] == [str(block) for block in [*above[: len(head) - 3], *blocks[-3:]]]
        own, of_network = head[0][0].weight, {id(p): p for block in blocks for p in block.parameters()}
        assert not {id(p) for p in names["heads"][i].parameters()} & set(of_network)
        assert not any(torch.equal(own, p) for net in step.nets for p in net.parameters())


@checks("HPFF's cascade")
def _(names, steps):
    (step,) = steps
    nets, heads = copy.deepcopy(([step.nets[i] for i in (0, 1, 3, 5)], [step.heads[i] for i in (0, 1, 3)]))
    of_pairs = [*copy.deepcopy([step.heads[2], step.heads[4]]), nn.Identity()]
    heads.append(nn.Identity())
    x = step.inputs
    for k, net in enumerate(nets):
        x = x.detach()
        loss = F.cross_entropy(heads[k](net(x)), step.targets)  # its own head
        if k == 3:
            loss = 0 * loss  # the network's loss is that of the last pair as well, and counts once
        if k > 0:  # the pair that it ends
            loss = loss + F.cross_entropy(of_pairs[k - 1](net(x)), step.targets)
        if k < 3:  # the pair that it begins
            loss = loss + F.cross_entropy(of_pairs[k](nets[k + 1](net(x))), step.targets)
        expected = torch.autograd.grad(loss, list(net.parameters()))
        place = (0, 1, 3, 5)[k]
        assert_gradients({k: step.gradients[place][: len(expected)]}, {k: list(expected)})
        x = net(x)


@checks("Two views")
def _(names, steps):
    (step,) = steps
    halves = torch.cat([names["images"], names["images"].flip(-1)])  # the views one after the other
    nets = [step.nets[0][1], *step.nets[1:]]

    def loss(i, output, _):
        first, second = (half / half.norm(dim=1, keepdim=True) for half in output.chunk(2))
        return -((first @ second.T) / 0.1).log_softmax(dim=1).diagonal().mean()

    assert step.inputs.shape == (64, 2, 1, 16, 16)
    assert_gradients(step.gradients, of_definition(step, loss, nets=nets, inputs=halves, scheme=ib.nwise(4, 2, "sum")))


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
