"""One component: a part of the network, the head at its output, and the optimizers of both."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.nn import Parameter
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from interlocking_backprop.engine.credit import Credit, Gradients
from interlocking_backprop.engine.head_copy import Copying, trained_in
from interlocking_backprop.engine.learning_rates import (
    overwritten,
    rates_of,
    scale_rates,
    schedulers_with_factor,
    warn_of_lost_rate,
)
from interlocking_backprop.engine.optimizers import (
    LRSchedulerConstructor,
    OptimizerConstructor,
    asks_for_role,
    check_none_left_out,
    construct_lr_schedulers,
    construct_optimizers,
    not_held,
)
from interlocking_backprop.engine.tree import Tree, to_device, versions


class Component(nn.Module):
    """A main net, its head, and what updates them.

    Args:
        main_net: component i of the network, ``y_i = main_net(x_i)``.
        aux_net: the head at its output, ``aux_net(y_i)``; None if there is none.
        optimizer_constructor: see `build_model`. One call is for the parameters of the main net and the head together,
            unless the constructor asks for the role, or one of the two arguments about ``aux`` sets the head apart.
        lr_scheduler_constructor: called with each optimizer; may be None or return None.
        index: of the component, for constructors that ask for it and for messages.
        aux_optimizer_constructor: for the parameters of the head, if they get an optimizer of their own.
        aux_lr_factor: multiplies the learning rate of the head's optimizers.
        max_grad_norm: clips the gradient of the main net, and that of the head, to this 2-norm. Weights that
            are shared with other components are clipped on their own, so that all who hold them do the same.
        clip_by: "component", or "global" if the main net is clipped together with all others.
        accumulate: the number of batches whose gradients make up an update.
        grad_scaler: scales the losses where they are differentiated.
        shared: the names, in the component, of weights that other components hold too.
        copied_by: what heads of other components copy of this one.

    Attributes:
        lr_schedulers: one for each optimizer that has one.
        credit: gradients of the main net that wait for a later update.
        overwritten_rates: the learning rates of the optimizers that their schedulers have replaced by their own.
    """

    def __init__(
        self,
        main_net: nn.Module,
        aux_net: nn.Module | None,
        optimizer_constructor: OptimizerConstructor,
        lr_scheduler_constructor: LRSchedulerConstructor | None = None,
        *,
        index: int = 0,
        aux_optimizer_constructor: OptimizerConstructor | None = None,
        aux_lr_factor: float = 1.0,
        max_grad_norm: float | None = None,
        clip_by: Literal["component", "global"] = "component",
        accumulate: int = 1,
        grad_scaler: GradScaler | None = None,
        shared: Collection[str] = (),
        copied_by: Sequence[Copying] = (),
    ) -> None:
        super().__init__()
        self.main_net = main_net
        self.aux_net = aux_net
        self.max_grad_norm, self.clips_globally = max_grad_norm, clip_by == "global"
        self.accumulate, self.grad_scaler = accumulate, grad_scaler
        self._index = index
        self._shared, self.copied_by = tuple(shared), list(copied_by)
        self._main_parameters = list(main_net.parameters())
        self.credit = Credit(self._main_parameters)
        aux = trained_in(aux_net)
        self._aux_parameters = [p for _, p in aux]

        head_is_apart = (
            aux_optimizer_constructor is not None or aux_lr_factor != 1.0 or asks_for_role(optimizer_constructor)
        )
        main = list(main_net.named_parameters(prefix="main_net"))
        together = main if head_is_apart else main + aux
        self._main_optimizers = construct_optimizers(optimizer_constructor, index, "main", together)
        self._aux_optimizers: list[Optimizer] = []
        if head_is_apart:
            constructor = aux_optimizer_constructor or optimizer_constructor
            self._aux_optimizers = construct_optimizers(constructor, index, "head", aux)
        rates = rates_of(self.optimizers)
        schedulers = partial(construct_lr_schedulers, lr_scheduler_constructor, index)
        of_main = schedulers("main", self._main_optimizers)
        of_aux = schedulers_with_factor(aux_lr_factor, self._aux_optimizers, partial(schedulers, "head"))
        self.lr_schedulers = of_main + of_aux
        self.overwritten_rates = overwritten(rates, of_main + of_aux if aux_lr_factor == 1.0 else of_main)

    @property
    def optimizer(self) -> Optimizer | None:
        """Of the main net (and the head); the first if there are several, None if there are no parameters."""
        return next(iter(self._main_optimizers), None)

    @property
    def aux_optimizer(self) -> Optimizer | None:
        """Of the head, where it has one of its own; the first if there are several."""
        return next(iter(self._aux_optimizers), None)

    @property
    def optimizers(self) -> list[Optimizer]:
        """All optimizers, those of the main net first."""
        return self._main_optimizers + self._aux_optimizers

    @property
    def updates_together(self) -> bool:
        """Whether the gradients of all components have to be there before one of them is updated."""
        return self.clips_globally or self.grad_scaler is not None

    def check_unfrozen(self) -> None:
        """Makes sure that what has been unfrozen since the optimizers were constructed is in one of them.

        Raises:
            ValueError: with the name of a parameter that is not.
        """
        if self.device != torch.device("meta"):  # there are the components of other ranks, without their optimizers
            check_none_left_out(self.optimizers, f"component {self._index}", list(self.named_parameters()))

    def without_optimizer(self) -> list[Parameter]:
        """The parameters that no optimizer holds, and that have to stay frozen."""
        return not_held(self.optimizers, self.parameters()) if self.device != torch.device("meta") else []

    def main_parameters(self) -> list[Parameter]:
        """The parameters of the main net that want a gradient."""
        return [p for p in self._main_parameters if p.requires_grad]

    @property
    def is_trainable(self) -> bool:
        """Whether any parameter of the main net wants a gradient."""
        return any(p.requires_grad for p in self._main_parameters)

    @property
    def is_head_trainable(self) -> bool:
        """Whether any parameter of the head wants a gradient."""
        return any(p.requires_grad for p in self._aux_parameters)

    def aux_parameters(self) -> list[Parameter]:
        """The parameters of the head that want a gradient."""
        return [p for p in self._aux_parameters if p.requires_grad]

    def shared_parameters(self) -> list[Parameter]:
        """The parameters of the main net, or of the head, that other components hold too."""
        return [self.get_parameter(name) for name in self._shared]

    @property
    def device(self) -> torch.device | None:
        """Where the component is; None if it has neither parameters nor buffers."""
        for tensor in _tensors_of(self):
            return tensor.device
        return None

    def forward(self, x: Tree) -> Tree:
        """The component's output y_i for the input x_i, which is brought to the component's device."""
        device = self.device
        return self.main_net(x if device is None else to_device(x, device))

    def exit(self, index: int, activation: Tree) -> Tree:
        """What comes out at the component's exit: of the head, or the activation itself if there is none.

        Args:
            index: of the component, for the message.
            activation: y_i.

        Raises:
            ValueError: if the head changes the activation, which is the next component's input too.
        """
        if self.aux_net is None:
            return activation
        before = versions(activation)
        try:
            output = self.aux_net(activation)
        except RuntimeError as error:
            if "a leaf Variable that requires grad" not in str(error):
                raise
            before = []  # autograd has noticed the change itself
        if before != versions(activation):
            raise ValueError(
                f"head {index} changes its input in place, which is the output of component {index} and still "
                "in use; make its first operation out of place, e.g. ReLU(inplace=False)."
            )
        return output

    def discard(self) -> None:
        """Gives up parameters and optimizers: another process has them. What is left is the structure."""
        self.to("meta")
        self._main_optimizers, self._aux_optimizers, self.lr_schedulers = [], [], []
        self._main_parameters = list(self.main_net.parameters())
        self._aux_parameters = [p for _, p in trained_in(self.aux_net)]
        self.credit = Credit(self._main_parameters)

    def loss_factor(self, share: float | Tensor, loss: Tensor) -> float | Tensor:
        """What the loss is multiplied with where it is differentiated.

        Args:
            share: the micro-batch's share of the batch.
            loss: without dimensions.

        Returns:
            The share, or 1/n of it where n batches are accumulated; times the loss scale, if there is one.
        """
        if self.accumulate > 1:
            share = share / self.accumulate
        if self.grad_scaler is None:
            return share
        if not isinstance(share, Tensor):
            share = torch.full_like(loss, share, dtype=torch.promote_types(loss.dtype, torch.float32))
        return self.grad_scaler.scale(share)

    def update(self) -> None:
        """Clips what is not clipped globally, steps the optimizers and frees the gradients."""
        if self.max_grad_norm is not None:
            for parameters in self._clipped_apart():
                torch.nn.utils.clip_grad_norm_(parameters, self.max_grad_norm)
        torch.clear_autocast_cache()  # it holds casts of the weights that change here
        for optimizer in self.optimizers:
            optimizer.step()
        self.free_gradients()

    def _clipped_apart(self) -> list[list[Parameter]]:
        """The parameters in groups, each of which is clipped by its own norm."""
        shared = {id(p): p for p in self.shared_parameters()}
        main, aux = ([p for p in ps if id(p) not in shared] for ps in (self._main_parameters, self._aux_parameters))
        if self.clips_globally:
            return [*([p] for p in self._aux_parameters if id(p) in shared), aux]
        return [main, *([p] for p in shared.values()), aux]

    def exchange_gradients(self, gradients: Gradients | None) -> Gradients:
        """Takes the gradients of the main net out of ``.grad``, and puts others there.

        Args:
            gradients: for each parameter; None for none at all.
        """
        taken = [parameter.grad for parameter in self._main_parameters]
        for n, parameter in enumerate(self._main_parameters):
            parameter.grad = None if gradients is None else gradients[n]
        return taken

    def free_gradients(self) -> None:
        """Drops the gradients of all parameters."""
        for parameter in (*self._main_parameters, *self._aux_parameters):
            parameter.grad = None

    def lr_scheduler_step(self, metric: float | Tensor | None) -> None:
        """Steps the LR schedulers; ReduceLROnPlateau gets the metric, the others nothing.

        Raises:
            ValueError: if a ReduceLROnPlateau has no metric to go by.
        """
        for scheduler in self.lr_schedulers:
            if isinstance(scheduler, ReduceLROnPlateau):
                if metric is None:
                    raise ValueError("ReduceLROnPlateau needs a metric: call model.lr_scheduler_step(validation_loss).")
                scheduler.step(metric)
                continue
            warn_of_lost_rate(self._index, scheduler)
            with warnings.catch_warnings():
                # A frozen component's schedule goes on, though its optimizer never steps.
                warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)
                scheduler.step()

    def scale_learning_rate(self, factor: float) -> None:
        """Multiplies the main net's learning rates from now on; see `Rated.scale_learning_rates`."""
        scale_rates(self._main_optimizers, self.lr_schedulers, factor)

    def training_state_dict(self) -> dict[str, Any]:
        """The state of the optimizers and LR schedulers; of the loss scale, and credit under way, if there is any."""
        state: dict[str, Any] = {
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "lr_schedulers": [scheduler.state_dict() for scheduler in self.lr_schedulers],
        }
        if credit := self.credit.state_dict():
            state["credit"] = credit
        return state if self.grad_scaler is None else {**state, "grad_scaler": self.grad_scaler.state_dict()}

    def load_training_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `training_state_dict` returned.

        Raises:
            ValueError: if the numbers of optimizers or LR schedulers differ.
        """
        stateful: dict[str, Sequence[Optimizer | LRScheduler]]
        stateful = {"optimizers": self.optimizers, "lr_schedulers": self.lr_schedulers}
        for name, targets in stateful.items():
            if len(state[name]) != len(targets):
                raise ValueError(
                    f"the saved state has {len(state[name])} {name} for a component that has {len(targets)}; build the "
                    "model with the options that it was saved with."
                )
            for target, saved in zip(targets, state[name], strict=True):
                target.load_state_dict(saved)
        self.credit.load_state_dict(state.get("credit", []))
        if self.grad_scaler is not None and state.get("grad_scaler"):
            self.grad_scaler.load_state_dict(state["grad_scaler"])


def _tensors_of(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()
