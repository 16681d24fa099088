"""The constructors: from nets, a scheme and an optimizer to a model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import nn
from torch.amp import GradScaler

from interlocking_backprop.common.checks import check_whole, is_whole
from interlocking_backprop.engine.component import Component
from interlocking_backprop.engine.head_copy import connect
from interlocking_backprop.engine.learning_rates import warn_of_equal_rates
from interlocking_backprop.engine.loss_counts import refuse_parameters
from interlocking_backprop.engine.losses import Loss, LossFunction
from interlocking_backprop.engine.optimizers import LRSchedulerConstructor, OptimizerConstructor, same_settings
from interlocking_backprop.engine.ties import Tie, has_state, separate, without_shared_modules
from interlocking_backprop.model import InterlockingBackpropModel
from interlocking_backprop.scheme.coefficients import Scheme, e2e, local, nwise, pairwise

_FOR_HEADS = (
    "For a head that starts as a copy and then follows its own loss use copy.deepcopy(); for one that follows the "
    "weights of the main net use ib.HeadCopy(source, every=...)."
)


def build_model(
    main_nets: Sequence[nn.Module],
    aux_nets: Sequence[nn.Module | None],
    scheme: Scheme,
    optimizer_constructor: OptimizerConstructor,
    loss_function: LossFunction,
    lr_scheduler_constructor: LRSchedulerConstructor | None = None,
    *,
    n_microbatches: int = 1,
    aux_loss_function: LossFunction | Sequence[LossFunction | None] | None = None,
    aux_optimizer_constructor: OptimizerConstructor | None = None,
    aux_lr_factor: float = 1.0,
    max_grad_norm: float | None = None,
    clip_by: Literal["component", "global"] = "component",
    accumulate: int = 1,
    grad_scaler: GradScaler | None = None,
    tied_weights: Literal["keep", "untie"] = "keep",
    seed: int | None = None,
) -> InterlockingBackpropModel:
    """Builds a model that trains each component by the losses that the scheme gives it.

    Args:
        main_nets: the components, in the order of depth; each takes the output of the one before.
        aux_nets: K - 1 heads; head i takes the output of component i. None where neither the scheme nor you need one. A
            head that the scheme does not use is trained all the same, as a probe. The same module may be the head of
            several components: it follows the sum of the losses of its exits (see ``tied_weights``). A `HeadCopy` is a
            copy of weights of another component, and is not trained.
        scheme: which loss trains which component.
        optimizer_constructor: ``params -> optimizer``, any torch optimizer that works without a closure; called for
            each component, with the parameters of its main net and its head. It may return several optimizers in a
            list, which together hold all parameters. By the names of its arguments it may ask for more: ``(params,
            component)`` gets the component's index too, ``(params, role)`` is called for the main net and for the head
            apart, with "main" or "head" (the network's own head is part of the last main net), and
            ``(named_parameters)`` gets (name, parameter) pairs in the place of the parameters, with names such as
            "main_net.0.weight" and "aux_net.fc.bias"; in any combination.
        loss_function: ``loss(output, target)``, a mean over the samples. PyTorch's own may ignore targets or weight
            classes; a function of yours that is a mean over something else has a method ``n_samples(target)``, which
            counts it.
        lr_scheduler_constructor: ``optimizer -> scheduler or None``, called with each optimizer. It may ask for the
            component's index and the role too, ``(optimizer, component, role)``; an optimizer that holds main net and
            head has the role "main".
        n_microbatches: M, into how many parts a batch is cut. The gradient is that of the whole batch whatever M is
            (BatchNorm statistics are per micro-batch, as in every pipeline, and its running averages move M times a
            step: see `set_batch_norm_momentum`).
        aux_loss_function: the loss of the heads, by default the same function; or a list of K - 1, one for each (None
            for that of the network). One with a parameter ``component``, ``component_input``, ``network_input`` or
            ``network_output`` gets i, x_i, x_0 or y_{K-1} there, the latter three detached. A loss that asks for
            y_{K-1}, the network's output for the same micro-batch, waits for the last component, as in end-to-end
            training.
        aux_optimizer_constructor: optimizer of the heads, if they get one of their own.
        aux_lr_factor: multiplies the heads' learning rate, that of OneCycleLR and CyclicLR too. Under Adam heads need
            more than the rest (docs/schemes.md).
        max_grad_norm: clips each component's gradient, and each head's, to this 2-norm, before the update; after a
            training step there are no gradients left to clip. Weights that components share
            are clipped on their own.
        clip_by: "component", or "global" to clip the gradient of all main nets together, as ``clip_grad_norm_`` does
            with a whole network; heads are clipped on their own still. All updates wait for the last gradient then, so
            that the gradients of all components are in memory at once. Not on several ranks.
        accumulate: n, if every n-th `training_step` is to update, with the mean of the gradients of n batches; a batch
            counts 1/n whatever its size. LR schedulers are stepped by you: after the updates.
        grad_scaler: multiplies the losses where they are differentiated, for float16. Gradients are divided by its
            scale before they are clipped, an overflow anywhere skips the update everywhere, and the library calls
            ``update()``. All updates wait for the last gradient then. Not on several ranks.
        tied_weights: what becomes of a parameter that several main nets share, or several heads. "keep": each gets a
            copy, their gradients are summed before the update, and they stay equal; it is then still the network that
            you handed over, but the components that share it wait for one another in every step (docs/models.md).
            "untie": each gets a copy that is trained on its own. Buffers, such as BatchNorm's running averages, are
            each component's own either way.
        seed: of the random numbers in training steps (dropout); by default torch's initial seed.

    Raises:
        ValueError: if an argument does not fit, with the remedy.
    """
    main_nets, aux_nets = list(main_nets), list(aux_nets)
    _check_nets(main_nets, aux_nets)
    if tied_weights not in ("keep", "untie"):
        raise ValueError(f"tied_weights is {tied_weights!r}; expected 'keep' or 'untie'.")
    check_whole("n_microbatches", n_microbatches)
    check_whole("accumulate", accumulate)
    _check_updates(max_grad_norm, clip_by, grad_scaler)
    for name, value in (("aux_lr_factor", aux_lr_factor), ("max_grad_norm", max_grad_norm)):
        if value is not None and not (0 < value < math.inf):
            raise ValueError(f"{name} is {value!r}; expected a positive number.")
    aux_nets = without_shared_modules(aux_nets)
    ties = separate(main_nets, aux_nets)
    copies = connect(main_nets, aux_nets)
    if tied_weights == "untie":
        ties = []
    components = [
        Component(
            main_net,
            aux_net,
            optimizer_constructor,
            lr_scheduler_constructor,
            index=i,
            aux_optimizer_constructor=aux_optimizer_constructor,
            aux_lr_factor=aux_lr_factor,
            max_grad_norm=max_grad_norm,
            clip_by=clip_by,
            accumulate=accumulate,
            grad_scaler=grad_scaler,
            shared=[tie.name_in(i) for tie in ties if i in tie.components],
            copied_by=[copying for copying in copies if copying.source == i],
        )
        for i, (main_net, aux_net) in enumerate(zip(main_nets, [*aux_nets, None], strict=True))
    ]
    _check_ties(components, ties)
    warn_of_equal_rates([rate for component in components for rate in component.overwritten_rates])
    losses = _losses(loss_function, aux_loss_function, len(aux_nets))
    trained = [p for component in components for p in component.parameters()]
    refuse_parameters([loss.function for loss in losses], trained)
    seed = torch.initial_seed() if seed is None else seed
    return InterlockingBackpropModel(components, scheme, losses, n_microbatches, seed, ties)


def build_e2e_model(
    main_nets: Sequence[nn.Module],
    optimizer_constructor: OptimizerConstructor,
    lr_scheduler_constructor: LRSchedulerConstructor | None,
    loss_function: LossFunction,
    **options: Any,
) -> InterlockingBackpropModel:
    """End-to-end backpropagation; ``options`` are those of `build_model`."""
    main_nets = list(main_nets)
    aux_nets = [None] * max(len(main_nets) - 1, 0)
    scheme = e2e(_count(main_nets))
    return build_model(
        main_nets, aux_nets, scheme, optimizer_constructor, loss_function, lr_scheduler_constructor, **options
    )


def build_local_model(
    main_nets: Sequence[nn.Module],
    aux_nets: Sequence[nn.Module | None],
    optimizer_constructor: OptimizerConstructor,
    lr_scheduler_constructor: LRSchedulerConstructor | None,
    loss_function: LossFunction,
    **options: Any,
) -> InterlockingBackpropModel:
    """Local learning: each component by its own head; ``options`` are those of `build_model`."""
    scheme = local(_count(main_nets))
    return build_model(
        main_nets, aux_nets, scheme, optimizer_constructor, loss_function, lr_scheduler_constructor, **options
    )


def build_pairwise_model(
    main_nets: Sequence[nn.Module],
    aux_nets: Sequence[nn.Module | None],
    optimizer_constructor: OptimizerConstructor,
    lr_scheduler_constructor: LRSchedulerConstructor | None,
    loss_function: LossFunction,
    **options: Any,
) -> InterlockingBackpropModel:
    """Pairwise: each component by the next one's head; ``options`` are those of `build_model`."""
    scheme = pairwise(_count(main_nets))
    return build_model(
        main_nets, aux_nets, scheme, optimizer_constructor, loss_function, lr_scheduler_constructor, **options
    )


def build_nwise_model(
    main_nets: Sequence[nn.Module],
    aux_nets: Sequence[nn.Module | None],
    optimizer_constructor: OptimizerConstructor,
    lr_scheduler_constructor: LRSchedulerConstructor | None,
    loss_function: LossFunction,
    nwise_communication_distance: int,
    **options: Any,
) -> InterlockingBackpropModel:
    """N-wise: each component by the head N - 1 components further on; ``options`` are those of `build_model`.

    Args:
        nwise_communication_distance: N - 1. 0 is local learning, 1 pairwise.
    """
    distance = nwise_communication_distance
    if not is_whole(distance, least=0):
        raise ValueError(f"nwise_communication_distance is {distance!r}; expected N - 1, a whole number of at least 0.")
    scheme = nwise(_count(main_nets), distance + 1)
    return build_model(
        main_nets, aux_nets, scheme, optimizer_constructor, loss_function, lr_scheduler_constructor, **options
    )


def _count(main_nets: Sequence[nn.Module]) -> int:
    if len(main_nets) == 0:
        raise ValueError("main_nets is empty; expected at least one component.")
    return len(main_nets)


def _losses(
    loss_function: LossFunction, of_heads: LossFunction | Sequence[LossFunction | None] | None, n_heads: int
) -> list[Loss]:
    """The loss of each component; where the function is the same, the loss is."""
    given = [*of_heads] if isinstance(of_heads, list | tuple) else [of_heads] * n_heads
    if len(given) != n_heads:
        raise ValueError(
            f"aux_loss_function has {len(given)} entries for {n_heads + 1} components; expected {n_heads}, one for "
            "every component but the last (None for the loss of the network), or one function for all."
        )
    functions: list[Any] = [loss_function if function is None else function for function in (*given, None)]
    losses = {id(function): Loss(function) for function in functions}
    return [losses[id(function)] for function in functions]


def _check_nets(main_nets: list[nn.Module], aux_nets: list[nn.Module | None]) -> None:
    k = _count(main_nets)
    if len(aux_nets) != k - 1:
        raise ValueError(
            f"aux_nets has {len(aux_nets)} entries for {k} components; expected {k - 1}, one for every component "
            "but the last (None where no head is needed)."
        )
    named = [(f"main net {i}", net) for i, net in enumerate(main_nets)]
    named += [(f"head {i}", net) for i, net in enumerate(aux_nets) if net is not None]
    owners: dict[nn.Parameter, str] = {}
    places: dict[nn.Module, str] = {}
    for name, net in named:
        if not isinstance(net, nn.Module):
            raise ValueError(f"{name} is {net!r}; expected a torch.nn.Module.")
        is_head = name.startswith("head")
        for module_name, module in net.named_modules():
            other = places.setdefault(module, name) if has_state(module) else name
            if other != name and other.startswith("main"):
                remedy = _FOR_HEADS if is_head else "A copy of the module may share the parameters (tied_weights)."
                raise ValueError(
                    f"module {module_name or type(module).__name__!r} of {name} is in {other} too; expected "
                    f"nets with modules of their own. {remedy}"
                )
        for parameter_name, parameter in net.named_parameters():
            owner = owners.setdefault(parameter, name)
            if is_head and owner.startswith("main"):
                raise ValueError(
                    f"parameter {parameter_name!r} of {name} belongs to {owner} too; expected heads that share "
                    f"parameters with other heads at most, for they follow the losses of their own exits. {_FOR_HEADS}"
                )


def _check_updates(max_grad_norm: float | None, clip_by: str, grad_scaler: object) -> None:
    if clip_by not in ("component", "global"):
        raise ValueError(f"clip_by is {clip_by!r}; expected 'component' or 'global'.")
    if clip_by == "global" and max_grad_norm is None:
        raise ValueError("clip_by is 'global' without a norm to clip to; expected max_grad_norm to be given too.")
    if grad_scaler is not None and not isinstance(grad_scaler, GradScaler):
        raise ValueError(f"grad_scaler is {grad_scaler!r}; expected a torch.amp.GradScaler.")


def _check_ties(components: list[Component], ties: list[Tie]) -> None:
    """Copies of a shared weight stay equal if they are updated alike."""
    for tie in ties:
        (first, name), *others = tie.holders
        for i, other in others:
            a, b = components[first], components[i]
            p, q = a.get_parameter(name), b.get_parameter(other)
            if not same_settings(a.optimizers, p, b.optimizers, q):
                raise ValueError(
                    f"the shared weight {tie} is updated by different optimizers or settings, so that its copies would "
                    "come apart; give it the same in all components that hold it, or pass tied_weights='untie'."
                )
