"""Cutting a row of blocks: what is balanced, what is left alone, and what cannot be cut."""

from __future__ import annotations

import itertools
import time
from collections import OrderedDict

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

import interlocking_backprop as ib
from interlocking_backprop.nets.partition import partition


class Sleep(nn.Module):
    """A block that takes as long as it is told to, forward; backward it takes no time."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds
        self.weight = nn.Parameter(torch.ones(4))

    def forward(self, x):
        time.sleep(self.seconds)
        return x * self.weight


class Nested(nn.Module):
    """A block between nested activations."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(4, width)
        self.back = nn.Linear(width, 4)

    def forward(self, state):
        h, (mask,) = state["h"], state["rest"]
        return {"h": self.back(torch.tanh(self.layer(h))) * mask, "rest": (mask,)}


def linears(*widths: int) -> nn.Sequential:
    return nn.Sequential(*[nn.Linear(a, b) for a, b in itertools.pairwise(widths)])


def test_time_puts_the_slow_block_by_itself():
    parts = partition([Sleep(0), Sleep(0), Sleep(0.02), Sleep(0)], 3, torch.randn(2, 4))
    assert parts.sizes == [2, 1, 1]
    assert 0.02 < parts.costs[1] < 0.04
    assert parts.balance == pytest.approx(max(parts.costs) / (sum(parts.costs) / 3))


def test_time_counts_the_backward_pass():
    class SlowBackward(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            time.sleep(0.01)
            return g

    class Slow(nn.Module):
        def forward(self, x):
            return SlowBackward.apply(x)

    assert partition([Sleep(0.005), Sleep(0.005), Slow()], 2, torch.randn(2, 4)).sizes == [2, 1]


def test_parameters_are_bytes():
    net = linears(4, 4, 4, 40, 4)
    parts = partition(net, 3, torch.randn(2, 4), by="parameters")
    assert parts.sizes == [2, 1, 1]
    assert parts.costs == [4.0 * 2 * (4 * 4 + 4), 4.0 * (40 * 4 + 40), 4.0 * (4 * 40 + 4)]
    assert partition(net.bfloat16(), 3, torch.randn(2, 4).bfloat16(), by="parameters").costs == [80.0, 400.0, 328.0]


def test_activations_are_what_is_kept_for_the_backward_pass_and_the_output():
    """Counted by hand: what two blocks share counts once, parameters do not count."""
    n, c = 8, 16
    unit = 4 * n * c
    net = nn.Sequential(
        nn.Linear(c, c),  # its output; the input belongs to who sends it
        nn.Tanh(),  # its output, which it keeps too
        nn.Linear(c, 3 * c),  # three times as wide
        nn.Sequential(nn.Linear(3 * c, 3 * c), nn.Sigmoid(), nn.Linear(3 * c, c)),  # inner one: Sigmoid's result
    )
    parts = partition(net, 4, torch.randn(n, c), by="activations")
    assert parts.costs == [unit, unit, 3 * unit, 3 * unit + unit]


def test_activations_of_a_block_that_works_in_place_count_once():
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(inplace=True), nn.Linear(8, 2))
    parts = partition(net, 2, torch.randn(3, 4), by="activations")
    assert parts.costs == [4 * 3 * 8, 4 * 3 * 2]


def test_flops_are_those_of_products():
    parts = partition(linears(4, 4, 4, 40, 4), 3, torch.randn(2, 4), by="flops")
    assert parts.sizes == [2, 1, 1]
    assert parts.costs == [2.0 * 2 * 2 * 16, 2.0 * 2 * 160, 2.0 * 2 * 160]


def test_flops_of_attention_count_on_every_device():
    class Attention(nn.Module):
        def forward(self, x):
            return F.scaled_dot_product_attention(x, x, x)

    parts = partition([Attention()], 1, torch.randn(2, 3, 5, 8), by="flops")
    assert parts.costs == [2 * (2 * 2 * 3 * 5 * 5 * 8)]


def test_names_of_blocks_are_kept_so_that_keys_do_not_depend_on_the_cut():
    layers = OrderedDict(stem=nn.Linear(4, 4), middle=nn.Linear(4, 4), head=nn.Linear(4, 2))
    net = nn.Sequential(layers)
    for k in (1, 2, 3):
        parts = partition(net, k, torch.randn(2, 4), by="parameters")
        assert [key for part in parts for key in part.state_dict()] == list(net.state_dict())
    listed = partition(list(net), 2, torch.randn(2, 4), by="parameters")
    assert [name for part in listed for name, _ in part.named_children()] == ["0", "1", "2"]
    assert listed[0][0] is net.stem


def test_a_partition_is_a_sequence_of_main_nets():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 2))
    x = torch.randn(32, 4)
    parts = partition(net, 3, x, by="flops")
    expected = net(x)
    model = ib.build_e2e_model(parts, lambda p: torch.optim.SGD(p, lr=0.1), None, F.mse_loss)
    assert len(parts) == len(model.components) == 3
    assert torch.equal(model(x), expected)
    assert list(parts[1:]) == [parts[1], parts[2]]
    losses = [model.training_step(x, x[:, :2]).result().item() for _ in range(50)]
    assert losses[-1] < losses[0] / 3


def test_nested_activations():
    state = {"h": torch.randn(5, 4), "rest": (torch.ones(5, 1),)}
    blocks = [Nested(4), Nested(4), Nested(400)]
    for by in ("time", "parameters", "activations", "flops"):
        assert partition(blocks, 2, state, by=by).sizes == [2, 1]


def test_a_module_that_occurs_twice():
    """It has no parameters, so that it may be in two components."""
    act = nn.Tanh()
    net = nn.Sequential(nn.Linear(4, 4), act, nn.Linear(4, 4), act)
    parts = partition(net, 2, torch.randn(2, 4), by="parameters")
    assert [list(part._modules) for part in parts] == [["0"], ["1", "2", "3"]]


def test_everything_is_left_as_it_was():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(8, 2))
    net[0].weight.grad = torch.ones(8, 4)
    net.eval()
    net[3].train()
    x = torch.randn(6, 4)
    x_before, before = x.clone(), {name: t.clone() for name, t in net.state_dict().items()}
    generator = torch.get_rng_state()
    for by in ("time", "parameters", "activations", "flops"):
        parts = partition(net, 2, x, by=by)
        assert torch.equal(torch.get_rng_state(), generator)
        assert all(torch.equal(t, before[name]) for name, t in net.state_dict().items())
        assert [module.training for module in net.modules()] == [False, False, False, False, True, False]
        assert [name for name, p in net.named_parameters() if p.grad is not None] == ["0.weight"]
        assert torch.equal(net[0].weight.grad, torch.ones(8, 4))
        assert torch.equal(x, x_before)
        assert not parts[0].training


class TestInPlaceBlocks:
    def test_no_component_begins_with_one(self):
        net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(inplace=True), nn.Linear(8, 8), nn.ReLU(inplace=True))
        parts = partition(net, 2, torch.randn(2, 8), by="activations")
        assert parts.sizes == [2, 2]
        model = ib.build_e2e_model(parts, lambda p: torch.optim.SGD(p, lr=0.1), None, F.mse_loss)
        model.training_step(torch.randn(2, 8), torch.randn(2, 8)).result()

    def test_nor_with_a_view_that_one_follows(self):
        net = nn.Sequential(nn.Linear(8, 8), nn.Unflatten(1, (2, 4)), nn.Flatten(), nn.ReLU(inplace=True))
        assert partition(net, 1, torch.randn(2, 8)).sizes == [4]
        with pytest.raises(ValueError, match=r"3 of the 4 blocks change their input in place \(block 1 is the first\)"):
            partition(net, 2, torch.randn(2, 8))

    def test_the_first_block_may_be_one_and_the_sample_stays(self):
        x = torch.randn(2, 8)
        before = x.clone()
        for by in ("time", "parameters", "activations", "flops"):
            parts = partition([nn.ReLU(inplace=True), nn.Linear(8, 8), nn.Linear(8, 8)], 3, x, by=by)
            assert parts.sizes == [1, 1, 1]
        assert torch.equal(x, before)

    def test_too_few_cuts_are_left(self):
        net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(inplace=True), nn.Linear(8, 8))
        with pytest.raises(ValueError, match="choose at most 2 components, or make those blocks out of place"):
            partition(net, 3, torch.randn(2, 8))


class TestSharedParameters:
    def blocks(self) -> list[nn.Module]:
        first, last = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        last.weight = first.weight
        return [first, nn.Tanh(), last]

    def test_in_one_component(self):
        assert partition(self.blocks(), 1, torch.randn(2, 4)).sizes == [3]

    def test_across_components(self):
        first, last = partition(self.blocks(), 2, torch.randn(2, 4), by="flops")
        assert next(first.parameters()) is next(last.parameters())  # build_model keeps them tied


def test_it_says_how_balanced_it_is():
    net = nn.Sequential(OrderedDict(a=nn.Linear(511, 512), b=nn.Linear(512, 512), c=nn.Linear(512, 1023)))
    parts = partition(net, 2, torch.randn(2, 511), by="parameters")
    assert str(parts).splitlines() == [
        "2 components, balanced by parameters: largest / mean = 1.00",
        "component 0: a … b (2 blocks), 2 MiB",
        "component 1: c (1 block), 2 MiB",
    ]
    assert str(partition(net, 2, torch.randn(2, 511))).startswith("2 components, balanced by time: slowest / mean = ")


def test_balance_of_costs_that_are_all_zero():
    assert partition([nn.Tanh(), nn.Tanh()], 2, torch.randn(2, 4), by="parameters").balance == 1


def test_blocks_without_storage():
    with torch.device("meta"):
        net, x = linears(4, 4, 4, 40, 4), torch.randn(2, 4)
    assert partition(net, 3, x, by="flops").sizes == partition(net, 3, x, by="parameters").sizes == [2, 1, 1]


def test_frozen_blocks_are_timed_too():
    net = linears(4, 4, 4).requires_grad_(False)
    assert all(cost > 0 for cost in partition(net, 2, torch.randn(2, 4)).costs)


@pytest.mark.parametrize("n_components", [0, -1, 4, 1.5, True])
def test_number_of_components_that_does_not_fit(n_components):
    with pytest.raises(ValueError, match="expected a whole number from 1 to 3, the number of blocks"):
        partition(linears(4, 4, 4, 4), n_components, torch.randn(2, 4))


@pytest.mark.parametrize("blocks", [[], nn.Sequential()])
def test_no_blocks(blocks):
    with pytest.raises(ValueError, match="blocks is empty; expected at least one block"):
        partition(blocks, 1, torch.randn(2, 4))


def test_unknown_measure():
    with pytest.raises(ValueError, match="by is 'speed'; expected one of 'time', 'parameters', 'activations', 'flops'"):
        partition(linears(4, 4), 1, torch.randn(2, 4), by="speed")


def test_a_whole_model_in_place_of_blocks():
    with pytest.raises(ValueError, match=r"blocks is a Nested; expected an nn.Sequential, or a list of blocks"):
        partition(Nested(3), 1, torch.randn(2, 4))


def test_a_function_in_place_of_a_block():
    with pytest.raises(ValueError, match=r"block 1 is <function relu .*; expected a torch.nn.Module"):
        partition([nn.Linear(4, 4), F.relu], 1, torch.randn(2, 4))


def test_an_exception_of_a_block_passes_through():
    net = linears(4, 4).train()
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        partition(net, 1, torch.randn(2, 5))
    assert net[0].weight.grad is None


class TestUnderTorchrun:
    def test_time_needs_a_process_group(self, monkeypatch):
        monkeypatch.setenv("WORLD_SIZE", "2")
        with pytest.raises(ValueError, match=r"call torch.distributed.init_process_group\(\) first"):
            partition(linears(4, 4), 1, torch.randn(2, 4))
        assert partition(linears(4, 4), 1, torch.randn(2, 4), by="flops").sizes == [1]

    def test_rank_0_measures(self, monkeypatch):
        monkeypatch.setenv("WORLD_SIZE", "1")
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        try:
            assert partition([Sleep(0), Sleep(0), Sleep(0.01)], 2, torch.randn(2, 4)).sizes == [2, 1]
        finally:
            dist.destroy_process_group()
