"""What a model's components owe by a scheme, derived again when something has changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from interlocking_backprop.engine.component import Component
from interlocking_backprop.engine.ties import Tie
from interlocking_backprop.scheme.coefficients import Scheme, check_scheme
from interlocking_backprop.scheme.streams import Workload


class Workloads:
    """The workloads of a model.

    Args:
        components: of the model.
        heads: for each component, whether its loss can be computed.
        ties: the weights that components share.
    """

    def __init__(self, components: Sequence[Component], heads: tuple[bool, ...], ties: Sequence[Tie]) -> None:
        self._components, self._heads, self._ties = components, heads, ties
        together = any(component.updates_together for component in components)
        self._updates: Literal["apart", "together"] = "together" if together else "apart"
        self._known: Workload | None = None
        self._trained_heads: list[bool] = []

    def of(self, scheme: Scheme) -> Workload:
        """The workload of a training step with a scheme and with what is frozen now.

        Raises:
            ValueError: if the scheme is for another number of components or needs a head that is missing, or copies of
                a weight disagree on being frozen, or something has been unfrozen that no optimizer holds.
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
            known = self._known = Workload(
                scheme, self._heads, trainable, ties, updates=self._updates, head_ties=head_ties
            )
        return known
