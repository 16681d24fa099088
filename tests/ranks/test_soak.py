"""A thousand steps in a row on ranks that are never equally fast: no hang, no drift, no leak."""

from __future__ import annotations

import gc
import os
import random
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import interlocking_backprop as ib
from interlocking_backprop.bench.processes import Ranks
from tests.small_nets import mlp_components

K, RANKS, STEPS, SETTLED = 5, 4, 1000, 200


class Delayed(nn.Module):
    """A component whose passes take up to two milliseconds more, forward and backward."""

    def __init__(self, inner: nn.Module, random_numbers: random.Random) -> None:
        super().__init__()
        self.inner = inner
        self._random = random_numbers

    def _delay(self, _: Tensor | None = None) -> None:
        time.sleep(self._random.uniform(0, 0.002))

    def forward(self, x: Tensor) -> Tensor:
        self._delay()
        y = self.inner(x)
        if y.requires_grad:
            y.register_hook(self._delay)
        return y


def model_of(random_numbers: random.Random | None) -> ib.InterlockingBackpropModel:
    main_nets, heads = mlp_components(K, batch_norm=True, dropout=0.2)
    if random_numbers is not None:
        main_nets = [Delayed(net, random_numbers) for net in main_nets]
    sgd = lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9)  # noqa: E731
    return ib.build_model(main_nets, heads, ib.nwise(K, 3, "sum"), sgd, F.mse_loss, n_microbatches=2)


def batch(step: int) -> tuple[Tensor, Tensor]:
    """Every now and then one of another size, whose messages have other shapes."""
    generator = torch.Generator().manual_seed(step)
    size = 7 if step % 50 == 49 else 8
    x, target = (torch.randn(size, 5, generator=generator).double() for _ in range(2))
    return x, target


def weights(model: ib.InterlockingBackpropModel) -> dict[str, Tensor]:
    return {name.replace(".inner.", "."): value for name, value in model.state_dict().items()}


def memory() -> tuple[float, int]:
    """Resident megabytes, and the number of live tensors."""
    gc.collect()
    n_tensors = sum(isinstance(o, Tensor) for o in gc.get_objects())  # itself a list of megabytes, so it comes first
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20, n_tensors


def on_rank(rank: int, size: int) -> dict:
    model = model_of(random.Random(rank))
    model.enable_model_parallel()
    losses, readings = [], {}
    begin = time.perf_counter()
    for step in range(STEPS):
        data = batch(step) if rank == 0 else (None, None)
        losses.append(model.training_step(*data).result())
        if step + 1 in (SETTLED, STEPS):
            readings[step + 1] = memory()
    seconds = time.perf_counter() - begin
    model.shutdown()
    return {"losses": losses, "weights": weights(model), "memory": readings, "seconds": seconds}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_thousand_steps_with_random_delays():
    with Ranks(RANKS, on_rank) as ranks:
        found = ranks.results(timeout=600)
    expected = model_of(None)
    losses = [expected.training_step(*batch(step)).result() for step in range(STEPS)]
    assert found[-1]["losses"] == losses
    state = {name: value for part in found for name, value in part["weights"].items()}
    assert state.keys() == weights(expected).keys()
    for name, value in weights(expected).items():
        assert torch.equal(value, state[name]), name
    for rank, part in enumerate(found):
        (settled, n_settled), (end, n_end) = part["memory"][SETTLED], part["memory"][STEPS]
        print(f"rank {rank}: {settled:.1f} MB -> {end:.1f} MB, {n_settled} -> {n_end} tensors, {part['seconds']:.0f} s")
        assert end - settled < 4, rank
        # Every loss of the 800 steps between is kept by the test itself, on the last rank.
        kept = STEPS - SETTLED if rank == RANKS - 1 else 0
        assert n_end - n_settled == kept, rank
