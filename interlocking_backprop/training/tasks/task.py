"""What is learned: data, nets, loss and the metrics by which it is judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from torch import Tensor, nn

from interlocking_backprop.engine.losses import LossFunction
from interlocking_backprop.engine.tree import Tree
from interlocking_backprop.scheme.coefficients import Scheme

Part = Literal["validation", "test"]

Metrics = Callable[[Tree, Tree], dict[str, Tensor]]
"""Of a batch's output and target: sums over the samples by name, with their number under "n"."""


@dataclass(frozen=True)
class Task:
    """A network in components and what it is trained for.

    Attributes:
        main_nets: the components.
        aux_nets: a head at every exit but the last; None where none is needed.
        loss_function: of every exit.
        train: a split: batches are drawn from it in random order, augmented.
        validation: what the best checkpoint is chosen by.
        test: used at the end, and by ``eval``.
        metrics: for a part of the data the sums of a batch; the mean of each is reported.
        derived: what follows from the means, by name.
        score: the metric by which checkpoints are compared.
        maximize: whether higher scores are better.
        sample: an input on the meta device, (1, …), by which operations are counted.
        files: what a run has to keep beside its configuration, by file name (a tokenizer, say).
    """

    main_nets: list[nn.Module]
    aux_nets: list[nn.Module | None]
    loss_function: LossFunction
    train: Any
    validation: Any
    test: Any
    metrics: Callable[[Part], Metrics]
    derived: Callable[[dict[str, float]], dict[str, float]]
    score: str
    maximize: bool
    sample: Tensor
    files: dict[str, str]

    @property
    def own_head(self) -> nn.Module:
        """The network's own head: its last block that has parameters."""
        return [block for block in self.main_nets[-1].children() if any(True for _ in block.parameters())][-1]

    def part(self, name: Part) -> Any:
        """A part of the data."""
        return self.validation if name == "validation" else self.test


def needed_heads(heads: Sequence[nn.Module], schemes: Sequence[Scheme], *, keep_all: bool) -> list[nn.Module | None]:
    """The heads whose losses some scheme uses, None in the place of the others."""
    used = np.any([scheme.uses.any(axis=0) for scheme in schemes], axis=0)
    return [head if keep_all or used[j] else None for j, head in enumerate(heads)]
