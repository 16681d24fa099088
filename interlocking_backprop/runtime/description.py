"""What a model is, in a table that fits a screen: its scheme, its components and where they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Protocol

import numpy as np
from torch.nn import Module, Parameter

from interlocking_backprop.engine.component import Component
from interlocking_backprop.engine.head_copy import copy_in
from interlocking_backprop.runtime.runtime import Runtime
from interlocking_backprop.scheme.coefficients import Scheme

_COLUMNS = ("", "main net", "parameters", "head", "parameters", "trained by loss", "optimizer", "device")
_NUMBERS = {2, 4}  # of the columns
_MOST_ROWS = 20
_LONGEST = 20  # characters in a cell


class Described(Protocol):
    """A model."""

    components: Sequence[Component]
    n_microbatches: int

    @property
    def scheme(self) -> Scheme: ...

    @property
    def runtime(self) -> Runtime: ...


@dataclass(frozen=True)
class Description:
    """A model as text and as HTML.

    Attributes:
        headline: the scheme, K, M and the parameters of the network, and of the heads beside it.
        rows: for each component what the columns say; of many components the first and the last ones.
        scheme: that the model follows.
    """

    headline: str
    rows: Sequence[Sequence[str]]
    scheme: Scheme

    def __str__(self) -> str:
        table = [_COLUMNS, *self.rows]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [
            "  ".join(
                cell.rjust(width) if n in _NUMBERS else cell.ljust(width)
                for n, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in table
        ]
        return "\n".join([self.headline, *(f"  {line}".rstrip() for line in lines)])

    def to_html(self) -> str:
        """The table, and the picture of the scheme below it."""
        head, *rows = (
            "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row) + "</tr>"
            for tag, row in [("th", _COLUMNS), *(("td", row) for row in self.rows)]
        )
        table = f"<table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>"
        return f"<div>{escape(self.headline)}</div>{table}{self.scheme._repr_html_()}"


def describe(model: Described) -> Description:
    """Describes a model, as far as this process knows it. Nothing is computed."""
    scheme, k = model.scheme, len(model.components)
    main = sum(_count(component.main_net.parameters()) for component in model.components)
    heads = sum(_count(c.aux_net.parameters()) for c in model.components if c.aux_net is not None)
    headline = (
        f"{type(model).__name__}: {scheme.name}, K = {k}, M = {model.n_microbatches}, {main:,} parameters"
        + (f" (and {heads:,} of heads)" if heads else "")
        + (f", rank {model.runtime.rank} of {model.runtime.n_ranks}" if model.runtime.n_ranks > 1 else "")
    )
    devices = model.runtime.devices()
    rows = [_row(i, c, scheme, str(devices[i])) for i, c in enumerate(model.components)]
    if k > _MOST_ROWS:
        half = _MOST_ROWS // 2
        rows = [*rows[:half], ("…",) * len(_COLUMNS), *rows[-half:]]
    return Description(headline, rows, scheme)


def _row(i: int, component: Component, scheme: Scheme, device: str) -> tuple[str, ...]:
    head = component.aux_net
    optimizers = dict.fromkeys(type(optimizer).__name__ for optimizer in component.optimizers)
    cells = (
        str(i),
        type(component.main_net).__name__,
        f"{_count(component.main_net.parameters()):,}",
        _head(head),
        "" if head is None else f"{_count(head.parameters()):,}",
        ", ".join(_losses(scheme, i)) or "none",
        ", ".join(optimizers),
        "another rank's" if device == "meta" else device,
    )
    return tuple(cell if len(cell) <= _LONGEST else cell[: _LONGEST - 1] + "…" for cell in cells)


def _losses(scheme: Scheme, i: int) -> Iterator[str]:
    """The losses that component i follows, by age."""
    for age in (0, *scheme.delayed):
        losses = np.flatnonzero(scheme.coefficients(age)[i])
        is_window = len(losses) > 2 and losses[-1] - losses[0] == len(losses) - 1
        shown = f"{losses[0]} to {losses[-1]}" if is_window else ", ".join(map(str, losses))
        if shown:
            yield f"{shown} (age {age})" if age else shown


def _head(head: Module | None) -> str:
    head_copy = copy_in(head)
    if head_copy is not None:
        kind = type(head_copy.module if head is head_copy else head).__name__
        return f"copy of {head_copy.source_component}, {kind}"
    return "" if head is None else type(head).__name__


def _count(parameters: Iterable[Parameter]) -> int:
    return sum(p.numel() for p in parameters)
