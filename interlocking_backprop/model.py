"""The model: components in a row, trained by a scheme."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import ModuleList, Parameter

from interlocking_backprop.component import Component
from interlocking_backprop.losses import Loss
from interlocking_backprop.microbatch import batch_size, split
from interlocking_backprop.runtime.executor import Executor, Packet, Step
from interlocking_backprop.schedule.order import depth_first
from interlocking_backprop.schedule.schedule import Schedule
from interlocking_backprop.schedule.validate import validate
from interlocking_backprop.scheme import Scheme
from interlocking_backprop.streams import Workload
from interlocking_backprop.tree import Tree, map_tensors


class InterlockingBackpropModel(nn.Module):
    """A network cut by depth into components, each trained by the losses that the scheme gives it.

    Made by `build_model` and its shorthands. Until `enable_model_parallel` is called all components are on one device
    ("simulated model parallelism"): same numbers, one component after another.

    Args:
        components: in the order of depth.
        scheme: of as many components.
        losses: the loss of each component; the last one is that of the network.
        n_microbatches: into how many parts each batch is cut.
        seed: of all random numbers drawn in training steps.

    Attributes:
        components: the components; each has ``main_net``, ``aux_net`` and ``optimizer``.
        n_microbatches: M.
        losses: the loss of each component.
        exit_losses: after a training step, for each component its loss on the batch; None without a head.
    """

    def __init__(
        self,
        components: Sequence[Component],
        scheme: Scheme,
        losses: Sequence[Loss],
        n_microbatches: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.components: Sequence[Component] = ModuleList(components)  # type: ignore[assignment]
        self.n_microbatches = n_microbatches
        self.seed = seed
        self.exit_losses: list[Tensor | None] = [None] * len(components)
        self.losses = list(losses)
        self._n_steps = 0
        self._schedules: dict[int, Schedule] = {}
        self.set_scheme(scheme)

    @property
    def scheme(self) -> Scheme:
        """The scheme that the next step follows."""
        return self._scheme

    @property
    def schedule(self) -> Schedule:
        """The schedule of a full batch's step."""
        return self._schedule(self.n_microbatches)

    def set_scheme(self, scheme: Scheme) -> None:
        """Trains by another scheme from the next step on. Optimizers keep their state.

        Raises:
            ValueError: if the scheme is for another number of components, or needs a head that is missing.
        """
        if not isinstance(scheme, Scheme):
            raise ValueError(f"the scheme is {scheme!r}; expected an interlocking_backprop.Scheme, e.g. nwise(k, 3).")
        if scheme.n_components != len(self.components):
            raise ValueError(
                f"scheme {scheme.name!r} is for {scheme.n_components} components, the model has "
                f"{len(self.components)}; make it for {len(self.components)}."
            )
        self._workload_of(scheme)
        self._scheme = scheme

    def training_step(self, inputs: Tree, targets: Tree) -> Future[Tensor]:
        """Trains on one batch.

        Args:
            inputs: x_0, a tensor or a nested tuple, list or dict of tensors, samples along dimension 0. A batch of
                fewer samples than ``n_microbatches`` is cut into single samples.
            targets: whatever the losses take as their second argument, samples along dimension 0.

        Returns:
            A future of the last component's loss: the mean over the batch, without dimensions, detached.

        Raises:
            ValueError: if the batch is empty or its tensors differ in their leading sizes.
            Exception: what a module, a loss or an optimizer raises, as it is.
        """
        size = batch_size(inputs)
        n = min(self.n_microbatches, size)
        asked_for = any(loss.wants_network_input for loss in self.losses)
        packets = [
            Packet(x, target, map_tensors(Tensor.detach, x) if asked_for else None)
            for x, target in zip(split(inputs, n, size), split(targets, n, size), strict=True)
        ]
        weights = [(size // n + (m < size % n)) / size for m in range(n)]
        step = Step(self.seed, self._n_steps, packets, weights)
        self._executor(n).run(step)
        self._n_steps += 1
        self.exit_losses = [step.losses.get(i) for i in range(len(self.components))]
        future: Future[Tensor] = Future()
        future.set_result(step.losses[len(self.components) - 1])
        return future

    @torch.no_grad()
    def forward(self, inputs: Tree) -> Tree:
        """The network's output, on the output device. No graph is kept: for gradients use `training_step`."""
        for component in self.components:
            inputs = component(inputs)
        return inputs

    @torch.no_grad()
    def forward_exits(self, inputs: Tree) -> list[Tree | None]:
        """The output at every exit: of each auxiliary net, None where there is none, and the network's own, last."""
        exits = []
        for component in self.components:
            inputs = component(inputs)
            exits.append(component.aux_net(inputs) if component.aux_net is not None else None)
        exits[-1] = inputs
        return exits

    def lr_scheduler_step(self, metric: float | Tensor | None = None) -> None:
        """Steps all LR schedulers.

        Args:
            metric: what ReduceLROnPlateau watches, e.g. the validation loss; other schedulers do not get it.
        """
        for component in self.components:
            component.lr_scheduler_step(metric)

    def get_lr(self) -> float:
        """The learning rate of the first component that has an optimizer (of its first parameter group)."""
        optimizers = (o for component in self.components for o in component.optimizers)
        return float(next(optimizers).param_groups[0]["lr"])

    def main_net_parameters(self) -> Iterator[Parameter]:
        """The parameters of the network itself, those of the auxiliary nets left out."""
        return itertools.chain.from_iterable(component.main_net.parameters() for component in self.components)

    def get_input_device(self) -> torch.device:
        """The device of the first component, where inputs go."""
        return self._devices()[0]

    def get_output_device(self) -> torch.device:
        """The device of the last component, where the output and the loss are."""
        return self._devices()[-1]

    def shutdown(self) -> None:
        """Ends what `enable_model_parallel` began; nothing to do before that."""

    def training_state_dict(self) -> dict[str, Any]:
        """What a resumed run needs beside ``state_dict()``: optimizers, LR schedulers, the step count and the seed."""
        return {
            "n_steps": self._n_steps,
            "seed": self.seed,
            "components": [component.training_state_dict() for component in self.components],
        }

    def load_training_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `training_state_dict` returned; the next step then equals that of the run that was saved.

        Raises:
            ValueError: if the state is of a model with other components or optimizers.
        """
        if len(state["components"]) != len(self.components):
            raise ValueError(
                f"the saved state is of {len(state['components'])} components, the model has {len(self.components)}."
            )
        for component, saved in zip(self.components, state["components"], strict=True):
            component.load_training_state_dict(saved)
        self._n_steps, self.seed = state["n_steps"], state["seed"]

    def _workload_of(self, scheme: Scheme) -> Workload:
        heads = [component.aux_net is not None for component in self.components[:-1]]
        trainable = [bool(component.main_parameters()) for component in self.components]
        return Workload(scheme, (*heads, True), tuple(trainable))

    def _schedule(self, n_microbatches: int) -> Schedule:
        workload = self._workload_of(self._scheme)  # parameters may have been frozen or unfrozen since the last step
        known = self._schedules.get(n_microbatches)
        if known is None or known.workload != workload:
            known = depth_first(workload, n_microbatches)
            validate(known)
            self._schedules[n_microbatches] = known
        return known

    def _executor(self, n_microbatches: int) -> Executor:
        components = dict(enumerate(self.components))
        devices = dict(enumerate(self._devices()))
        return Executor(self._schedule(n_microbatches), 0, components, devices, self.losses)

    def _devices(self) -> list[torch.device]:
        """The device of each component; one without parameters is where the one below it is."""
        devices = [component.device for component in self.components]
        first = next((d for d in devices if d is not None), torch.device("cpu"))
        filled = itertools.accumulate(devices, lambda below, own: own or below, initial=first)
        return [device for device in filled if device is not None][1:]
