"""No rank keeps more graphs, or weights of the past, than the simulator says, counted where autograd keeps them."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import interlocking_backprop as ib
from interlocking_backprop.bench.processes import on_ranks


class Census:
    """How many graphs are alive in this process, now and at most."""

    def __init__(self) -> None:
        self.now = self.peak = 0

    def enter(self, ctx) -> None:
        """Counts a graph for as long as autograd keeps it."""
        ctx.token = lambda: None
        self.now += 1
        self.peak = max(self.peak, self.now)
        weakref.finalize(ctx.token, self._leave)

    def _leave(self) -> None:
        self.now -= 1


CENSUS = Census()


class WeightCensus:
    """In how many places in memory weights are, now and at most, for each weight."""

    def __init__(self) -> None:
        self._places: dict[nn.Parameter, set[int]] = {}
        self.most = 0

    def note(self, weight: nn.Parameter) -> None:
        """Counts the memory that a weight has now, for as long as somebody keeps it."""
        storage = weight.data.untyped_storage()
        places = self._places.setdefault(weight, set())
        address = storage.data_ptr()
        if address not in places:
            places.add(address)
            self.most = max(self.most, len(places))
            weakref.finalize(storage, places.discard, address)


WEIGHTS = WeightCensus()


class Marked(torch.autograd.Function):
    """The identity; a node of its own in every graph."""

    @staticmethod
    def forward(ctx, x):
        CENSUS.enter(ctx)
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


class Counted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3))

    def forward(self, x):
        WEIGHTS.note(self.inner[0].weight)
        y = self.inner(x)
        return Marked.apply(y) if y.requires_grad else y


def random_cases(size: int) -> list[tuple[ib.Scheme, int, int | None]]:
    """Some schemes of K >= size components, with M and a bound on the graphs."""
    rng = np.random.default_rng(size)
    cases: list[tuple[ib.Scheme, int, int | None]] = [
        (ib.nwise(size + 1, 3), 2, None),
        (ib.nwise(size + 2, 2, "sum"), 3, None),
        (ib.e2e(size), 4, None),
        (ib.e2e(size), 6, size),
        (ib.e2e(size).delay(ib.least_delays(ib.e2e(size), 2)), 2, None),
        (ib.e2e(size).delay(3), 1, None),
        (ib.pairwise(size + 1) + ib.e2e(size + 1).delay(2), 2, None),
    ]
    for _ in range(2):
        k = int(rng.integers(size, 7))
        matrix = np.triu(rng.integers(-1, 3, (k, k)) * (rng.random((k, k)) < 0.6))
        cases.append((ib.Scheme(matrix.tolist(), name="random"), int(rng.integers(1, 5)), None))
    return cases


def on_rank(rank: int, size: int) -> list[tuple[str, int, int, int, bool]]:
    """For each case: its name, the most graphs alive, those that the simulator says, those left, whether all count."""
    gc.disable()  # what waits for the collector is alive
    found = []
    for scheme, m, max_graphs in random_cases(size):
        torch.manual_seed(0)
        k = scheme.n_components
        used = scheme.uses.any(axis=0)
        heads = [nn.Linear(3, 2) if used[j] else None for j in range(k - 1)]
        last = nn.Sequential(Counted(), nn.Linear(3, 2))
        model = ib.build_model(
            [*(Counted() for _ in range(k - 1)), last],
            heads,
            scheme,
            lambda p: torch.optim.SGD(p, lr=0.1),
            F.mse_loss,
            n_microbatches=m,
        )
        model.enable_model_parallel(max_graphs=max_graphs)
        CENSUS.now = CENSUS.peak = 0
        batch = (torch.randn(8, 3), torch.randn(8, 2)) if rank == 0 else (None, None)
        WEIGHTS.most = 0
        for _ in range(4 + scheme.max_delay):
            model.training_step(*batch)
        model.settle()
        left = CENSUS.now
        schedule = model.schedule
        simulated = ib.simulate(schedule, ib.Costs.uniform(k)).peak_graphs[rank]
        has_passes = all(schedule.workload.components[i].passes for i in schedule.components_of(rank))
        found.append((f"{scheme.name}, M = {m}", CENSUS.peak, simulated, left, has_passes))
        # Those of now, and one for each age that is used.
        assert WEIGHTS.most <= 1 + max((action.age for _, action in schedule), default=0), scheme.name
        model.shutdown()
        if max_graphs is not None:
            assert simulated <= max_graphs
    return found


@pytest.mark.parametrize("size", [2, 3, 4])
def test_no_more_graphs_than_simulated(size):
    for rank, found in enumerate(on_ranks(size, on_rank)):
        for name, peak, simulated, left, has_passes in found:
            assert peak <= simulated, (name, rank)
            assert left == 0, (name, rank)
            if has_passes:  # else its output is held for a loss, without a graph
                assert peak == simulated, (name, rank)
