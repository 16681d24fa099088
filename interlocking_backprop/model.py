"""The model: components in a row, trained by a scheme."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor
from torch.nn import ModuleList, Parameter

from interlocking_backprop.engine.accumulation import Accumulation
from interlocking_backprop.engine.batch import Batch, cut
from interlocking_backprop.engine.component import Component
from interlocking_backprop.engine.loss_future import LossFuture
from interlocking_backprop.engine.losses import Loss
from interlocking_backprop.engine.message import Packet
from interlocking_backprop.engine.model_rates import Rated
from interlocking_backprop.engine.oversights import Watchful
from interlocking_backprop.engine.state import Visit
from interlocking_backprop.engine.ties import Tie
from interlocking_backprop.engine.tree import Tree
from interlocking_backprop.planning.measured_costs import measure_costs
from interlocking_backprop.runtime.devices import checked_devices, local_devices
from interlocking_backprop.runtime.due_copies import DueCopies
from interlocking_backprop.runtime.inspected import InspectedModel
from interlocking_backprop.runtime.one_process import OneProcess
from interlocking_backprop.runtime.partial_state import add_discarded, drop_discarded, model_facts
from interlocking_backprop.runtime.ranks import Ranks
from interlocking_backprop.runtime.runtime import Runtime
from interlocking_backprop.runtime.workloads import Workloads
from interlocking_backprop.schedule.costs import Costs
from interlocking_backprop.schedule.schedule import Schedule
from interlocking_backprop.scheme.coefficients import Scheme
from interlocking_backprop.scheme.streams import Workload
from interlocking_backprop.transport.process_groups import has_ranks


class InterlockingBackpropModel(InspectedModel, Rated, Watchful):
    """A network cut by depth into components, each trained by the losses that the scheme gives it.

    Made by `build_model` and its shorthands. Until `enable_model_parallel` is called all components are on one device
    ("simulated model parallelism"): same numbers, one component after another.

    Args:
        components: in the order of depth.
        scheme: of as many components.
        losses: the loss of each component; the last one is that of the network.
        n_microbatches: into how many parts each batch is cut.
        seed: of all random numbers drawn in training steps.
        ties: the weights that components share.

    Attributes:
        components: the components; each has ``main_net``, ``aux_net`` and ``optimizer``.
        n_microbatches: M.
        losses: the loss of each component.
        ties: the weights that components share; each holds a copy, which must stay equal.
        flag: a number that rank 0 may set and that all ranks find here after the next training step: to agree on
            stopping, say, without waiting for one another.
        exit_losses: after a training step, for each component its loss on the batch; None without a head.
    """

    def __init__(
        self,
        components: Sequence[Component],
        scheme: Scheme,
        losses: Sequence[Loss],
        n_microbatches: int = 1,
        seed: int = 0,
        ties: Sequence[Tie] = (),
    ) -> None:
        super().__init__()
        self.components = ModuleList(components)  # type: ignore[assignment]
        self.n_microbatches = n_microbatches
        self.seed = seed
        self.flag = 0
        self.exit_losses: list[Tensor | None] = [None] * len(components)
        self.losses = list(losses)
        self.ties = list(ties)
        self._n_steps = 0
        self._accumulation = Accumulation(components[0].accumulate, components)
        self._heads = (*(component.aux_net is not None for component in components[:-1]), True)
        self._workloads = Workloads(list(components), self._heads, self.ties, losses)
        self._copies = DueCopies(components)
        self._runtime: Runtime = OneProcess(components, losses, self.ties)
        self.set_scheme(scheme)

    @property
    def schedule(self) -> Schedule:
        """The schedule of a full batch's step; of the next one, where heads are copies that are refreshed in some."""
        workload = self._copies.added(self._workloads.of(self._scheme), self._accumulation.n_updates)
        return self._runtime.schedule(workload, self.n_microbatches)

    @property
    def rank(self) -> int:
        """Of this process among those of the model; 0 in a single process."""
        return self._runtime.rank

    @property
    def n_ranks(self) -> int:
        """The number of processes that share the model."""
        return self._runtime.n_ranks

    def gather(self, value: Any) -> list[Any]:
        """The values of all ranks (a list of one in a single process); all ranks call this."""
        return self._runtime.gather(value)

    @property
    def local_components(self) -> list[int]:
        """The components that this process has: all, but for several ranks."""
        return self._runtime.local_components

    def set_scheme(self, scheme: Scheme) -> None:
        """Trains by another scheme from the next step on. Optimizers keep their state.

        Raises:
            ValueError: if the scheme is for another number of components, trains none, or needs a head that is missing.
        """
        self._workloads.of(scheme)
        self._scheme = scheme

    def enable_model_parallel(
        self,
        devices: Sequence[torch.device | str] | None = None,
        *,
        costs: Costs | None = None,
        max_graphs: int | None = None,
        timeout: timedelta = timedelta(minutes=10),
    ) -> None:
        """Puts the components on devices of their own, all at work at once.

        In one of several processes (under torchrun, or after ``init_process_group``) this rank keeps its components
        and gives up the others; neighbours share a rank where there are more components than ranks. All ranks call
        this, and from then on the same methods in the same order: rank 0 with data, the others with None. In a single
        process every component goes to its device.

        Args:
            devices: in a single process one for each component; devices may repeat; by default the accelerators of
                this machine. In one of several processes this rank's device, as a list of one; by default the
                accelerator of its local rank, or else the CPU.
            costs: of the components, which the order of actions is found for (see `measure_costs`); by default all
                equal.
            max_graphs: the most graphs, of a component and a micro-batch each, that may be alive on a device; by
                default as many as the fastest order found keeps.
            timeout: how long a rank may wait for another before the run is given up.

        Raises:
            ValueError: if there are too few devices or components, a device is not there, or the ranks have built
                different models.
        """
        k = len(self.components)
        self._runtime.close()
        if not has_ranks():
            chosen = local_devices(k) if devices is None else checked_devices(devices, k)
            self._runtime = OneProcess(list(self.components), self.losses, self.ties, chosen, costs, max_graphs)
            return
        device = None if devices is None else checked_devices(devices, 1)[0]
        facts = model_facts(self.components, self.losses, self.ties, self._scheme, self.n_microbatches)
        components, m = list(self.components), self.n_microbatches
        self._runtime = Ranks(components, self.losses, self.ties, m, facts, device, costs, max_graphs, timeout)
        self.seed = self._runtime.gather(self.seed)[0]
        self.register_state_dict_post_hook(drop_discarded)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(add_discarded)  # type: ignore[no-untyped-call]

    def training_step(self, inputs: Tree, targets: Tree) -> LossFuture:
        """Trains on one batch (one of several that make up an update, if the model accumulates).

        On ranks other than the first both arguments may be None.

        Args:
            inputs: x_0, a tensor or a nested tuple, list or dict of tensors, samples along dimension 0. A batch of
                fewer samples than ``n_microbatches`` is cut into single samples.
            targets: whatever the losses take as their second argument, samples along dimension 0.

        Returns:
            A ``concurrent.futures.Future`` of the last component's loss: the mean over the batch, without dimensions,
            detached. On ranks other than the last, a future of None.

        Raises:
            ValueError: if the batch is empty or its tensors differ in their leading sizes.
                Or if a component has been changed since the model was built, or is sharded.
            Exception: what a module, a loss or an optimizer raises, with a note that says where.
        """
        self.look_over()
        # Parameters may have been frozen or unfrozen since the last step.
        workload = self._accumulation.begin(self._workloads.of_step(self._scheme, self._n_steps))
        workload = self._copies.added(workload, self._accumulation.n_updates)
        batch = self._batch(inputs, targets)
        result = self._runtime.run(workload, batch, on_gradients=self._on_gradients)
        self._accumulation.end()
        self._workloads.note(workload, self._n_steps)
        self._n_steps += 1
        self.flag = result.flag
        self.exit_losses = [result.losses.get(i) for i in range(len(self.components))]
        return LossFuture(self.exit_losses[-1])

    def forward(self, inputs: Tree) -> Tree:
        """The network's output, on the output device. No graph is kept: for gradients use `training_step`.

        On several ranks all call this, and the last one gets the output, the others None.
        """
        return self._evaluate(None, inputs, None, [len(self.components) - 1])[-1]

    def forward_exits(self, inputs: Tree) -> list[Tree | None]:
        """The output at every exit: of each head, None where there is none, and the network's own, last."""
        return self.map_exits(lambda output, _: output, inputs)

    def map_exits(
        self, function: Visit, inputs: Tree, targets: Tree = None, exits: Collection[int] | None = None
    ) -> list[Any]:
        """Calls a function with the output at every exit and the targets, there where the exit is.

        Args:
            function: of an exit's output and the targets, both on the device of the exit.
            inputs: of the network.
            targets: what the function gets beside each output.
            exits: the components whose exits count; by default all that have one. Nothing above the last of them runs.

        Returns:
            What it returned, for each component; None where there is no head, or where another rank has it.

        Raises:
            ValueError: if one of the exits is not there.
        """
        if exits is None:
            exits = [i for i, is_there in enumerate(self._heads) if is_there]
        return self._evaluate(function, inputs, targets, exits)

    def measure_costs(self, inputs: Tree, targets: Tree, repeats: int = 5) -> Costs:
        """Times what each component does with a micro-batch, on the device where it is, for `enable_model_parallel`.

        Args:
            inputs: of the network, one micro-batch.
            targets: of the losses.
            repeats: how often each is timed; the median counts.
        """
        return measure_costs(list(self.components), self.losses, inputs, targets, repeats)

    def main_net_parameters(self) -> Iterator[Parameter]:
        """The parameters of the network itself, those of the heads left out."""
        return (parameter for component in self.components for parameter in component.main_net.parameters())

    def get_input_device(self) -> torch.device:
        """The device of the first component, where inputs go."""
        return self._runtime.devices()[0]

    def get_output_device(self) -> torch.device:
        """The device of the last component, where the output and the loss are."""
        return self._runtime.devices()[-1]

    def shutdown(self) -> None:
        """Ends what `enable_model_parallel` began; nothing to do before that."""
        self._runtime.close()

    def __getstate__(self) -> dict[str, Any]:
        """What a copy takes over (`copy.deepcopy`); on several ranks the runtime refuses."""
        if self.n_ranks == 1:
            self.settle()
        return vars(self)

    def settle(self) -> None:
        """Carries out what is left of the batches under way, where the scheme delays credit; all ranks call this.

        Nothing is updated, and no number depends on it: the gradients then wait for their updates as data, in the
        components' training state. `training_state_dict` begins with it.
        """
        self._runtime.settle()

    def counters(self) -> dict[str, Any]:
        """The step count and the seed, by which random numbers are keyed, the updates, and when late credit is due."""
        self._accumulation.check_complete()
        counters = {"n_steps": self._n_steps, "seed": self.seed, "n_updates": self._accumulation.n_updates}
        return {**counters, **self._workloads.under_way(self._n_steps)}

    def load_counters(self, counters: dict[str, Any]) -> None:
        """Restores what `counters` returned."""
        self._accumulation.restart()
        self._n_steps, self.seed = counters["n_steps"], counters["seed"]
        self._workloads.due = list(counters.get("due", [-1] * len(self.components)))
        # What was saved before updates were counted was saved where steps and updates agree.
        self._accumulation.n_updates = counters.get("n_updates", self._n_steps // self.components[0].accumulate)

    def training_state_dict(self) -> dict[str, Any]:
        """What a resumed run needs beside ``state_dict()``: optimizers, LR schedulers, credit under way, counters.

        All ranks call this.

        Raises:
            ValueError: between the batches of one update (``accumulate``), whose gradients it would not hold.
        """
        self.settle()
        return {
            **self.counters(),
            "components": [
                component.training_state_dict() if i in self.local_components else None
                for i, component in enumerate(self.components)
            ],
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
        self.settle()
        for i in self.local_components:
            self.components[i].load_training_state_dict(state["components"][i])
        self.load_counters(state)

    def _batch(self, inputs: Tree, targets: Tree) -> Batch | None:
        if not self._runtime.reads_data:
            return None
        return cut(inputs, targets, self.n_microbatches, self.losses, self.seed, self._n_steps, self.flag)

    def _evaluate(self, function: Visit | None, inputs: Tree, targets: Tree, exits: Collection[int]) -> list[Any]:
        k = len(self.components)
        for i in exits:
            if not (0 <= i < k and self._heads[i]):
                known = ", ".join(str(j) for j in range(k) if self._heads[j])
                raise ValueError(f"exit {i} is asked for; expected one of the exits that are there: {known}.")
        workload = Workload.evaluation([i in exits for i in range(k)])
        batch = Batch((Packet(inputs, targets, None),)) if self._runtime.reads_data else None
        result = self._runtime.run(workload, batch, function)
        return [result.exits.get(i) for i in range(k)]
