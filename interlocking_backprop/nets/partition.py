"""Anybody's network, as a row of blocks, cut into components of even cost.

The slowest component sets the pace of all, so the cut is the one whose dearest component is as cheap as possible.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from typing import overload

import torch
from torch import Tensor, nn

from interlocking_backprop.common.checks import is_whole
from interlocking_backprop.engine.tree import Tree, map_tensors, tensors
from interlocking_backprop.nets.block_costs import Measure, block_costs
from interlocking_backprop.nets.row import sequential
from interlocking_backprop.nets.undisturbed import undisturbed
from interlocking_backprop.schedule.cuts import balanced_cuts


class Partition(Sequence[nn.Sequential]):
    """The components that a row of blocks was cut into; it can be passed as ``main_nets``.

    A component's children have the names that the blocks had in the row, so the keys of a state dict tell the block,
    whatever the cut.

    Attributes:
        sizes: how many blocks each component has.
        costs: of each component, in seconds, bytes or operations: the sum over its blocks.
        by: what was balanced.
    """

    def __init__(self, components: Sequence[nn.Sequential], costs: Sequence[float], by: Measure) -> None:
        self._components = tuple(components)
        self.sizes = [len(component) for component in components]
        self.costs = list(costs)
        self.by = by

    @property
    def balance(self) -> float:
        """The cost of the dearest component, divided by the mean: 1 is perfect, K the worst."""
        mean = statistics.fmean(self.costs)
        return max(self.costs) / mean if mean else 1.0

    def __len__(self) -> int:
        return len(self._components)

    @overload
    def __getitem__(self, index: int) -> nn.Sequential: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[nn.Sequential]: ...
    def __getitem__(self, index: int | slice) -> nn.Sequential | Sequence[nn.Sequential]:
        return self._components[index]

    def __str__(self) -> str:
        scale, unit = _UNITS[self.by]
        worst = "slowest" if self.by == "time" else "largest"
        lines = [f"{len(self)} components, balanced by {self.by}: {worst} / mean = {self.balance:.2f}"]
        for i, (component, cost) in enumerate(zip(self, self.costs, strict=True)):
            names = list(component._modules)
            span = names[0] if len(names) == 1 else f"{names[0]} … {names[-1]}"
            blocks = "1 block" if len(names) == 1 else f"{len(names)} blocks"
            lines.append(f"component {i}: {span} ({blocks}), {cost / scale:.3g} {unit}")
        return "\n".join(lines)


_UNITS: dict[Measure, tuple[float, str]] = {
    "time": (1e-3, "ms"),
    "parameters": (2**20, "MiB"),
    "activations": (2**20, "MiB"),
    "flops": (1e9, "GFLOP"),
}


def partition(
    blocks: nn.Sequential | Sequence[nn.Module], n_components: int, sample_input: Tree, by: Measure = "time"
) -> Partition:
    """Cuts a row of blocks into components such that the dearest one is as cheap as possible.

    The blocks are run on the sample, and left as they were: mode, buffers, gradients, random numbers. No cut is made
    right before a block that changes its input in place, because that would be the output of another component. A
    parameter that blocks of several components share stays so; see ``tied_weights`` of `build_model`.

    Args:
        blocks: an ``nn.Sequential``, or modules each of which takes what the one before returns, be it a tensor or a
            nested tuple, list or dict of tensors. They are shared, not copied.
        n_components: K.
        sample_input: a batch like those of the training, on the blocks' device.
        by: what is balanced. "time" is measured, forward and backward, in training mode; it differs a little from run
            to run, and under torchrun rank 0's measurement goes for all. "parameters" and "activations" are bytes.
            "flops" are those of a forward pass: no measurement, the same cut everywhere.

    Raises:
        ValueError: if an argument does not fit, with the remedy.
        Exception: what a block raises, as it is.
    """
    named = _named(blocks)
    modules = [module for _, module in named]
    sizes, costs = cut(modules, n_components, sample_input, by)
    ends = list(itertools.accumulate(sizes))
    rows = [named[end - n : end] for end, n in zip(ends, sizes, strict=True)]
    components = []
    for row in rows:
        component = sequential(row)
        component.training = row[0][1].training
        components.append(component)
    return Partition(components, costs, by)


def cut(
    blocks: Sequence[nn.Module], n_components: int, sample_input: Tree, by: Measure
) -> tuple[list[int], list[float]]:
    """The number of blocks of each component in the best cut, and what the components cost.

    Raises:
        ValueError: if the measure is unknown, or there are not as many components to be had.
    """
    if not is_whole(n_components, 1, len(blocks)):
        raise ValueError(
            f"n_components is {n_components!r}; expected a whole number from 1 to {len(blocks)}, the number of blocks."
        )
    costs = block_costs(blocks, sample_input, by)
    glued = _changing_their_input(blocks, sample_input) if n_components > 1 and sample_input is not None else set()
    starts = [b for b in range(len(blocks)) if b not in glued]
    if n_components > len(starts):
        raise ValueError(
            f"n_components is {n_components} and {len(glued)} of the {len(blocks)} blocks change their input in place "
            f"(block {min(glued)} is the first), so that no component can begin with them; choose at most "
            f"{len(starts)} components, or make those blocks out of place, e.g. ReLU(inplace=False)."
        )
    ends = [*starts[1:], len(blocks)]
    groups = [sum(costs[start:end]) for start, end in zip(starts, ends, strict=True)]
    last = itertools.accumulate(balanced_cuts(groups, n_components))
    cuts = [0, *(ends[group - 1] for group in last)]
    spans = list(itertools.pairwise(cuts))
    return [end - begin for begin, end in spans], [sum(costs[begin:end]) for begin, end in spans]


def _named(blocks: nn.Sequential | Sequence[nn.Module]) -> list[tuple[str, nn.Module]]:
    if isinstance(blocks, nn.Sequential):
        named = list(blocks._modules.items())  # named_children() leaves out a module that occurs twice
    elif isinstance(blocks, nn.Module) and not isinstance(blocks, nn.ModuleList):
        raise ValueError(
            f"blocks is a {type(blocks).__name__}; expected an nn.Sequential, or a list of blocks each of which takes "
            "what the one before returns. from_huggingface() cuts models of the transformers library."
        )
    else:
        named = [(str(b), block) for b, block in enumerate(blocks)]
    if not named:
        raise ValueError("blocks is empty; expected at least one block.")
    checked = []
    for name, module in named:
        if not isinstance(module, nn.Module):
            raise ValueError(
                f"block {name} is {module!r}; expected a torch.nn.Module (put a function into one, e.g. nn.ReLU() for "
                "F.relu)."
            )
        checked.append((name, module))
    return checked


def _changing_their_input(blocks: Sequence[nn.Module], sample_input: Tree) -> set[int]:
    """The blocks, but for the first, before which no cut can be: a component that began there would change its input.

    That may be done by a later block, where those between return views of what they get: views share their version.
    """
    versions: list[list[tuple[Tensor, int]]] = []
    inputs = map_tensors(Tensor.clone, sample_input)
    with undisturbed(blocks, sample_input, training=True), torch.no_grad():
        for block in blocks:
            versions.append([(t, t._version) for t in tensors(inputs)])
            inputs = block(inputs)
    return {b for b, seen in enumerate(versions) if b > 0 and any(t._version != version for t, version in seen)}
