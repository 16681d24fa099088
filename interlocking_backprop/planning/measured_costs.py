"""Measures what each action of a model costs here, with plain autograd calls: the engine is not part of the figure."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from interlocking_backprop.engine.component import Component
from interlocking_backprop.engine.head_copy import tensors_of
from interlocking_backprop.engine.losses import Loss
from interlocking_backprop.engine.randomness import generator_of, preserved
from interlocking_backprop.engine.split_backward import SplitBackward
from interlocking_backprop.engine.tree import Tree, detached, map_tensors, tensors, to_device
from interlocking_backprop.planning.timing import timed
from interlocking_backprop.schedule.costs import ComponentCosts, Costs


def measure_costs(
    components: Sequence[Component],
    losses: Sequence[Loss],
    inputs: Tree,
    targets: Tree,
    repeats: int = 5,
    *,
    heads: bool = True,
) -> Costs:
    """Times forward, loss, backward passes and update of every component on a micro-batch, where the component is.

    The components are left as they are: copies do the work, one at a time. Moving data between devices is not timed.

    Args:
        components: of a model, in the order of depth.
        losses: of each component.
        inputs: of the network, one micro-batch.
        targets: of the losses.
        repeats: how often each is timed, after one round of warm-up; the median counts.
        heads: whether the heads take part; without them ``loss`` is zero but for the last component, and
            ``update`` is that of the main net alone.

    Returns:
        Costs in seconds and bytes. Links between devices are not measured: messages cost nothing.
    """
    costs = []
    network_input = inputs
    network_output = _output(components, inputs) if any(loss.wants_network_output for loss in losses) else None
    for i, (original, loss) in enumerate(zip(components, losses, strict=True)):
        component = copy.deepcopy(original)
        device = component.device or torch.device("cpu")
        has_exit = i == len(components) - 1 or (heads and component.aux_net is not None)
        with preserved([generator_of(device)]), torch.enable_grad():
            inputs, targets, network_input, network_output = to_device(
                (detached(inputs), targets, network_input, network_output), device
            )
            for t in tensors(inputs):  # nobody wants the gradient of the network's input
                t.requires_grad_(i > 0 and t.is_floating_point())
            batch = (inputs, targets, network_input, network_output)
            value = partial(loss, component=i)
            rounds = [_round(component, value, batch, device, computes_loss=has_exit) for _ in range(repeats + 1)][1:]
            outputs, saved_bytes = _forward(component, inputs)
        costs.append(
            ComponentCosts(
                **{name: statistics.median(times[name] for times in rounds) for name in rounds[0]},
                output_bytes=sum(t.nbytes for t in tensors(outputs)),
                saved_bytes=saved_bytes,
                gradient_bytes=sum(p.nbytes for p in component.main_parameters()),
                shared_bytes=sum(p.nbytes for p in component.shared_parameters() if p.requires_grad),
                copied_bytes=max((_bytes_of(component, c.name) for c in component.copied_by), default=0),
            )
        )
        inputs = outputs
    return Costs(costs)


def _bytes_of(component: Component, name: str) -> int:
    return sum(t.nbytes for t in tensors_of(component.get_submodule(name)))


def _round(
    component: Component,
    loss: Callable[..., Tensor],
    batch: tuple[Tree, Tree, Tree, Tree],
    device: torch.device,
    *,
    computes_loss: bool,
) -> dict[str, float]:
    """Does with a component all that training does, on one micro-batch; the seconds of each."""
    inputs, target, network_input, network_output = batch
    times: dict[str, float] = {}
    result, times["forward"] = timed(lambda: component.main_net(inputs), device)
    outputs = [t for t in tensors(result) if t.requires_grad]
    gradients = [torch.randn_like(t) for t in outputs]
    leaves = [t for t in tensors(inputs) if t.requires_grad]
    main, aux = component.main_parameters(), component.aux_parameters()

    def loss_backward() -> None:
        exit_input = map_tensors(lambda t: t.detach().requires_grad_(t.requires_grad), result)
        output = exit_input if component.aux_net is None else component.aux_net(exit_input)
        value = loss(output, target, inputs, network_input, network_output)
        wanted = [*aux, *(t for t in tensors(exit_input) if t.requires_grad)]
        if wanted and value.requires_grad:
            torch.autograd.grad(value, wanted, allow_unused=True)

    def backward(wanted: Sequence[Tensor]) -> float:
        if not outputs or not wanted:
            return 0.0
        grad = partial(torch.autograd.grad, outputs, wanted, gradients, retain_graph=True, allow_unused=True)
        return timed(grad, device)[1]

    times["loss"] = timed(loss_backward, device)[1] if computes_loss else 0.0
    times["backward_input"] = backward(leaves)
    times["backward_weight"] = times["split_weight"] = backward(main)
    times["full_backward"] = backward([*main, *leaves])
    if outputs and main and leaves:
        halves = SplitBackward(outputs, leaves, main)
        halves.inputs(gradients)
        times["split_weight"] = timed(lambda: halves.weights(keep_graph=True), device)[1]
    for p in (*main, *(aux if computes_loss else ())):
        p.grad = torch.zeros_like(p)
    times["update"] = timed(component.update, device)[1]
    return times


def _output(components: Sequence[Component], inputs: Tree) -> Tree:
    """The network's output, by copies of the components."""
    with torch.no_grad():
        for component in components:
            device = component.device or torch.device("cpu")
            with preserved([generator_of(device)]):
                inputs = copy.deepcopy(component)(inputs)
    return inputs


def _forward(component: Component, inputs: Tree) -> tuple[Tree, int]:
    """The outputs, and the bytes that the graph of the pass keeps beside the weights; each storage once."""
    weights = {p.untyped_storage().data_ptr() for p in component.parameters()}
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outputs = component.main_net(inputs)
    return outputs, sum(storages.values())
