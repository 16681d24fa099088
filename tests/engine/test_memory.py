"""What is alive at once: a few components' graphs, one component's weight gradients."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import interlocking_backprop as ib


class SavedBytes:
    """Counts the bytes of activations that autograd keeps for backward passes, as long as it keeps them."""

    def __init__(self, weights) -> None:
        self.now = self.peak = 0
        self._weights = {w.data_ptr() for w in weights}

    def __enter__(self) -> SavedBytes:
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, self._unpack)
        self._hooks.__enter__()
        return self

    def __exit__(self, *exc_info) -> None:
        self._hooks.__exit__(*exc_info)

    def _pack(self, tensor):
        if tensor.data_ptr() in self._weights:  # kept anyway; saved as a transposed view
            return lambda: tensor
        size = tensor.nbytes
        self.now += size
        self.peak = max(self.peak, self.now)

        def kept():
            return tensor

        weakref.finalize(kept, self._free, size)
        return kept

    def _unpack(self, kept):
        return kept()

    def _free(self, size: int) -> None:
        self.now -= size


def peak_saved_bytes(scheme: ib.Scheme, m: int = 1) -> tuple[int, int]:
    """The peak over a training step, and what a single head, or the last loss, saves."""
    k = scheme.n_components
    torch.manual_seed(0)
    main_nets = [nn.Sequential(nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh()) for _ in range(k)]
    heads = [nn.Linear(32, 10) for _ in range(k - 1)]
    model = ib.build_model(
        main_nets, heads, scheme, lambda p: torch.optim.SGD(p, lr=0.1), F.cross_entropy, n_microbatches=m
    )
    x, target = torch.randn(64, 32), torch.randint(0, 10, (64,))
    with SavedBytes(heads[0].parameters()) as head:
        output = x.clone().requires_grad_()
        F.cross_entropy(heads[0](output), target)
        F.cross_entropy(output, target)
    with SavedBytes(model.parameters()) as saved:
        model.training_step(x, target).result()
    assert saved.now == 0  # everything has been freed
    return saved.peak, head.peak


def test_a_graph_is_freed_as_soon_as_it_has_served_everybody():
    k = 16
    e2e, head = peak_saved_bytes(ib.e2e(k))
    for n in (1, 2, 3, 5):
        peak, _ = peak_saved_bytes(ib.nwise(k, n))
        assert peak <= e2e * n / k + head, n
    assert peak_saved_bytes(ib.nwise(k, 2))[0] <= e2e * 3 / 16 + head


def test_micro_batches_divide_the_peak():
    assert peak_saved_bytes(ib.e2e(4), m=4)[0] == pytest.approx(peak_saved_bytes(ib.e2e(4))[0] / 4, rel=0.05)


@pytest.mark.parametrize("scheme", [ib.local(6), ib.pairwise(6), ib.nwise(6, 3, "sum"), ib.e2e(6)])
def test_one_component_at_a_time_has_weight_gradients(scheme):
    main_nets = [nn.Sequential(nn.Linear(4, 4), nn.Tanh()) for _ in range(6)]
    heads = [None if scheme == ib.e2e(6) else nn.Linear(4, 4) for _ in range(5)]
    most = 0

    class Watched(torch.optim.SGD):
        def step(self, closure=None):
            nonlocal most
            most = max(most, sum(any(p.grad is not None for p in net.parameters()) for net in main_nets))
            super().step(closure)

    model = ib.build_model(main_nets, heads, scheme, lambda p: Watched(p, lr=0.1), F.mse_loss)
    model.training_step(torch.randn(6, 4), torch.randn(6, 4))
    assert most == 1
    assert all(p.grad is None for p in model.parameters())
