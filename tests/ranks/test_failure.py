"""When a rank fails, every rank ends soon, with an error that names it and the cause, and no process is left."""

from __future__ import annotations

import os
import signal
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import interlocking_backprop as ib
from interlocking_backprop.bench.processes import Ranks
from tests.small_nets import mlp_components

K = 4
LIMIT = 30.0


class Trap(nn.Module):
    """Does something bad in the forward pass of the fourth step."""

    def __init__(self, what: str, folder: str) -> None:
        super().__init__()
        self.what, self.folder, self.n = what, folder, 0

    def forward(self, x):
        self.n += 1
        if self.n == 4:
            Path(self.folder, "sprung").write_text(str(time.time()))
            if self.what == "raise":
                raise ArithmeticError("the sum is wrong")
            if self.what == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.what == "hang":
                time.sleep(1000)
            if self.what == "exit":
                os._exit(3)
        return x


def train(rank: int, size: int, what: str, where: int, folder: str, scheme: str) -> None:
    main_nets, aux_nets = mlp_components(K)
    main_nets[where] = nn.Sequential(main_nets[where], Trap(what, folder))
    sgd = lambda p: torch.optim.SGD(p, lr=0.1)  # noqa: E731
    model = ib.build_model(main_nets, aux_nets, ib.parse_scheme(scheme, K), sgd, F.mse_loss)
    model.enable_model_parallel(timeout=timedelta(seconds=4))
    data = torch.randn(6, 5).double() if rank == 0 else None
    for _ in range(10):
        model.training_step(data, data).result()


@pytest.mark.parametrize(
    ("where", "scheme"),
    [
        (0, "e2e"),
        (2, "e2e"),
        (3, "e2e"),
        (3, "local"),
        *(pytest.param(w, "local", marks=pytest.mark.slow) for w in (0, 2)),
    ],
)
@pytest.mark.parametrize(
    ("what", "cause"),
    [
        (
            "raise",
            "ArithmeticError: the sum is wrong; component {where} got (6, 5) float64; in component {where}, forward",
        ),
        ("kill", "its process has ended"),
        ("hang", "it hangs in model.training_step(), action {where}F0"),
        ("exit", "its process has ended"),
    ],
)
def test_every_rank_ends_and_says_why(tmp_path, what, where, cause, scheme):
    with Ranks(K, train, what, where, str(tmp_path), scheme) as ranks:
        codes = ranks.join(60)
        ended = time.time()
        errors = ranks.errors()
    assert all(code not in (0, None) for code in codes), (codes, errors)
    assert ended - float((tmp_path / "sprung").read_text()) < LIMIT
    for rank in range(K):
        if rank != where:
            named = f"rank {where} failed: {cause.format(where=where)}" in errors[rank]
            # Rank 0 serves the store: when it is killed, what the others know is that it is gone.
            gone = where == 0 and what in ("kill", "exit") and "rank 0 failed: " in errors[rank]
            assert named or gone, errors[rank]
    if what == "raise":
        assert "ArithmeticError: the sum is wrong" in errors[where]


def outside(rank: int, size: int) -> None:
    model = ib.build_model(*mlp_components(2), ib.local(2), lambda p: torch.optim.SGD(p, lr=0.1), F.mse_loss)
    model.enable_model_parallel(timeout=timedelta(seconds=4))
    data = torch.randn(6, 5).double() if rank == 0 else None
    for step in range(10):
        if rank == 1 and step == 3:
            time.sleep(1000)
        model.training_step(data, data).result()
        model(data)  # keeps rank 0 from running ahead


def test_a_rank_that_hangs_between_steps_is_named():
    with Ranks(2, outside) as ranks:
        codes = ranks.join(60)
        errors = ranks.errors()
    assert all(code not in (0, None) for code in codes)
    assert "rank 1 failed: it hangs in code outside of the model" in errors[0]


def different_calls(rank: int, size: int) -> None:
    model = ib.build_model(*mlp_components(2), ib.local(2), lambda p: torch.optim.SGD(p, lr=0.1), F.mse_loss)
    model.enable_model_parallel(timeout=timedelta(seconds=10))
    data = torch.randn(6, 5).double() if rank == 0 else None
    model.training_step(data, data)
    if rank == 0:
        model(data)
    else:
        model.training_step(None, None)


def test_ranks_that_make_different_calls_are_told():
    with Ranks(2, different_calls) as ranks:
        codes = ranks.join(60)
        errors = ranks.errors()
    assert codes[1] == 1
    assert "rank 1 calls model.training_step(), but rank 0 model(inputs)" in errors[1]


def different_models(rank: int, size: int, what: str) -> str:
    nets = mlp_components(2, width=6 if what == "shape" and rank == 1 else 5)
    scheme = ib.e2e(2) if what == "scheme" and rank == 1 else ib.local(2)
    optimizer = torch.optim.Adam if what == "optimizer" and rank == 1 else torch.optim.SGD
    m = 2 if what == "microbatches" and rank == 1 else 1
    model = ib.build_model(*nets, scheme, lambda p: optimizer(p, lr=0.1), F.mse_loss, n_microbatches=m)
    try:
        model.enable_model_parallel()
    except ValueError as error:
        return str(error)
    return "no error"


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("shape", "rank 1 differs from rank 0 in its component 0: [('main_net.0.weight', (6, 6)"),
        ("scheme", "rank 1 differs from rank 0 in its scheme: ('e2e', "),
        ("optimizer", "rank 1 differs from rank 0 in its optimizer of component 0: ['Adam'] in place of ['SGD']"),
        ("microbatches", "rank 1 differs from rank 0 in its n_microbatches: 2 in place of 1"),
    ],
)
def test_ranks_that_built_different_models_are_told(what, message):
    with Ranks(2, different_models, what) as ranks:
        for error in ranks.results():
            assert message in error


def too_many(rank: int, size: int) -> str:
    model = ib.build_model(*mlp_components(2), ib.local(2), lambda p: torch.optim.SGD(p, lr=0.1), F.mse_loss)
    try:
        model.enable_model_parallel()
    except ValueError as error:
        return str(error)
    return "no error"


def test_more_ranks_than_components_are_explained():
    with Ranks(3, too_many) as ranks:
        assert all("3 ranks for 2 components" in error for error in ranks.results())


def scheme_on_one_rank(rank: int, size: int) -> None:
    model = ib.build_model(*mlp_components(2), ib.local(2), lambda p: torch.optim.SGD(p, lr=0.1), F.mse_loss)
    model.enable_model_parallel()
    data = torch.randn(6, 5).double() if rank == 0 else None
    model.training_step(data, data)
    if rank == 0:
        model.set_scheme(ib.e2e(2))
    model.training_step(data, data)


def test_a_scheme_that_is_set_on_one_rank_only_is_noticed():
    with Ranks(2, scheme_on_one_rank) as ranks:
        codes = ranks.join(60)
        errors = ranks.errors()
    assert codes == [1, 1]
    assert "rank 1 follows scheme 'local' by another schedule than rank 0; call set_scheme()" in errors[1]


class Growing(nn.Module):
    """Returns another shape each time, for the same input."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.n = nn.Linear(5, 5).double(), 0

    def forward(self, x):
        self.n += 1
        return self.layer(x).repeat(1, self.n)


def changing_shapes(rank: int, size: int) -> None:
    nets = [Growing(), nn.AdaptiveAvgPool1d(5)]
    model = ib.build_model(nets, [None], ib.e2e(2), lambda p: torch.optim.SGD(p, lr=0.1), F.mse_loss)
    model.enable_model_parallel()
    data = torch.randn(6, 5).double() if rank == 0 else None
    for _ in range(2):
        model.training_step(data, data)


def test_shapes_that_do_not_follow_from_the_inputs_are_explained():
    with Ranks(2, changing_shapes) as ranks:
        ranks.join(60)
        assert "component 0 returned (6, 10)" in ranks.errors()[0]
