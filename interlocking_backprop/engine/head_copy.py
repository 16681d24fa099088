"""Heads that are copies of another component's weights, refreshed now and then or as a moving average.

The network's own readout, some steps old, in the place of a head that is trained; or a moving average of the next main
net (momentum auxiliary networks). Such a copy follows no loss and has no optimizer.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import Parameter
from torch.nn.parameter import is_lazy

from interlocking_backprop.common.checks import check_whole
from interlocking_backprop.engine.tree import Tree


class HeadCopy(nn.Module):
    """A head, or a part of one, that is a copy of a module in another component, and not trained.

    The copy is taken when the model is built. Count the updates from 1; ``s[t]`` are the weights of the source after
    its own update t (clipped, summed over all who share them, by its optimizer), and ``c[t]`` those of the copy with
    which update t + 1 is computed, all micro-batches and accumulated batches of it:

    - with ``every=S``, ``c[t] = s[t]`` if t is a multiple of S, else ``c[t] = c[t-1]``;
    - with ``momentum=β``, ``c[t] = β c[t-1] + (1 - β) s[t]``;
    - ``c[0] = s[0]``, the weights that the source has in `build_model`.

    Buffers, such as BatchNorm's running averages, are taken over as they are whenever weights are, after all that the
    source's component has computed in the step. An update that a `GradScaler` skips counts as one. So the result
    depends neither on timing nor on placement: on one device, on a device for each component and on ranks it is the
    same to the bit. Where another rank has the source, the weights travel as a message of the schedule, in those steps
    alone in which they are due, and the copy's rank ends such a step when they have come.

    `state_dict()` holds the weights of the copy, and `training_state_dict()` the number of updates, so that a resumed
    run goes on as the one that was saved. A change of the scheme changes nothing here.

    Args:
        source: a module in a main net of another component, or in another head: ``main_nets[-1][-1]``, or a whole main
            net. The copy takes what it takes and returns what it returns.
        every: after how many updates the copy is refreshed.
        momentum: of the moving average, at least 0 and below 1; one of the two is given.

    Attributes:
        module: the copy.
        source_name: the name of the source in its component, such as ``main_net.2``; None before `build_model`.
        source_component: the component that the source is in; None before `build_model`.

    Raises:
        ValueError: if the source is no module, has no weights (yet), or is a copy itself; or if not just one of
            ``every`` and ``momentum`` is given, in its range.
    """

    def __init__(self, source: nn.Module, *, every: int | None = None, momentum: float | None = None) -> None:
        super().__init__()
        if not isinstance(source, nn.Module):
            raise ValueError(
                f"the source of a HeadCopy is {source!r}; expected a torch.nn.Module of another component."
            )
        if any(isinstance(module, HeadCopy) for module in source.modules()):
            raise ValueError(
                "the source of a HeadCopy is a HeadCopy itself, or contains one; copy what that one copies."
            )
        if not tensors_of(source):
            raise ValueError(f"the source of a HeadCopy, {source!r}, has neither parameters nor buffers to copy.")
        if any(map(is_lazy, tensors_of(source))):
            raise ValueError(
                f"the source of a HeadCopy, {source!r}, is lazy, and its weights are not there yet; call the nets with "
                "a batch before."
            )
        if (every is None) == (momentum is None):
            raise ValueError(
                f"a HeadCopy got every={every!r} and momentum={momentum!r}; expected one of them: every=S refreshes it "
                "after every S updates, momentum=β makes it a moving average."
            )
        if every is not None:
            check_whole("every", every)
        if momentum is not None and not (isinstance(momentum, int | float) and 0 <= momentum < 1):
            raise ValueError(f"momentum is {momentum!r}; expected a number of at least 0 and below 1.")
        self.every, self.momentum = every, momentum
        self.source_name: str | None = None
        self.source_component: int | None = None
        self._source: tuple[nn.Module, ...] = (source,)  # in a tuple, so that it is no submodule
        self._take_copy()

    def forward(self, x: Tree) -> Tree:
        """What the copy returns."""
        return self.module(x)

    def extra_repr(self) -> str:
        """The source, and when the copy is refreshed."""
        when = f"every={self.every}" if self.every is not None else f"momentum={self.momentum}"
        return when if self.source_name is None else f"{self.source_name} of component {self.source_component}, {when}"

    @property
    def source(self) -> nn.Module | None:
        """The module that is copied; None in a copy of a built model."""
        return next(iter(self._source), None)

    @torch.no_grad()
    def take(self, values: Sequence[Tensor]) -> None:
        """Refreshes the copy.

        Args:
            values: of the source, as `tensors_of` lists them.
        """
        for own, value in zip(tensors_of(self.module), values, strict=True):
            value = value.to(own.device)
            if self.momentum is not None and isinstance(own, Parameter) and own.is_floating_point():
                own.lerp_(value, 1 - self.momentum)
            else:
                own.copy_(value)

    def connect(self, component: int, name: str) -> None:
        """Takes the copy that the first update is computed with.

        Args:
            component: that the source is in.
            name: of the source there.
        """
        self.source_component, self.source_name = component, name
        self._take_copy()

    def _take_copy(self) -> None:
        self.module = copy.deepcopy(self._source[0]).requires_grad_(False)

    def __getstate__(self) -> dict[str, Any]:
        # A copy or a pickle of what has been built into a model does without the source, which is not a part of it.
        return {**self.__dict__, "_source": () if self.source_name is not None else self._source}


class Copying(NamedTuple):
    """That a head copies a module of another component.

    Attributes:
        source: the component that has the module.
        name: of the module in that component.
        target: the component whose head copies it.
        every: after how many updates.
    """

    source: int
    name: str
    target: int
    every: int


def tensors_of(module: nn.Module) -> list[Tensor]:
    """The weights and buffers of a module."""
    return [*module.parameters(), *module.buffers()]


def copy_in(head: nn.Module | None) -> HeadCopy | None:
    """The copy that a head is or contains."""
    return next(_copies_in(head), None)


def trained_in(head: nn.Module | None) -> list[tuple[str, Parameter]]:
    """The parameters of a head that are not a copy's, with their names in the component."""
    if head is None:
        return []
    copied = {parameter for found in _copies_in(head) for parameter in found.parameters()}
    return [(name, p) for name, p in head.named_parameters(prefix="aux_net") if p not in copied]


def connect(main_nets: Sequence[nn.Module], aux_nets: Sequence[nn.Module | None]) -> list[Copying]:
    """Finds the sources of all copies among the heads, and takes the copies.

    Args:
        main_nets: of all components.
        aux_nets: their heads.

    Raises:
        ValueError: if a source is in none of these, in the component of the copy itself or in another copy, a head
            contains several copies, or a main net one.
    """
    for i, net in enumerate(main_nets):
        if copy_in(net) is not None:
            raise ValueError(
                f"main net {i} contains a HeadCopy; expected one in aux_nets, for only heads are refreshed."
            )
    found: list[tuple[HeadCopy, Copying]] = []
    for i, head in enumerate(aux_nets):
        copies = list(_copies_in(head))
        if len(copies) > 1:
            raise ValueError(f"head {i} contains {len(copies)} HeadCopy objects; expected one at most.")
        for head_copy in copies:
            source, name = _place_of(head_copy, i, main_nets, aux_nets)
            found.append((head_copy, Copying(source, name, i, head_copy.every or 1)))
    for head_copy, copying in found:
        head_copy.connect(copying.source, copying.name)
    return [copying for _, copying in found]


def _place_of(
    head_copy: HeadCopy, i: int, main_nets: Sequence[nn.Module], aux_nets: Sequence[nn.Module | None]
) -> tuple[int, str]:
    """The component that the source of a copy is in, and its name there."""
    source = head_copy.source
    if source is None:
        raise ValueError(
            f"the HeadCopy in head {i} is a copy of one in another model, and has no source; make one of its own: "
            "ib.HeadCopy(source, …)."
        )
    kind = type(source).__name__
    for part, nets in (("main_net", main_nets), ("aux_net", aux_nets)):
        for j, net in enumerate(nets):
            names = {module: name for name, module in net.named_modules(prefix=part)} if net is not None else {}
            if source not in names:
                continue
            if j == i:
                raise ValueError(
                    f"head {i} copies {names[source]} of component {i} itself ({kind}); expected a module of another "
                    "component. A head that shares weights with its own component is not supported."
                )
            if any(source in copied.modules() for copied in _copies_in(net)):
                raise ValueError(
                    f"head {i} copies a module of head {j} that is a copy itself ({kind}); copy what head {j} copies."
                )
            return j, names[source]
    raise ValueError(
        f"head {i} is a copy of a module ({kind}) that is in none of the main nets and heads; expected a module of "
        "another component as it is handed over in main_nets or aux_nets, and neither a copy of that nor a slice of a "
        "Sequential, which is another module."
    )


def _copies_in(head: nn.Module | None) -> Iterator[HeadCopy]:
    return (module for module in head.modules() if isinstance(module, HeadCopy)) if head is not None else iter(())
