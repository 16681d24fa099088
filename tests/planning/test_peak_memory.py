"""Peak memory, against sizes that can be worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from interlocking_backprop.planning.peak_memory import peak_bytes

CPU = torch.device("cpu")


def test_tensors_count_once_and_as_long_as_they_live():
    x = torch.ones(1000)

    def step():
        a = x + 1  # 4,000 bytes
        b = a.view(10, 100)
        del a
        c = b * 2  # 8,000
        del b
        d = c.exp_()
        return d + 1  # 8,000

    assert peak_bytes(step, CPU) == 8000


def test_what_was_there_before_does_not_count():
    x = torch.ones(1000, requires_grad=True)
    assert peak_bytes(lambda: x.detach().add_(1), CPU) == 0


@pytest.mark.parametrize(("is_checkpointed", "expected"), [(False, 5), (True, 5)])
def test_what_autograd_saves_counts(is_checkpointed, expected):
    """Four results of tanh and a gradient; checkpointing does not help where everything is computed again at once."""
    x = torch.ones(1000, requires_grad=True)

    def function(x):
        for _ in range(4):
            x = x.tanh()
        return x

    def step():
        y = checkpoint(function, x, use_reentrant=False) if is_checkpointed else function(x)
        y.backward(x.detach())

    peak = peak_bytes(step, CPU)
    assert expected <= peak / 4000 <= expected + 1
