"""What docs/recipes-heads.md shows can be run, is short, and does what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

PAGE = Path(__file__).parents[1] / "docs" / "recipes-heads.md"
SETUP, STALE, MOMENTUM = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def names():
    found: dict[str, object] = {"__name__": "snippet"}
    exec(SETUP, found)
    return found


def test_they_are_short():
    assert all(len(recipe.splitlines()) <= 8 for recipe in (STALE, MOMENTUM))


def test_a_stale_shared_readout(names):
    seen, batches = [], names["batches"]

    def watched():
        for batch in batches:
            yield batch
            seen.append([p.clone() for p in (names["heads"][0][2].module.weight, names["readout"].weight)])

    names["batches"] = watched()
    exec(STALE, names)
    assert len(seen) == 4
    assert torch.equal(seen[3][0], seen[3][1])
    assert torch.equal(seen[2][0], seen[1][1])
    assert not torch.equal(seen[2][0], seen[2][1])
    held = {p for c in names["model"].components for o in c.optimizers for g in o.param_groups for p in g["params"]}
    assert held == {*names["model"].main_net_parameters()}


def test_momentum_heads(names):
    start = [p.clone() for p in names["main_nets"][1].parameters()]
    exec(MOMENTUM, names)
    copied, source = names["averages"][0].module, names["main_nets"][1]
    for begin, average, end in zip(start, copied.parameters(), source.parameters(), strict=True):
        if begin.dim() == 4:
            assert 0 < (average - begin).norm() < 0.1 * (end - begin).norm()
    for average, own in zip(copied.buffers(), source.buffers(), strict=True):
        assert torch.equal(average, own)
    assert names["model"].components[0].aux_net[1] is names["aux_nets"][1]
