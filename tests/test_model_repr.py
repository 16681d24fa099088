"""What a model and the future of a step look like on a screen and in a notebook."""

from __future__ import annotations

from concurrent.futures import Future
from xml.etree import ElementTree

import torch
from torch import nn
from torch.nn import functional as F

import interlocking_backprop as ib
from interlocking_backprop.bench.processes import on_ranks
from tests.small_models import batch, model_of, sgd
from tests.small_nets import mlp_components


def test_a_model_in_a_table():
    nets, heads = mlp_components(4)
    matrix = [[0, 1, 0, 0], [0, 1, 1, 1], [0, 0, 0, 0], [0, 0, 0, -2]]
    model = ib.build_model(nets, [None, *heads[1:]], ib.Scheme(matrix, name="mine"), sgd, F.mse_loss, n_microbatches=2)
    assert repr(model) == (
        """\
InterlockingBackpropModel: mine, K = 4, M = 2, 240 parameters (and 120 of heads)
     main net    parameters  head        parameters  trained by loss  optimizer  device
  0  Sequential          60                          1                SGD        cpu
  1  Sequential          60  Sequential          60  1 to 3           SGD        cpu
  2  Sequential          60  Sequential          60  none             SGD        cpu
  3  Sequential          60                          3                SGD        cpu"""
    )
    model.set_scheme(ib.e2e(4))
    assert repr(model).startswith("InterlockingBackpropModel: e2e, K = 4")


class NetOfSomebodyWhoLikesLongNames(nn.Sequential):
    pass


def test_a_deep_model_fits_a_screen():
    nets, heads = ([NetOfSomebodyWhoLikesLongNames(net) for net in row] for row in mlp_components(100))
    lines = repr(ib.build_model(nets, heads, ib.decaying(100, 0.5), sgd, F.mse_loss)).splitlines()
    assert len(lines) == 23
    assert lines[2].split()[1:4] == ["NetOfSomebodyWhoLik…", "60", "NetOfSomebodyWhoLik…"]
    assert max(map(len, lines)) <= 120
    assert [line.split()[0] for line in lines[2:]] == [*map(str, range(10)), "…", *map(str, range(90, 100))]


def test_devices_without_a_process_of_their_own():
    model = model_of(ib.local(2))
    model.enable_model_parallel(["cpu", "cpu"])
    assert [line.split()[-1] for line in repr(model).splitlines()[2:]] == ["cpu", "cpu"]


def test_a_model_in_a_notebook():
    html = model_of(ib.Scheme([[1, 1], [0, 1]], name="a < b"))._repr_html_()
    root = ElementTree.fromstring(f"<div>{html}</div>")
    assert [cell.text for cell in root.iter("td")][:6] == ["0", "Sequential", "60", "Sequential", "60", "0, 1"]
    assert html.count("<svg") == 1


def shown(rank: int, size: int) -> tuple[str, str]:
    model = model_of(ib.pairwise(4))
    model.enable_model_parallel()
    future = model.training_step(*(batch() if rank == 0 else (None, None)))
    model.shutdown()
    return repr(model), repr(future)


def test_on_ranks_each_says_what_it_has():
    (first, on_first), (last, on_last) = on_ranks(2, shown)
    assert "rank 0 of 2" in first
    assert "rank 1 of 2" in last
    assert [line.endswith("another rank's") for line in first.splitlines()[2:]] == [False, False, True, True]
    assert [line.endswith("another rank's") for line in last.splitlines()[2:]] == [True, True, False, False]
    assert on_first == "<Future: the loss is on the last rank>"
    assert on_last.startswith("<Future: loss ")


def test_a_future_shows_the_loss():
    future = model_of(ib.local(2)).training_step(*batch())
    assert isinstance(future, Future)
    assert isinstance(future.result(), torch.Tensor)
    assert repr(future) == f"<Future: loss {future.result().item():.6g}>"
