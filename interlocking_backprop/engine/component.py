"""One component: a part of the network, the head at its output, and the optimizers of both."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Parameter
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from interlocking_backprop.engine.tree import Tree, to_device, versions

OptimizerConstructor = Callable[[Iterable[Parameter]], Optimizer]
LRSchedulerConstructor = Callable[[Optimizer], "LRScheduler | None"]


class Component(nn.Module):
    """A main net, its head, and what updates them.

    Args:
        main_net: component i of the network, ``y_i = main_net(x_i)``.
        aux_net: the head at its output, ``aux_net(y_i)``; None if there is none.
        optimizer_constructor: called with the parameters; one optimizer holds those of the main net and the head,
            unless one of the next two arguments asks for two.
        lr_scheduler_constructor: called with each optimizer; may be None or return None.
        aux_optimizer_constructor: for the parameters of the head, if they get an optimizer of their own.
        aux_lr_factor: multiplies the learning rate of the head's optimizer.
        max_grad_norm: clips the gradient of the main net, and that of the head, to this 2-norm. Weights that
            are shared with other components are clipped on their own, so that all who hold them do the same.
        shared: the names, in the main net, of weights that other components hold too.

    Attributes:
        optimizer: of the main net (and the head); None if there are no parameters.
        aux_optimizer: of the head, where it has one of its own.
        lr_schedulers: one for each optimizer that has one.
    """

    def __init__(
        self,
        main_net: nn.Module,
        aux_net: nn.Module | None,
        optimizer_constructor: OptimizerConstructor,
        lr_scheduler_constructor: LRSchedulerConstructor | None = None,
        *,
        aux_optimizer_constructor: OptimizerConstructor | None = None,
        aux_lr_factor: float = 1.0,
        max_grad_norm: float | None = None,
        shared: Collection[str] = (),
    ) -> None:
        super().__init__()
        self.main_net = main_net
        self.aux_net = aux_net
        self.max_grad_norm = max_grad_norm
        self._shared = tuple(shared)
        self._main_parameters = list(main_net.parameters())
        self._aux_parameters = list(aux_net.parameters()) if aux_net is not None else []

        has_two = aux_optimizer_constructor is not None or aux_lr_factor != 1.0
        others = [] if has_two else self._aux_parameters
        self.optimizer = _construct(optimizer_constructor, [*self._main_parameters, *others])
        self.aux_optimizer = None
        if has_two:
            self.aux_optimizer = _construct(aux_optimizer_constructor or optimizer_constructor, self._aux_parameters)
        if self.aux_optimizer is not None:
            for group in self.aux_optimizer.param_groups:
                group["lr"] *= aux_lr_factor
        construct = lr_scheduler_constructor or (lambda _: None)
        self.lr_schedulers = [s for s in map(construct, self.optimizers) if s is not None]

    @property
    def optimizers(self) -> list[Optimizer]:
        return [o for o in (self.optimizer, self.aux_optimizer) if o is not None]

    def main_parameters(self) -> list[Parameter]:
        """The parameters of the main net that want a gradient."""
        return [p for p in self._main_parameters if p.requires_grad]

    @property
    def is_trainable(self) -> bool:
        """Whether any parameter of the main net wants a gradient."""
        return any(p.requires_grad for p in self._main_parameters)

    def aux_parameters(self) -> list[Parameter]:
        """The parameters of the head that want a gradient."""
        return [p for p in self._aux_parameters if p.requires_grad]

    def shared_parameters(self) -> list[Parameter]:
        """The parameters of the main net that other components hold too."""
        return [self.main_net.get_parameter(name) for name in self._shared]

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
        self.optimizer = self.aux_optimizer = None
        self.lr_schedulers = []
        self._main_parameters = list(self.main_net.parameters())
        self._aux_parameters = list(self.aux_net.parameters()) if self.aux_net is not None else []

    def update(self) -> None:
        """Clips, steps the optimizers and frees the gradients."""
        if self.max_grad_norm is not None:
            shared = self.shared_parameters()
            own = [p for p in self._main_parameters if all(p is not other for other in shared)]
            for parameters in (own, *([p] for p in shared), self._aux_parameters):
                torch.nn.utils.clip_grad_norm_(parameters, self.max_grad_norm)
        torch.clear_autocast_cache()  # it holds casts of the weights that change here
        for optimizer in self.optimizers:
            optimizer.step()
        self.free_gradients()

    def free_gradients(self) -> None:
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
            with warnings.catch_warnings():
                # A frozen component's schedule goes on, though its optimizer never steps.
                warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)
                scheduler.step()

    def training_state_dict(self) -> dict[str, Any]:
        """The state of the optimizers and LR schedulers."""
        return {
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "lr_schedulers": [scheduler.state_dict() for scheduler in self.lr_schedulers],
        }

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


def _tensors_of(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()


def _construct(constructor: OptimizerConstructor, parameters: list[Parameter]) -> Optimizer | None:
    if not parameters:
        return None
    optimizer = constructor(parameters)
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise ValueError(
            f"{type(optimizer).__name__} needs a closure that evaluates the loss again; expected an optimizer whose "
            "step() works without one, e.g. SGD or AdamW."
        )
    return optimizer
