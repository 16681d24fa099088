"""Learning rates that are multiplied while a model trains: under every LR scheduler, and across a checkpoint."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch.nn import functional as F
from torch.optim import lr_scheduler as lrs

import interlocking_backprop as ib
from tests.engine.test_learning_rates import PROPORTIONAL, WITH_RATES_OF_THEIR_OWN, built, plain_rates, sgd
from tests.small_models import batch, weights
from tests.small_nets import mlp_components

SCHEDULES = PROPORTIONAL | WITH_RATES_OF_THEIR_OWN


def with_role(params, role):
    return sgd(params)


def rates(model: ib.InterlockingBackpropModel) -> list[float]:
    """Of component 0, head 0 and component 1."""
    return [o.param_groups[0]["lr"] for component in model.components for o in component.optimizers]


@pytest.mark.parametrize("name", SCHEDULES)
def test_factors_hold_from_then_on_and_take_one_anothers_place(name):
    model = built(with_role, SCHEDULES[name])
    plain = plain_rates(SCHEDULES[name])
    for step in range(11):
        factors = [1.0, 1.0] if step < 2 else [0.5, 0.25] if step < 7 else [1.0, 0.1]
        if step in (2, 7):
            model.scale_learning_rates(factors)
        assert rates(model) == pytest.approx([factors[0] * plain[step], plain[step], factors[1] * plain[step]])
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a rate that was set by hand would be named
            model.lr_scheduler_step(1.0)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_restored_model_goes_on_with_its_factors(name):
    models = [built(with_role, SCHEDULES[name]) for _ in range(2)]
    models[0].scale_learning_rates([0.5, 0.25])
    models[1].scale_learning_rates([0.3, 0.3])  # as a run that goes on begins with the scheme of its first epoch
    for _ in range(4):
        models[0].training_step(*batch())
        models[0].lr_scheduler_step(1.0)
    models[1].load_state_dict(models[0].state_dict())
    models[1].load_training_state_dict(copy.deepcopy(models[0].training_state_dict()))
    for model in models:
        model.scale_learning_rates([0.5, 0.25])
        model.training_step(*batch())
        model.lr_scheduler_step(1.0)
        model.scale_learning_rates([1.0, 0.7])
        model.training_step(*batch())
    assert torch.equal(*map(weights, models))
    assert rates(models[0]) == rates(models[1])


def test_without_factors_nothing_is_kept_of_them():
    model, other = (built(sgd, PROPORTIONAL["LambdaLR"]) for _ in range(2))
    model.scale_learning_rates(ib.delay_factors(ib.e2e(2)))
    assert model.training_state_dict() == other.training_state_dict()


def test_each_parameter_group_keeps_its_own_rate():
    def constructor(params, role):
        groups = [{"params": params[:1], "lr": 0.3}, {"params": params[1:], "lr": 0.1}]
        return [torch.optim.SGD(groups)] if role == "main" else sgd(params)

    model = built(constructor, PROPORTIONAL["StepLR"])
    model.scale_learning_rates([0.5, 1.0])
    found = [[group["lr"] for group in component.optimizer.param_groups] for component in model.components]
    assert found == [pytest.approx([0.15, 0.05]), [0.3, 0.1]]


def test_steps_are_as_long_as_the_rates_say():
    a, b = (built(lambda params: torch.optim.SGD(params, lr=0.1), None) for _ in range(2))
    before = weights(a.components[0].main_net).clone()
    b.scale_learning_rates([0.25, 1.0])
    for model in (a, b):
        model.training_step(*batch())
    moved = [weights(model.components[0].main_net) - before for model in (a, b)]
    assert torch.allclose(moved[1], 0.25 * moved[0])
    assert torch.equal(weights(a.components[1]), weights(b.components[1]))


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        ([1.0], "there are 1 factors for 2 components; give one each"),
        ([1.0, 0.0], r"the factor of component 1 is 0\.0; expected a positive number"),
        ([float("nan"), 1.0], "the factor of component 0 is nan; expected a positive number"),
        (["1", 1.0], "the factor of component 0 is '1'; expected a positive number"),
    ],
)
def test_factors_that_do_not_fit(factors, message):
    model = built(sgd, lambda o: lrs.StepLR(o, 3))
    with pytest.raises(ValueError, match=message):
        model.scale_learning_rates(factors)
    assert rates(model) == [0.1, 0.1]


def test_copies_of_a_shared_weight_do_not_come_apart():
    nets, heads = mlp_components(3)
    nets[2][0].weight = nets[0][0].weight
    model = ib.build_model(nets, heads, ib.e2e(3), sgd, F.mse_loss)
    with pytest.raises(ValueError, match=r"shared weight .* would get different learning rates \(0\.5 for component 0"):
        model.scale_learning_rates([0.5, 1.0, 1.0])
    model.scale_learning_rates([0.5, 1.0, 0.5])
