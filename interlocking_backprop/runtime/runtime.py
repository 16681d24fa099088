"""Where a model is carried out: in one process, or on several ranks. To the model both look the same."""

from __future__ import annotations

from typing import Any, Protocol

import torch

from interlocking_backprop.engine.batch import Batch, Result
from interlocking_backprop.engine.state import OnGradients, Visit
from interlocking_backprop.schedule.schedule import Schedule
from interlocking_backprop.scheme.streams import Workload

N_KEPT = 32
"""So many schedules stay ready: schemes, and kinds of batches, that take turns are planned once."""


class Runtime(Protocol):
    """Carries out training steps and evaluations of a model."""

    @property
    def rank(self) -> int:
        """Of this process among those of the model; 0 in a single process."""

    @property
    def reads_data(self) -> bool:
        """Whether batches come from this process; on the others nothing is made of them."""

    @property
    def n_ranks(self) -> int:
        """The number of processes that share the model."""

    @property
    def local_components(self) -> list[int]:
        """The components that this process has."""

    def devices(self) -> list[torch.device]:
        """The device of each component, as far as this process knows."""

    def schedule(self, workload: Workload, n_microbatches: int) -> Schedule:
        """The schedule by which a workload is carried out."""

    def run(
        self,
        workload: Workload,
        batch: Batch | None,
        visit: Visit | None = None,
        on_gradients: OnGradients | None = None,
        *,
        updates: bool = True,
    ) -> Result:
        """Carries out a workload on a batch; all ranks call this.

        Args:
            workload: of a training step or an evaluation.
            batch: where this process reads the data; else None.
            visit: what an evaluation makes of the output at each exit; by default it is the output itself.
            on_gradients: called in a training step where all gradients of a component are there, before its update.
            updates: whether a training step updates the components; if not, it drops their gradients there.
        """

    def settle(self) -> None:
        """Carries out what is left of batches under way, so that their credit is in hand; all ranks call this."""

    def gather(self, value: Any) -> list[Any]:
        """The values of all ranks; all ranks call this."""

    def post(self, key: str, value: Any) -> None:
        """Leaves a value for `collect`, which has to be one that JSON can hold; nobody waits."""

    def collect(self, key: str) -> list[Any] | None:
        """What every rank has left under a key; None if some have not yet."""

    def close(self) -> None:
        """Ends the run; all ranks call this."""
