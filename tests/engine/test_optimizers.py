"""Optimizers as people group them: what constructors may ask for, what they may return, what is refused."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import interlocking_backprop as ib
from tests.small_models import batch, model_of, weights
from tests.small_nets import mlp_components


def sgd(params, lr: float = 0.1):
    return torch.optim.SGD(params, lr=lr, momentum=0.9)


def built(constructor, scheme=None, **options) -> ib.InterlockingBackpropModel:
    return ib.build_model(*mlp_components(3), scheme or ib.pairwise(3), constructor, F.mse_loss, seed=0, **options)


def rates(model: ib.InterlockingBackpropModel) -> list[list[float]]:
    return [[o.param_groups[0]["lr"] for o in component.optimizers] for component in model.components]


class TestAskedFor:
    def test_the_index_of_the_component(self):
        model = built(lambda params, component: sgd(params, 0.1 / (1 + component)))
        assert rates(model) == [[0.1], [0.05], [0.1 / 3]]

    def test_the_role_sets_the_head_apart(self):
        def constructor(params, *, role):
            return sgd(params, {"main": 0.1, "head": 2.0}[role])

        model = built(constructor)
        assert rates(model) == [[0.1, 2.0], [0.1, 2.0], [0.1]]
        for component in model.components[:2]:
            assert {*component.aux_optimizer.param_groups[0]["params"]} == {*component.aux_net.parameters()}
            assert {*component.optimizer.param_groups[0]["params"]} == {*component.main_net.parameters()}
        assert model.components[2].aux_optimizer is None

    def test_a_constructor_for_heads_may_ask_too(self):
        model = built(sgd, aux_optimizer_constructor=lambda params, component, role: sgd(params, 3 + component))
        assert rates(model) == [[0.1, 3], [0.1, 4], [0.1]]

    def test_names_in_the_place_of_the_parameters(self):
        seen = {}

        def constructor(named_parameters, component):
            seen[component] = [name for name, _ in named_parameters]
            return sgd(named_parameters)  # the optimizers of torch take such pairs

        model = built(constructor)
        for i, component in enumerate(model.components):
            assert seen[i] == [name for name, _ in component.named_parameters()]
            assert component.optimizer.param_groups[0]["param_names"] == seen[i]

    def test_names_beside_the_parameters(self):
        def constructor(params, named_parameters):
            assert [*params] == [p for _, p in named_parameters]
            return sgd(params)

        built(constructor)

    def test_what_partial_has_fixed_stays(self):
        def constructor(params, component):
            return sgd(params, component)

        assert rates(built(functools.partial(constructor, component=7))) == [[7], [7], [7]]

    def test_the_index_before_the_parameters_is_refused(self):
        with pytest.raises(ValueError, match=r"takes 'component' first; expected the parameters there"):
            built(lambda component, params: sgd(params))

    def test_a_scheduler_may_ask_for_index_and_role(self):
        seen = []

        def schedule(optimizer, component, role):
            seen.append((component, role))

        built(sgd, aux_lr_factor=2.0, lr_scheduler_constructor=schedule)
        assert seen == [(0, "main"), (0, "head"), (1, "main"), (1, "head"), (2, "main")]


def muon_and_adamw(named_parameters):
    matrices = [p for _, p in named_parameters if p.dim() == 2]
    others = [p for _, p in named_parameters if p.dim() != 2]
    return [torch.optim.Muon(matrices, lr=0.02), torch.optim.AdamW(others, lr=0.01)]


class TestSeveral:
    def test_muon_for_matrices_and_adamw_for_the_rest(self):
        nets, _ = mlp_components(3)
        plain = nn.Sequential(*copy.deepcopy(nets))
        optimizers = muon_and_adamw(list(plain.named_parameters()))
        schedule = lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda step: 1 / (1 + step))  # noqa: E731
        schedulers = [schedule(o) for o in optimizers]
        model = ib.build_e2e_model(nets, muon_and_adamw, schedule, F.mse_loss)
        assert [type(o).__name__ for o in model.components[1].optimizers] == ["Muon", "AdamW"]
        for seed in range(3):
            x, target = batch(seed=seed)
            model.training_step(x, target)
            model.lr_scheduler_step()
            F.mse_loss(plain(x), target).backward()
            for each in (*optimizers, *schedulers):
                each.step()
            plain.zero_grad()
        assert torch.equal(weights(plain), torch.cat([p.flatten() for p in model.main_net_parameters()]))

    def test_the_state_of_all_is_restored(self):
        straight, other = built(muon_and_adamw), built(muon_and_adamw)
        straight.training_step(*batch())
        other.load_state_dict(copy.deepcopy(straight.state_dict()))
        other.load_training_state_dict(copy.deepcopy(straight.training_state_dict()))
        for model in (straight, other):
            model.training_step(*batch(seed=1))
        assert torch.equal(weights(straight), weights(other))


class TestRefused:
    def test_a_parameter_that_no_optimizer_holds(self):
        with pytest.raises(ValueError, match=r"'main_net\.0\.bias' \(and 3 more\) of component 0 is in no optimizer"):
            built(lambda params: sgd([p for p in params if p.dim() == 2]))
        with pytest.raises(ValueError, match=r"'aux_net\.0\.weight' \(and 3 more\) of head 0 is in no optimizer"):
            built(lambda params, role: sgd(params) if role == "main" else [])

    def test_one_that_is_frozen_may_be_left_out(self):
        nets, heads = mlp_components(2)
        for p in nets[0].parameters():
            p.requires_grad_(False)
        only_trained = lambda params: sgd([p for p in params if p.requires_grad])  # noqa: E731
        model = ib.build_model(nets, heads, ib.local(2), only_trained, F.mse_loss)
        assert len(model.components[0].optimizer.param_groups[0]["params"]) == 4
        model.training_step(*batch())
        nets[0].requires_grad_(True)
        with pytest.raises(ValueError, match=r"'main_net\.0\.weight' \(and 3 more\) of component 0 is in no optimizer"):
            model.training_step(*batch())

    def test_a_component_without_any_optimizer_is_not_unfrozen_without_a_word(self):
        nets, _ = mlp_components(2)
        nets[0].requires_grad_(False)
        none_if_frozen = lambda params: sgd(params) if params[0].requires_grad else []  # noqa: E731
        model = ib.build_e2e_model(nets, none_if_frozen, None, F.mse_loss)
        assert model.components[0].optimizer is None
        model.training_step(*batch())
        nets[0].requires_grad_(True)
        with pytest.raises(ValueError, match=r"'main_net\.0\.weight' \(and 3 more\) of component 0 is in no optimizer"):
            model.training_step(*batch())

    def test_one_that_was_handed_over_may_be_unfrozen_later(self):
        nets, heads = mlp_components(2)
        nets[0].requires_grad_(False)
        model = ib.build_model(nets, heads, ib.local(2), sgd, F.mse_loss)
        model.training_step(*batch())
        before = weights(nets[0])
        nets[0].requires_grad_(True)
        model.training_step(*batch())
        assert not torch.equal(before, weights(nets[0]))

    def test_a_parameter_in_two_optimizers(self):
        with pytest.raises(ValueError, match=r"'main_net\.0\.weight' of component 0 is in two optimizers \(SGD and"):
            built(lambda params: [sgd(params), torch.optim.Adam(params)])

    def test_a_parameter_of_another_component(self):
        nets, heads = mlp_components(2)
        every = [p for net in nets for p in net.parameters()]
        with pytest.raises(ValueError, match=r"of component 0 holds a parameter of shape \(5, 5\) that its"):
            ib.build_model(nets, heads, ib.local(2), lambda params: sgd([*params, *every[4:]]), F.mse_loss)

    @pytest.mark.parametrize("made", [None, "sgd", [None]])
    def test_what_is_no_optimizer(self, made):
        with pytest.raises(ValueError, match=r"returned (None|'sgd'); expected a torch\.optim\.Optimizer or a list"):
            built(lambda params: made)

    def test_one_of_several_that_needs_a_closure(self):
        with pytest.raises(ValueError, match="LBFGS needs a closure"):
            model_of(ib.local(2), optimizer=lambda p: [sgd(p[:1]), torch.optim.LBFGS(p[1:])])

    def test_copies_of_a_shared_weight_that_would_come_apart(self):
        nets, heads = mlp_components(3)
        nets[2][0].weight = nets[0][0].weight
        by_index = lambda params, component: sgd(params, 0.1 + component)  # noqa: E731
        with pytest.raises(
            ValueError, match=r"'main_net\.0\.weight' of component 0 = 'main_net\.0\.weight' of component 2 is"
        ):
            ib.build_model(nets, heads, ib.e2e(3), by_index, F.mse_loss)
        nets[2][0].weight = nets[0][0].weight
        ib.build_model(nets, heads, ib.e2e(3), by_index, F.mse_loss, tied_weights="untie")
