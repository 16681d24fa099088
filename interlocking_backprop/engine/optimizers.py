"""The optimizers of a component, from a constructor of the user's and what its signature asks for.

A constructor is called with the parameters, as the optimizers of torch take them. Like a loss it may ask for more by
the names of its arguments: ``named_parameters`` (in the place of the parameters), ``component`` and ``role``. What it
returns, one optimizer or several, has to hold all that is to be trained, and nothing else.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

from torch.nn import Parameter
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

OptimizerConstructor = Callable[..., "Optimizer | Sequence[Optimizer]"]
LRSchedulerConstructor = Callable[..., "LRScheduler | None"]
Role = Literal["main", "head"]
Named = Sequence[tuple[str, Parameter]]
"""Parameters with their names in the component, such as ``main_net.0.weight``."""


def construct_optimizers(constructor: OptimizerConstructor, index: int, role: Role, named: Named) -> list[Optimizer]:
    """Calls a constructor of optimizers.

    Args:
        constructor: see `build_model`.
        index: of the component.
        role: whose parameters these are.
        named: the parameters; for none the constructor is not called.

    Raises:
        ValueError: if the constructor takes something else first, returns no optimizers, or some that need a closure,
            leave out a parameter that wants a gradient, hold one twice, or one that was not handed over.
    """
    if not named:
        return []
    offered = {"named_parameters": list(named), "component": index, "role": role}
    extras = _asked_for(constructor, offered)
    first = _first_argument(constructor)
    if first in extras and "named_parameters" not in extras:
        raise ValueError(
            f"the optimizer constructor takes {first!r} first; expected the parameters there, and what else it asks "
            f"for behind them: (params, {first}), or (named_parameters, {first})."
        )
    parameters = [] if first in extras else [[p for _, p in named]]
    try:
        made = constructor(*parameters, **extras)
    except ValueError:
        if any(p.requires_grad for _, p in named):
            raise
        made = []  # everything is frozen, and a constructor that leaves out what is frozen has nothing left
    optimizers = [_checked(optimizer) for optimizer in (made if isinstance(made, (list, tuple)) else [made])]
    _check_held(optimizers, f"{'head' if role == 'head' else 'component'} {index}", named)
    return optimizers


def construct_lr_schedulers(
    constructor: LRSchedulerConstructor | None, index: int, role: Role, optimizers: Iterable[Optimizer]
) -> list[LRScheduler]:
    """Calls a constructor of LR schedulers with each optimizer, and by keyword with what else it asks for.

    Args:
        constructor: see `build_model`.
        index: of the component.
        role: "head" for the optimizers of the head alone.
        optimizers: of the component or its head.
    """
    if constructor is None:
        return []
    extras = _asked_for(constructor, {"component": index, "role": role})
    made = [constructor(optimizer, **extras) for optimizer in optimizers]
    return [scheduler for scheduler in made if scheduler is not None]


def asks_for_role(constructor: OptimizerConstructor) -> bool:
    """Whether a constructor wants the main net and the head apart."""
    return bool(_asked_for(constructor, {"role": None}))


def same_settings(a: Iterable[Optimizer], p: Parameter, b: Iterable[Optimizer], q: Parameter) -> bool:
    """Whether two parameters are updated alike: by optimizers of one class with the same settings."""
    return _settings(a, p) == _settings(b, q)


def _settings(optimizers: Iterable[Optimizer], parameter: Parameter) -> dict[str, Any]:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            if any(p is parameter for p in group["params"]):
                settings = {key: value for key, value in group.items() if key not in ("params", "param_names")}
                return {"class": type(optimizer), **settings}
    return {}


def _asked_for(constructor: Callable[..., Any], offered: dict[str, Any]) -> dict[str, Any]:
    """Of what is offered by keyword, that which a constructor names; not what a `functools.partial` has fixed."""
    fixed = getattr(constructor, "keywords", {})
    names = set(_arguments(constructor)) - set(fixed)
    return {name: value for name, value in offered.items() if name in names}


def _first_argument(constructor: Callable[..., Any]) -> str | None:
    return next(iter(_arguments(constructor)), None)


def _arguments(function: Callable[..., Any]) -> list[str]:
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # builtins without a signature
        return []


def _checked(optimizer: object) -> Optimizer:
    if not isinstance(optimizer, Optimizer):
        raise ValueError(
            f"the optimizer constructor returned {optimizer!r}; expected a torch.optim.Optimizer or a list of them."
        )
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise ValueError(
            f"{type(optimizer).__name__} needs a closure that evaluates the loss again; expected an optimizer whose "
            "step() works without one, e.g. SGD or AdamW."
        )
    return optimizer


def _check_held(optimizers: Sequence[Optimizer], owner: str, named: Named) -> None:
    """Every parameter that wants a gradient is in one optimizer, and nothing else is in any."""
    names = {id(parameter): name for name, parameter in named}
    holders: dict[int, Optimizer] = {}
    for optimizer in optimizers:
        for parameter in (p for group in optimizer.param_groups for p in group["params"]):
            if id(parameter) not in names:
                raise ValueError(
                    f"an optimizer ({type(optimizer).__name__}) of {owner} holds a parameter of shape "
                    f"{tuple(parameter.shape)} that its constructor was not called with and that would get no gradient "
                    "there; expected the parameters that are handed over, and no others."
                )
            if id(parameter) in holders:
                both = " and ".join(type(o).__name__ for o in (holders[id(parameter)], optimizer))
                raise ValueError(
                    f"parameter {names[id(parameter)]!r} of {owner} is in two optimizers ({both}), which would both "
                    "update it; give it to one of them."
                )
            holders[id(parameter)] = optimizer
    check_none_left_out(optimizers, owner, named)


def not_held(optimizers: Iterable[Optimizer], parameters: Iterable[Parameter]) -> list[Parameter]:
    """The parameters that are in no optimizer."""
    held = {id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    return [p for p in parameters if id(p) not in held]


def check_none_left_out(optimizers: Sequence[Optimizer], owner: str, named: Named) -> None:
    """Makes sure that every parameter that wants a gradient is in an optimizer.

    Args:
        optimizers: that have been constructed.
        owner: of the parameters, for the message.
        named: the parameters.

    Raises:
        ValueError: with the name of one that is in none.
    """
    names = {id(parameter): name for name, parameter in named}
    left_out = [names[id(p)] for p in not_held(optimizers, [p for _, p in named]) if p.requires_grad]
    if left_out:
        others = f" (and {len(left_out) - 1} more)" if len(left_out) > 1 else ""
        raise ValueError(
            f"parameter {left_out[0]!r}{others} of {owner} is in no optimizer that the constructor returned, so it "
            "would never be trained; give it to one, even if it is frozen at first, or freeze it (requires_grad=False)."
        )
