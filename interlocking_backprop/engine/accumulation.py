"""Gradients of several batches that make up one update."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from interlocking_backprop.engine.component import Component
from interlocking_backprop.scheme.streams import Workload


class Accumulation:
    """Counts the calls of `training_step`: every n-th updates, and those before it leave their gradients for it.

    Args:
        n: batches to an update.
        components: of the model.

    Attributes:
        n_updates: how many updates there have been.
    """

    def __init__(self, n: int, components: Sequence[Component]) -> None:
        self._n, self._components = n, components
        self.n_updates = 0
        self._n_done = 0
        self._is_open = False
        self._first: Workload | None = None

    def __getstate__(self) -> dict[str, Any]:
        """For a copy of the model, which has no gradients."""
        self.check_complete()
        return vars(self)

    def begin(self, workload: Workload) -> Workload:
        """What is to be carried out now. A call that is not followed by `end` has failed, and the count starts again.

        Args:
            workload: of a step that updates.

        Raises:
            ValueError: if it differs from that of the batches whose gradients wait.
        """
        if self._n == 1:
            return workload
        if self._is_open:
            self.restart()
        if self._n_done and workload != self._first:
            raise ValueError(
                f"{self._n_done} of {self._n} batches are accumulated, and since then the scheme, or what is frozen, "
                f"has changed, so that their gradients do not belong together; change it after every {self._n}th "
                "training_step(), where the update is."
            )
        self._first, self._is_open = workload, True
        return workload if self._n_done + 1 == self._n else workload.accumulating

    def end(self) -> None:
        """Notes that a call has come to its end."""
        self._n_done = (self._n_done + 1) % self._n
        self.n_updates += self._n_done == 0
        self._is_open = False

    def check_complete(self) -> None:
        """Makes sure that no gradients wait, for a state that is saved, or a copy of the model, does not hold them.

        Raises:
            ValueError: if some do.
        """
        if self._n_done:
            raise ValueError(
                f"{self._n_done} of {self._n} batches are accumulated, and their gradients are not part of the "
                f"training state, nor of a copy of the model; save or copy it after every {self._n}th training_step(), "
                "where the update is."
            )

    def restart(self) -> None:
        """Drops the gradients that wait for an update, if there are any."""
        if self._n_done or self._is_open:
            for component in self._components:
                component.free_gradients()
        self._n_done, self._is_open = 0, False
