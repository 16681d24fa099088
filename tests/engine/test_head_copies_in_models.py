"""Heads that are copies: what is saved of them, what they may be a part of, and what is refused."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import interlocking_backprop as ib
from interlocking_backprop.bench.processes import on_ranks
from tests.engine.copied import model_of, same, sgd, trained
from tests.small_models import batch
from tests.small_nets import mlp_components


class TestState:
    @pytest.mark.parametrize("when", [{"every": 3}, {"momentum": 0.8}], ids=str)
    @pytest.mark.parametrize("accumulate", [1, 2])
    def test_a_resumed_run_equals_the_one_that_was_saved(self, when, accumulate):
        whole = model_of(when=when, accumulate=accumulate)
        trained(whole, steps=range(4))
        state, training_state = copy.deepcopy((whole.state_dict(), whole.training_state_dict()))
        expected = trained(whole, steps=range(4, 12))
        resumed = model_of(when=when, accumulate=accumulate)
        resumed.load_state_dict(state)
        resumed.load_training_state_dict(training_state)
        assert same(trained(resumed, steps=range(4, 12)), expected)

    def test_on_ranks_too(self):
        whole = model_of(when={"every": 3})
        trained(whole, steps=range(4))
        expected = trained(whole, steps=range(4, 8))
        found = {name: value for part in on_ranks(2, _resumed) for name, value in part.items()}
        assert same(found, expected)

    def test_a_state_from_before_updates_were_counted(self):
        whole, resumed = model_of(when={"every": 2}, accumulate=2), model_of(when={"every": 2}, accumulate=2)
        trained(whole, steps=range(2))
        counters = whole.counters()
        assert counters.pop("n_updates") == 1
        resumed.load_counters(counters)
        assert resumed.counters()["n_updates"] == 1

    def test_a_copy_of_a_component_does_without_the_source(self):
        component = model_of().components[0]
        assert component.aux_net.source is not None
        assert copy.deepcopy(component).aux_net.source is None


def _resumed(rank, size):
    saved = model_of(when={"every": 3})
    state = trained(saved, steps=range(4))
    model = model_of(when={"every": 3})
    model.enable_model_parallel()
    model.load_state_dict({n: value for n, value in state.items() if int(n.split(".")[1]) in model.local_components})
    model.load_training_state_dict(saved.training_state_dict())
    return trained(model, rank, steps=range(4, 8))


class TestHeads:
    def test_one_object_for_several_components(self):
        main_nets, _ = mlp_components(3)
        model = ib.build_model(main_nets, [ib.HeadCopy(main_nets[-1][-2], every=1)] * 2, ib.local(3), sgd, F.mse_loss)
        heads = [component.aux_net for component in model.components[:-1]]
        assert heads[0] is not heads[1]
        assert not model.ties
        trained(model, steps=range(2))
        assert all(torch.equal(head.module.weight, model.components[-1].main_net[-2].weight) for head in heads)

    def test_a_part_of_a_head_that_is_trained(self):
        main_nets, aux_nets = mlp_components(3)
        adapters = [nn.Linear(5, 5).double() for _ in range(2)]
        aux_nets = [nn.Sequential(adapter, ib.HeadCopy(main_nets[-1][-2], every=1)) for adapter in adapters]
        model = ib.build_model(main_nets, aux_nets, ib.local(3), sgd, F.mse_loss, aux_lr_factor=2.0)
        before = adapters[0].weight.clone()
        trained(model, steps=range(2))
        assert not torch.equal(adapters[0].weight, before)
        assert torch.equal(aux_nets[0][1].module.weight, main_nets[-1][-2].weight)
        held = {p for o in model.components[0].optimizers for group in o.param_groups for p in group["params"]}
        assert held == {*main_nets[0].parameters(), *adapters[0].parameters()}

    def test_a_module_of_heads_that_are_shared(self):
        main_nets, aux_nets = mlp_components(4)
        shared = aux_nets[0]
        heads = [shared, shared, ib.HeadCopy(shared, every=1)]
        model = ib.build_model(main_nets, heads, ib.local(4), sgd, F.mse_loss)
        trained(model)
        weights = [p for c in model.components for name, p in c.named_parameters() if name.endswith("aux_net.0.weight")]
        assert torch.equal(weights[0], weights[1])
        assert torch.equal(heads[2].module[0].weight, weights[0])

    def test_of_a_source_whose_weight_is_tied(self):
        main_nets, _ = mlp_components(3)
        main_nets[-1][-2].weight = main_nets[0][0].weight
        heads = [None, ib.HeadCopy(main_nets[-1][-2], every=1)]
        model = ib.build_model(main_nets, heads, ib.e2e(3), sgd, F.mse_loss)
        trained(model)
        assert torch.equal(heads[1].module.weight, main_nets[0][0].weight)

    def test_the_table_names_it(self):
        model = model_of(copied=(0, 1))
        assert repr(model).count("copy of 3, Linear") == 2
        assert "main_net.3 of component 3, every=2" in repr(model.components[0].aux_net)

    def test_costs(self):
        model = model_of()
        costs = model.measure_costs(*batch(), repeats=1)
        assert [c.copied_bytes for c in costs.components] == [0, 0, 0, (5 * 5 + 5) * 8]


class TestErrors:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({}, r"every=None and momentum=None; expected one of them"),
            ({"every": 2, "momentum": 0.5}, r"every=2 and momentum=0.5; expected one of them"),
            ({"every": 0}, r"every is 0; expected a whole number of at least 1"),
            ({"every": 1.5}, r"every is 1.5"),
            ({"momentum": 1.0}, r"momentum is 1.0; expected a number of at least 0 and below 1"),
            ({"momentum": -0.1}, r"momentum is -0.1"),
            ({"momentum": float("nan")}, r"momentum is nan"),
            ({"momentum": "much"}, r"momentum is 'much'"),
        ],
    )
    def test_when(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            ib.HeadCopy(nn.Linear(2, 2), **arguments)

    @pytest.mark.parametrize(
        ("source", "message"),
        [
            ("readout", r"the source of a HeadCopy is 'readout'; expected a torch.nn.Module"),
            (nn.ReLU(), r"HeadCopy, ReLU\(\), has neither parameters nor buffers"),
            (ib.HeadCopy(nn.Linear(2, 2), every=1), r"is a HeadCopy itself"),
            (nn.LazyLinear(2), r"LazyLinear\(.*\), is lazy, and its weights are not there yet"),
        ],
    )
    def test_no_source(self, source, message):
        with pytest.raises(ValueError, match=message):
            ib.HeadCopy(source, every=1)

    @staticmethod
    def build(change):
        main_nets, aux_nets = mlp_components(3)
        change(main_nets, aux_nets)
        return ib.build_model(main_nets, aux_nets, ib.local(3), sgd, F.mse_loss)

    def test_elsewhere(self):
        def change(main_nets, aux_nets):
            aux_nets[0] = ib.HeadCopy(copy.deepcopy(main_nets[-1]), every=1)

        with pytest.raises(
            ValueError, match=r"head 0 is a copy of a module \(Sequential\) that is in none of the main nets"
        ):
            self.build(change)

    def test_a_slice(self):
        def change(main_nets, aux_nets):
            aux_nets[0] = ib.HeadCopy(main_nets[-1][1:], every=1)

        with pytest.raises(ValueError, match=r"in none of the main nets .* nor a slice of a Sequential"):
            self.build(change)

    def test_in_the_component_itself(self):
        def change(main_nets, aux_nets):
            aux_nets[1] = ib.HeadCopy(main_nets[1][0], every=1)

        with pytest.raises(ValueError, match=r"head 1 copies main_net\.0 of component 1 itself"):
            self.build(change)

    def test_in_another_copy(self):
        def change(main_nets, aux_nets):
            aux_nets[0] = ib.HeadCopy(main_nets[2], every=1)
            aux_nets[1] = ib.HeadCopy(aux_nets[0].module, every=1)

        with pytest.raises(ValueError, match=r"head 1 copies a module of head 0 that is a copy itself"):
            self.build(change)

    def test_two_in_one_head(self):
        def change(main_nets, aux_nets):
            aux_nets[0] = nn.Sequential(ib.HeadCopy(main_nets[1][0], every=1), ib.HeadCopy(main_nets[2][0], every=1))

        with pytest.raises(ValueError, match="head 0 contains 2 HeadCopy objects; expected one at most"):
            self.build(change)

    def test_in_a_main_net(self):
        def change(main_nets, aux_nets):
            main_nets[0].append(ib.HeadCopy(main_nets[2][0], every=1))

        with pytest.raises(ValueError, match="main net 0 contains a HeadCopy; expected one in aux_nets"):
            self.build(change)

    def test_from_a_built_model(self):
        built = copy.deepcopy(model_of().components[0].aux_net)

        def change(main_nets, aux_nets):
            aux_nets[0] = built

        with pytest.raises(ValueError, match="head 0 is a copy of one in another model, and has no source"):
            self.build(change)

    def test_shapes_that_do_not_fit(self):
        main_nets, aux_nets = mlp_components(3)
        main_nets[2] = nn.Sequential(nn.Linear(5, 8), nn.Linear(8, 5)).double()
        aux_nets[0] = ib.HeadCopy(main_nets[2][1], every=1)
        model = ib.build_model(main_nets, aux_nets, ib.local(3), sgd, F.mse_loss)
        with pytest.raises(RuntimeError, match="shapes") as caught:
            model.training_step(*batch())
        assert any("head 0 got (6, 5) float64" in note for note in caught.value.__notes__)

    def test_that_would_be_trained(self):
        model = model_of()
        model.requires_grad_(True)
        with pytest.raises(ValueError, match=r"head 0 is a copy of main_net\.3 of component 3 and follows no loss"):
            model.training_step(*batch())
