"""Evaluations are schedules of forward passes, carried out as training steps are."""

from __future__ import annotations

import json
import re

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

import interlocking_backprop as ib
from interlocking_backprop.bench.processes import Ranks, on_ranks
from interlocking_backprop.schedule.order import depth_first
from tests.small_models import batch, model_of, weights

K = 4


def counted(model: ib.InterlockingBackpropModel) -> list[str]:
    """A list that gets the name of every main net and head that is called."""
    called: list[str] = []
    for i, component in enumerate(model.components):
        component.main_net.register_forward_hook(lambda *_, i=i: called.append(f"{i}F"))
        if component.aux_net is not None:
            component.aux_net.register_forward_hook(lambda *_, i=i: called.append(f"{i}E"))
    return called


class TestExits:
    def test_nothing_above_the_last_exit_runs(self):
        model = model_of(ib.local(K)).eval()
        called = counted(model)
        x, _ = batch()
        alone = model.map_exits(lambda output, _: output, x, exits=[1])
        assert called == ["0F", "1F", "1E"]
        assert [output is None for output in alone] == [True, False, True, True]
        assert torch.equal(alone[1], model.forward_exits(x)[1])

    def test_the_network_s_own_output_needs_no_head(self):
        model = model_of(ib.local(K)).eval()
        called = counted(model)
        model(batch()[0])
        assert called == ["0F", "1F", "2F", "3F"]

    @pytest.mark.parametrize("exit", [-1, 1, K])
    def test_an_exit_that_is_not_there(self, exit):
        model = model_of(ib.Scheme([[1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))
        model.components[1].aux_net = None
        bare = ib.InterlockingBackpropModel(list(model.components), model.scheme, model.losses)
        with pytest.raises(ValueError, match=f"exit {exit} .* expected one of .* 0, 2, 3"):
            bare.map_exits(lambda output, _: output, batch()[0], exits=[0, exit])

    def test_each_exit_gets_the_targets(self):
        x, y = batch()
        assert (
            model_of(ib.local(K)).map_exits(lambda output, target: (output.shape, target is y), x, y)
            == [(x.shape, True)] * K
        )

    def test_gradients_are_not_recorded_and_modes_do_not_matter(self):
        model = model_of(ib.local(K))
        x, _ = batch()
        assert not any(output.requires_grad for output in model.forward_exits(x))
        with torch.inference_mode():
            assert model(x).is_inference()

    def test_random_numbers_are_the_program_s_own(self):
        model = model_of(ib.local(K))
        x, _ = batch()
        torch.manual_seed(7)
        first, second = model(x), model(x)
        assert not torch.equal(first, second)  # dropout
        torch.manual_seed(7)
        assert torch.equal(model(x), first)

    def test_training_goes_on_as_if_nothing_had_happened(self):
        alone, watched = model_of(ib.pairwise(K)), model_of(ib.pairwise(K))
        for seed in range(3):
            x, y = batch(seed=seed)
            alone.training_step(x, y)
            watched.training_step(x, y)
            watched.forward_exits(x)
        assert torch.equal(weights(alone), weights(watched))


def test_an_evaluation_as_a_schedule():
    schedule = depth_first(ib.Workload.evaluation([True, False, True, False]), placement=[0, 0, 1, 2])
    assert str(schedule) == "\n".join(
        [
            "step  rank 0    rank 1    rank 2",
            "   0  0F0       2RECV_F0",
            "   1  0E0       2F0",
            "   2  1F0       2E0",
            "   3  1SEND_F0",
        ]
    )
    ib.validate(schedule)
    assert ib.Schedule.from_json(schedule.to_json()) == schedule


EXITS = ([0], [1], [0, 3], None)


def exits_of(model: ib.InterlockingBackpropModel, x, y) -> list[list[float | None]]:
    found = []
    for exits in EXITS:
        model.training_step(x, y)  # on ranks, what it has made ready for the next one has to make room
        found.append(model.map_exits(lambda output, target: (output - target).sum().item(), x, y, exits=exits))
    return found


def exits_on_rank(rank: int, size: int) -> list[list[float | None]]:
    model = model_of(ib.local(K))
    model.enable_model_parallel()
    found = exits_of(model.eval(), *(batch() if rank == 0 else (None, None)))
    model.shutdown()
    return found


@pytest.mark.parametrize("size", [2, 3])
def test_exits_on_ranks_are_those_of_one_process(size):
    expected = exits_of(model_of(ib.local(K)).eval(), *batch())
    parts = on_ranks(size, exits_on_rank)
    for n, values in enumerate(expected):
        for i, value in enumerate(values):
            assert [part[n][i] for part in parts if part[n][i] is not None] == ([] if value is None else [value])


def other_exits_on_rank(rank: int, size: int) -> None:
    model = model_of(ib.local(K))
    model.enable_model_parallel()
    model.map_exits(lambda output, _: None, batch()[0] if rank == 0 else None, exits=[rank])


def test_ranks_that_ask_for_different_exits_are_told():
    with Ranks(2, other_exits_on_rank) as ranks:
        assert all(ranks.join(60))
        # A whole message: the beginning alone could be a line of code in a traceback.
        assert re.search(r"rank 1 follows scheme 'evaluation' by .*ask for the same exits\.", ranks.errors()[1])


def test_actions_have_their_names_in_a_profile(tmp_path):
    model = model_of(ib.pairwise(3), n_microbatches=2)
    x, y = batch()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        model.training_step(x, y)
        model(x)
    profiler.export_chrome_trace(str(tmp_path / "trace.json"))
    names = [event["name"] for event in json.loads((tmp_path / "trace.json").read_text())["traceEvents"]]
    evaluation = ["0F0", "1F0", "2F0", "2E0"]
    assert [name for name in names if re.match(r"\d+[A-Z]", name)] == [
        *map(str, model.schedule.actions[0]),
        *evaluation,
    ]


def test_a_failed_evaluation_leaves_gradients_alone():
    model = model_of(ib.local(2))
    x, _ = batch()
    model.components[0].main_net[0].weight.grad = torch.ones_like(model.components[0].main_net[0].weight)
    model.components[1].main_net.append(nn.Linear(1, 1).double())
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        model(x)
    assert model.components[0].main_net[0].weight.grad is not None
