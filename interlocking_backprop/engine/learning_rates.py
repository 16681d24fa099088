"""Learning rates that stay what they were meant to be, whatever the LR schedulers make of them.

Most schedulers of torch start from the learning rates that they find in the optimizer. OneCycleLR and CyclicLR do not:
they have rates of their own, which are multiplied here where a factor is to hold. What a user writes into a parameter
group later is overwritten by those that compute each rate afresh; that is said, once.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, LambdaLR, LRScheduler, OneCycleLR

_WITH_RATES_OF_THEIR_OWN = (OneCycleLR, CyclicLR)
_COMPUTED_AFRESH = (LambdaLR, OneCycleLR, CyclicLR)


class Overwritten(NamedTuple):
    """A learning rate in the place of which a scheduler puts its own.

    Attributes:
        scheduler: the name of its class.
        given: what the optimizer had.
        peak: the highest that the scheduler will set.
    """

    scheduler: str
    given: float
    peak: float


def schedulers_with_factor(
    factor: float, optimizers: Iterable[Optimizer], construct: Callable[[list[Optimizer]], list[LRScheduler]]
) -> list[LRScheduler]:
    """Multiplies learning rates, now and at every step to come.

    Args:
        factor: what they are multiplied with.
        optimizers: without schedulers yet.
        construct: constructs the schedulers of optimizers.

    Raises:
        ValueError: if a scheduler that overwrites what it finds is inside another one, where its learning rates cannot
            be told apart from the others'.
    """
    if factor == 1.0:
        return construct(list(optimizers))
    found = []
    for optimizer in optimizers:
        before = [
            {name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups
        ]
        for group in optimizer.param_groups:
            group["lr"] = group["lr"] * factor  # a tensor stays what it was, for ``before`` has it
        schedulers = construct([optimizer])
        for scheduler in schedulers:
            inner = next((s for s in _inner(scheduler) if isinstance(s, _WITH_RATES_OF_THEIR_OWN)), None)
            if inner is not None:
                raise ValueError(
                    f"aux_lr_factor is {factor}, but {type(inner).__name__} inside {type(scheduler).__name__} has a "
                    "learning rate of its own; leave the factor out and let lr_scheduler_constructor ask for the role, "
                    '(optimizer, role), which is "main" or "head".'
                )
        if any(isinstance(scheduler, _WITH_RATES_OF_THEIR_OWN) for scheduler in schedulers):
            # It may have read the multiplied learning rate, or not: from the plain one the result is the same.
            for group, plain in zip(optimizer.param_groups, before, strict=True):
                parameters = group["params"]
                group.clear()
                group.update(plain, params=parameters)
            schedulers = construct([optimizer])
            for scheduler in schedulers:
                _multiply(scheduler, factor)
        found += schedulers
    return found


def scale_rates(optimizers: Iterable[Optimizer], schedulers: Iterable[LRScheduler], factor: float) -> None:
    """Multiplies learning rates, now and at every step to come, in the place of a factor that was given before.

    The factor is kept in the parameter groups, and so in the state of the optimizers: whoever restores it knows by what
    the restored rates have been multiplied.

    Args:
        optimizers: whose rates these are.
        schedulers: of these optimizers, and perhaps others.
        factor: what the rates are multiplied with.
    """
    schedulers = list(schedulers)
    for optimizer in optimizers:
        ratios = [factor / group.get(_FACTOR, 1.0) for group in optimizer.param_groups]
        if any(ratio != 1.0 for ratio in ratios):
            for group, ratio in zip(optimizer.param_groups, ratios, strict=True):
                _multiply_group(group, ratio)
                group[_FACTOR] = factor
            for scheduler in (s for s in schedulers if s.optimizer is optimizer):
                for each in (scheduler, *_inner(scheduler)):
                    _multiply_own(each, ratios)


_FACTOR = "rate_factor"


def _multiply(scheduler: LRScheduler, factor: float) -> None:
    """Multiplies all learning rates of a OneCycleLR or a CyclicLR that has just been constructed."""
    groups = scheduler.optimizer.param_groups
    for group in groups:
        _multiply_group(group, factor)
    _multiply_own(scheduler, [factor] * len(groups))


def _multiply_group(group: dict[str, Any], factor: float) -> None:
    for name in {"lr", "initial_lr", "max_lr", "min_lr"} & group.keys():
        group[name] = group[name] * factor


def _multiply_own(scheduler: LRScheduler, factors: Sequence[float]) -> None:
    """Multiplies the learning rates that a scheduler keeps itself, one for each parameter group."""
    for name in ("base_lrs", "max_lrs", "_last_lr"):
        if hasattr(scheduler, name):
            rates = zip(getattr(scheduler, name), factors, strict=True)
            setattr(scheduler, name, [rate * factor for rate, factor in rates])


def rates_of(optimizers: Iterable[Optimizer]) -> dict[Optimizer, list[float]]:
    """The learning rates of all parameter groups."""
    return {optimizer: [float(group["lr"]) for group in optimizer.param_groups] for optimizer in optimizers}


def overwritten(given: Mapping[Optimizer, Sequence[float]], schedulers: Iterable[LRScheduler]) -> list[Overwritten]:
    """The learning rates that a scheduler has put its own in the place of.

    Args:
        given: what the optimizers had before their schedulers were constructed.
        schedulers: just constructed.
    """
    found = []
    for scheduler in schedulers:
        own = next((s for s in (scheduler, *_inner(scheduler)) if isinstance(s, _WITH_RATES_OF_THEIR_OWN)), None)
        if own is not None:
            groups = own.optimizer.param_groups
            peaks = own.max_lrs if isinstance(own, CyclicLR) else [group["max_lr"] for group in groups]
            rates = given[own.optimizer]
            found += [Overwritten(type(own).__name__, *pair) for pair in zip(rates, peaks, strict=True)]
    return found


def warn_of_equal_rates(all_overwritten: Sequence[Overwritten]) -> None:
    """Warns if different learning rates, of components or parameter groups, have become one by their schedulers."""
    if len({rate.given for rate in all_overwritten}) > 1 and len({rate.peak for rate in all_overwritten}) == 1:
        scheduler, _, peak = all_overwritten[0]
        warnings.warn(
            f"optimizer_constructor gives different learning rates, which {scheduler} replaces by its own, {peak} for "
            "all; hand it theirs: max_lr=[group['lr'] for group in optimizer.param_groups].",
            UserWarning,
            stacklevel=3,
        )


def warn_of_lost_rate(index: int, scheduler: LRScheduler) -> None:
    """Warns before a step of a scheduler that overwrites a learning rate which was set by hand.

    Args:
        index: of the component.
        scheduler: about to take its step.
    """
    if not isinstance(scheduler, _COMPUTED_AFRESH):
        return
    for group, known in zip(scheduler.optimizer.param_groups, scheduler.get_last_lr(), strict=True):
        if isinstance(known, (int, float)) and group["lr"] != known:
            warnings.warn(
                f"the learning rate of component {index} was set to {group['lr']} after its "
                f"{type(scheduler).__name__} had been constructed, which computes it afresh in every step and "
                "overwrites it; set it in optimizer_constructor, which may ask for the component: (params, component).",
                UserWarning,
                stacklevel=4,
            )


def _inner(scheduler: LRScheduler) -> list[LRScheduler]:
    """The schedulers inside a SequentialLR or a ChainedScheduler, however deep."""
    found: list[LRScheduler] = list(getattr(scheduler, "_schedulers", ()))
    return found + [inner for s in found for inner in _inner(s)]
