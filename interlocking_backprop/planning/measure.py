"""Measures what each action of a model costs here, with plain autograd calls: the engine is not part of the figure."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from interlocking_backprop.engine.component import Component
from interlocking_backprop.engine.losses import Loss
from interlocking_backprop.engine.randomness import generator_of, preserved
from interlocking_backprop.engine.split_backward import SplitBackward
from interlocking_backprop.engine.tree import Tree, detached, map_tensors, tensors, to_device
from interlocking_backprop.schedule.costs import ComponentCosts, Costs


def measure_costs(
    components: list[Component], losses: list[Loss], inputs: Tree, targets: Tree, repeats: int = 5
) -> Costs:
    """Times forward, loss, backward passes and update of every component on a micro-batch.

    The components are left as they are: copies do the work, one at a time.

    Args:
        components: of a model, in the order of depth.
        losses: of each component.
        inputs: of the network, one micro-batch.
        targets: of the losses.
        repeats: how often each is timed; the median counts.

    Returns:
        Costs in seconds and bytes.
    """
    costs = []
    network_input = inputs
    for original, loss in zip(components, losses, strict=True):
        component = copy.deepcopy(original)
        device = component.device or torch.device("cpu")
        with preserved([generator_of(device)]), torch.enable_grad():
            inputs, targets = to_device((inputs, targets), device)
            one = _ComponentTimer(component, loss, inputs, targets, to_device(network_input, device), device)
            costs.append(one.costs(repeats, is_last=original is components[-1]))
            inputs = detached(one.outputs)
        del component, one
    return Costs(costs)


class _ComponentTimer:
    """A component with its input, and the five things that are done to it."""

    def __init__(
        self, component: Component, loss: Loss, inputs: Tree, target: Tree, network_input: Tree, device: torch.device
    ) -> None:
        self._component, self._loss, self._target, self._network_input = component, loss, target, network_input
        self._device = device
        self._inputs = map_tensors(lambda t: t.detach().requires_grad_(t.is_floating_point()), inputs)
        self._leaves = [t for t in tensors(self._inputs) if t.requires_grad]
        self._is_first = inputs is network_input
        self.outputs: Tree = None
        self._saved = 0

    def costs(self, repeats: int, *, is_last: bool) -> ComponentCosts:
        """The median of each duration, after one round that does not count."""
        computes_loss = is_last or self._component.aux_net is not None
        rounds = [self._round(computes_loss) for _ in range(repeats + 1)][1:]
        medians = {name: statistics.median(r[name] for r in rounds) for name in rounds[0]}
        output_bytes = sum(t.nbytes for t in tensors(self.outputs))
        return ComponentCosts(
            **medians,
            output_bytes=output_bytes,
            gradient_bytes=sum(p.nbytes for p in self._component.main_parameters()),
            shared_bytes=sum(p.nbytes for p in self._component.shared_parameters() if p.requires_grad),
            saved_bytes=self._saved_bytes(),
        )

    def _round(self, computes_loss: bool) -> dict[str, float]:
        component = self._component
        parameters = component.main_parameters()
        inputs = map_tensors(Tensor.detach, self._inputs) if self._is_first else self._inputs
        times = {"forward": self._timed(lambda: setattr(self, "outputs", component.main_net(inputs)))}
        outputs = [t for t in tensors(self.outputs) if t.requires_grad]
        gradients = [torch.randn_like(t) for t in outputs]
        times["loss"] = self._timed(self._loss_backward) if computes_loss else 0.0
        leaves = [] if self._is_first else self._leaves

        def backward(*wanted: list[Tensor]) -> float:
            flat = [t for some in wanted for t in some]
            if not outputs or not flat:
                return 0.0
            return self._timed(
                lambda: torch.autograd.grad(outputs, flat, gradients, retain_graph=True, allow_unused=True)
            )

        times["backward_input"] = backward(leaves)
        times["backward_weight"] = backward(list(parameters))
        times["full_backward"] = backward(list(parameters), leaves)
        times["split_weight"] = times["backward_weight"]
        if outputs and parameters and leaves:
            halves = SplitBackward(outputs, leaves, parameters)
            halves.inputs(gradients)
            times["split_weight"] = self._timed(lambda: halves.weights(keep_graph=True))
        for p in (*parameters, *component.aux_parameters()):
            p.grad = torch.zeros_like(p)
        times["update"] = self._timed(component.update)
        return times

    def _loss_backward(self) -> None:
        component = self._component
        exit_input = map_tensors(lambda t: t.detach().requires_grad_(t.requires_grad), self.outputs)
        output = exit_input if component.aux_net is None else component.aux_net(exit_input)
        loss = self._loss(output, self._target, self._inputs, self._network_input)
        wanted = [*component.aux_parameters(), *(t for t in tensors(exit_input) if t.requires_grad)]
        if wanted and loss.requires_grad:
            torch.autograd.grad(loss, wanted, allow_unused=True)

    def _saved_bytes(self) -> int:
        """Bytes that the graph of a forward pass keeps, beside the weights; each storage once."""
        weights = {p.untyped_storage().data_ptr() for p in self._component.parameters()}
        storages: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                storages[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            self._component.main_net(self._inputs)
        return sum(storages.values())

    def _timed(self, action: Callable[[], object]) -> float:
        self._wait()
        start = time.perf_counter()
        action()
        self._wait()
        return time.perf_counter() - start

    def _wait(self) -> None:
        if self._device.type != "cpu":
            torch.accelerator.synchronize(self._device)
