"""Which heads that are copies are refreshed in a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from interlocking_backprop.engine.component import Component
from interlocking_backprop.runtime.runtime import N_KEPT
from interlocking_backprop.scheme.streams import Workload


class DueCopies:
    """Adds to a workload the copies that are due.

    Args:
        components: of the model.
    """

    def __init__(self, components: Sequence[Component]) -> None:
        self._copies = [copying for component in components for copying in component.copied_by]

    def added(self, workload: Workload, n_updates: int) -> Workload:
        """The workload of a step with what is refreshed in it.

        Args:
            workload: of a training step.
            n_updates: how many updates came before.
        """
        if not self._copies or workload.updates == "none":
            return workload
        due = tuple((c.source, c.target) for c in self._copies if (n_updates + 1) % c.every == 0)
        return _with_copies(workload, due) if due else workload


@lru_cache(maxsize=N_KEPT)  # so that what is derived from it is derived once
def _with_copies(workload: Workload, copies: tuple[tuple[int, int], ...]) -> Workload:
    return replace(workload, copies=copies)
