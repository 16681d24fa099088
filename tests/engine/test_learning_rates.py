"""Learning rates of components and heads under every LR scheduler: those of a plain optimizer, times a factor."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch.nn import functional as F
from torch.optim import lr_scheduler as lrs

import interlocking_backprop as ib
from tests.small_models import batch, weights
from tests.small_nets import mlp_components


def sgd(params, lr: float = 0.1):
    return torch.optim.SGD(params, lr=lr, momentum=0.9)


def sequential(optimizer):
    warm_up = lrs.LinearLR(optimizer, 0.1, total_iters=3)
    return lrs.SequentialLR(optimizer, [warm_up, lrs.CosineAnnealingLR(optimizer, 9)], milestones=[3])


# Those of torch; of OneCycleLR and CyclicLR also such as go by the learning rates that they find.
PROPORTIONAL = {
    "LambdaLR": lambda o: lrs.LambdaLR(o, lambda step: 1 / (1 + step)),
    "MultiplicativeLR": lambda o: lrs.MultiplicativeLR(o, lambda step: 0.9),
    "StepLR": lambda o: lrs.StepLR(o, 3, 0.5),
    "MultiStepLR": lambda o: lrs.MultiStepLR(o, [2, 5], 0.5),
    "ConstantLR": lambda o: lrs.ConstantLR(o, 0.3, 4),
    "LinearLR": lambda o: lrs.LinearLR(o, 0.2, total_iters=6),
    "ExponentialLR": lambda o: lrs.ExponentialLR(o, 0.8),
    "PolynomialLR": lambda o: lrs.PolynomialLR(o, 9),
    "CosineAnnealingLR": lambda o: lrs.CosineAnnealingLR(o, 9),
    "CosineAnnealingWarmRestarts": lambda o: lrs.CosineAnnealingWarmRestarts(o, 4),
    "SequentialLR": sequential,
    "ChainedScheduler": lambda o: lrs.ChainedScheduler([lrs.ExponentialLR(o, 0.8), lrs.StepLR(o, 2, 0.5)]),
    "ReduceLROnPlateau": lambda o: lrs.ReduceLROnPlateau(o, patience=1, factor=0.5),
    "OneCycleLR of what it finds": lambda o: lrs.OneCycleLR(o, [g["lr"] for g in o.param_groups], total_steps=12),
    "CyclicLR of what it finds": lambda o: lrs.CyclicLR(
        o, [g["lr"] / 10 for g in o.param_groups], [g["lr"] for g in o.param_groups], step_size_up=4
    ),
}
WITH_RATES_OF_THEIR_OWN = {
    "OneCycleLR": lambda o: lrs.OneCycleLR(o, 0.1, total_steps=12),
    "OneCycleLR in three phases": lambda o: lrs.OneCycleLR(o, 0.1, total_steps=12, three_phase=True),
    "CyclicLR": lambda o: lrs.CyclicLR(o, 0.01, 0.1, step_size_up=4),
    "triangular2": lambda o: lrs.CyclicLR(o, 0.01, 0.1, step_size_up=2, mode="triangular2"),
}


def plain_rates(scheduler_constructor) -> list[float]:
    """Of a plain optimizer with a learning rate of 0.1."""
    optimizer = sgd([torch.nn.Parameter(torch.zeros(1))])
    scheduler = scheduler_constructor(optimizer)
    found = [optimizer.param_groups[0]["lr"]]
    for _ in range(10):
        optimizer.step()
        scheduler.step(*[1.0] * isinstance(scheduler, lrs.ReduceLROnPlateau))
        found.append(optimizer.param_groups[0]["lr"])
    return found


def rates(model: ib.InterlockingBackpropModel) -> list[list[float]]:
    """At each step that of each optimizer: component 0, head 0, component 1."""
    optimizers = [o for component in model.components for o in component.optimizers]
    found = [[o.param_groups[0]["lr"] for o in optimizers]]
    for _ in range(10):
        model.lr_scheduler_step(1.0)
        found.append([o.param_groups[0]["lr"] for o in optimizers])
    return found


def built(constructor, schedule, **options) -> ib.InterlockingBackpropModel:
    options = {"lr_scheduler_constructor": schedule, **options}
    return ib.build_model(*mlp_components(2), ib.local(2), constructor, F.mse_loss, seed=0, **options)


@pytest.mark.parametrize("name", [*PROPORTIONAL, *WITH_RATES_OF_THEIR_OWN])
def test_the_factor_of_the_heads_holds_at_every_step(name):
    schedule = (PROPORTIONAL | WITH_RATES_OF_THEIR_OWN)[name]
    expected = [pytest.approx([rate, 5 * rate, rate]) for rate in plain_rates(schedule)]
    assert rates(built(sgd, schedule, aux_lr_factor=5.0)) == expected


@pytest.mark.parametrize("name", PROPORTIONAL)
@pytest.mark.filterwarnings("error:optimizer_constructor gives:UserWarning")
def test_the_learning_rate_of_a_component_holds_at_every_step(name):
    def constructor(params, component, role):
        return sgd(params, 0.1 * (1 + component) * (5 if role == "head" else 1))

    expected = [pytest.approx([rate, 5 * rate, 2 * rate]) for rate in plain_rates(PROPORTIONAL[name])]
    assert rates(built(constructor, PROPORTIONAL[name])) == expected


@pytest.mark.parametrize("name", WITH_RATES_OF_THEIR_OWN)
def test_a_schedule_that_makes_different_learning_rates_one_is_named(name):
    by_index = lambda params, component: sgd(params, 0.1 + component)  # noqa: E731
    with pytest.warns(UserWarning, match=r"which (OneCycle|Cyclic)LR replaces by its own, 0\.1 for all"):
        built(by_index, WITH_RATES_OF_THEIR_OWN[name])


def test_a_schedule_may_ask_for_the_component():
    def schedule(optimizer, component):
        return lrs.OneCycleLR(optimizer, 0.1 * (1 + component), total_steps=12)

    expected = plain_rates(WITH_RATES_OF_THEIR_OWN["OneCycleLR"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert rates(built(sgd, schedule)) == [pytest.approx([rate, 2 * rate]) for rate in expected]


def test_a_factor_that_does_not_reach_a_schedule_inside_another_is_refused():
    def schedule(optimizer):
        return lrs.SequentialLR(
            optimizer, [lrs.OneCycleLR(optimizer, 0.1, total_steps=9), lrs.ConstantLR(optimizer)], milestones=[9]
        )

    with pytest.raises(ValueError, match=r"aux_lr_factor is 5\.0, but OneCycleLR inside SequentialLR has a"):
        built(sgd, schedule, aux_lr_factor=5.0)


@pytest.mark.parametrize("name", ["LambdaLR", *WITH_RATES_OF_THEIR_OWN])
def test_a_learning_rate_that_is_set_too_late_is_named(name):
    model = built(sgd, (PROPORTIONAL | WITH_RATES_OF_THEIR_OWN)[name])
    model.training_step(*batch())
    model.lr_scheduler_step()
    model.components[1].optimizer.param_groups[0]["lr"] = 0.77
    with pytest.warns(UserWarning, match=r"learning rate of component 1 was set to 0\.77 after its \w+ had been con"):
        model.lr_scheduler_step()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["LambdaLR", *WITH_RATES_OF_THEIR_OWN])
def test_a_restored_schedule_goes_on_without_a_word(name):
    models = [built(sgd, (PROPORTIONAL | WITH_RATES_OF_THEIR_OWN)[name], aux_lr_factor=5.0) for _ in range(2)]
    for _ in range(4):
        models[0].training_step(*batch())
        models[0].lr_scheduler_step()
    models[1].load_state_dict(models[0].state_dict())
    models[1].load_training_state_dict(copy.deepcopy(models[0].training_state_dict()))
    for model in models:
        for _ in range(3):
            model.training_step(*batch())
            model.lr_scheduler_step()
    assert torch.equal(*map(weights, models))
    assert models[0].get_lr() == models[1].get_lr()
