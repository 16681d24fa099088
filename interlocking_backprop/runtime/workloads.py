"""What a model's components owe by a scheme, derived again when something has changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from interlocking_backprop.engine.component import Component
from interlocking_backprop.engine.losses import Loss
from interlocking_backprop.engine.ties import Tie
from interlocking_backprop.scheme.coefficients import Scheme, check_scheme
from interlocking_backprop.scheme.streams import Workload


class Workloads:
    """The workloads of a model.

    Args:
        components: of the model.
        heads: for each component, whether its loss can be computed.
        ties: the weights that components share.
        losses: the loss of each component.

    Attributes:
        due: for each component the last step in which credit of a batch of the past arrives.
    """

    def __init__(
        self, components: Sequence[Component], heads: tuple[bool, ...], ties: Sequence[Tie], losses: Sequence[Loss]
    ) -> None:
        self._components, self._heads, self._ties = components, heads, ties
        asking = [heads[i] and loss.wants_network_output for i, loss in enumerate(losses[:-1])]
        self._asking = tuple(i for i, asks in enumerate(asking) if asks)
        together = any(component.updates_together for component in components)
        self._updates: Literal["apart", "together"] = "together" if together else "apart"
        self._known: Workload | None = None
        self._trained_heads: list[bool] = []
        self.due = [-1] * len(components)

    def of_step(self, scheme: Scheme, step: int) -> Workload:
        """The workload of a step that trains, with what is under way from steps by other schemes.

        Args:
            scheme: by which the batch is trained on.
            step: how many training steps came before.

        Raises:
            ValueError: as `of`.
        """
        workload = self.of(scheme)
        carried = tuple(
            i
            for i, due in enumerate(self.due)
            if due >= step and workload.trainable[i] and not (workload.max_delay and workload.delays(i))
        )
        return replace(workload, carried=carried) if carried else workload

    def under_way(self, step: int) -> dict[str, list[int]]:
        """What has to be saved of it before a step: nothing if no credit is under way."""
        return {"due": self.due} if max(self.due) >= step else {}

    def note(self, workload: Workload, step: int) -> None:
        """Notes that a step has put credit under way."""
        if workload.max_delay:
            self.due = [max(due, step + max(workload.delays(i), default=0)) for i, due in enumerate(self.due)]

    def of(self, scheme: Scheme) -> Workload:
        """The workload of a training step with a scheme and with what is frozen now.

        Raises:
            ValueError: if the scheme is for another number of components or needs a head that is missing, or copies of
                a weight disagree on being frozen.
        """
        trainable = tuple(component.is_trainable for component in self._components)
        trained = [tie for tie in self._ties if tie.wants_gradient(self._components)]
        ties = tuple(dict.fromkeys(tie.components for tie in trained if not tie.is_of_heads))
        head_ties = tuple(dict.fromkeys(tie.components for tie in trained if tie.is_of_heads))
        heads = [component.is_head_trainable for component in self._components]
        known = self._known
        if known is not None and (known.trainable, self._trained_heads) != (trainable, heads):
            for component in self._components:
                component.check_unfrozen()
        self._trained_heads = heads
        state = (trainable, ties, head_ties)
        if known is None or known.scheme is not scheme or (known.trainable, known.ties, known.head_ties) != state:
            check_scheme(scheme, len(self._components))
            if scheme.max_delay:
                _check_can_be_late(scheme, self._components)
            known = self._known = Workload(
                scheme,
                self._heads,
                trainable,
                ties,
                updates=self._updates,
                asking=self._asking,
                head_ties=head_ties,
            )
        return known


def _check_can_be_late(scheme: Scheme, components: Sequence[Component]) -> None:
    if any(component.accumulate > 1 for component in components):
        raise ValueError(
            f"scheme {scheme.name!r} delays credit, and accumulate is {components[0].accumulate}; ages count updates, "
            "so expected an update in every step: cut a larger batch into micro-batches (n_microbatches) instead."
        )
    if any(component.grad_scaler is not None for component in components):
        raise ValueError(
            f"scheme {scheme.name!r} delays credit, and there is a grad_scaler, whose scale would have changed until "
            "it arrives; train in bfloat16, which needs none."
        )
