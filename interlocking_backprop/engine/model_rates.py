"""The learning rates of a model: those of all its components at once."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from numbers import Real

from torch import Tensor, nn

from interlocking_backprop.engine.component import Component
from interlocking_backprop.engine.ties import Tie


class Rated(nn.Module):
    """A model whose components have optimizers and LR schedulers.

    Attributes:
        components: of the model.
        ties: the weights that components share.
    """

    components: Sequence[Component]
    ties: Sequence[Tie]

    def lr_scheduler_step(self, metric: float | Tensor | None = None) -> None:
        """Steps all LR schedulers.

        Args:
            metric: what ReduceLROnPlateau watches, e.g. the validation loss; other schedulers do not get it.
        """
        for component in self.components:
            component.lr_scheduler_step(metric)

    def get_lr(self) -> float:
        """The learning rate of the first component that has an optimizer here (of its first parameter group)."""
        optimizers = (o for component in self.components for o in component.optimizers)
        return float(next(optimizers).param_groups[0]["lr"])

    def scale_learning_rates(self, factors: Sequence[float]) -> None:
        """Multiplies the learning rates of the main nets, now and at every step to come, whatever the schedulers are.

        The factors take the place of those of an earlier call, so that a model can follow a scheme that changes:
        ``model.set_scheme(s)``, then ``model.scale_learning_rates(delay_factors(s))``. They are part of
        ``training_state_dict()``. Where main net and head share an optimizer the head's rate is multiplied too; a
        constructor that asks for the role keeps them apart. Bounds of schedulers (``eta_min``, ``min_lr``) stay.

        Args:
            factors: a positive number for each component.

        Raises:
            ValueError: if there are not as many, one is not positive and finite, or those of components that share a
                weight differ, so that its copies would come apart.
        """
        factors = list(factors)
        if len(factors) != len(self.components):
            raise ValueError(f"there are {len(factors)} factors for {len(self.components)} components; give one each.")
        for i, factor in enumerate(factors):
            if isinstance(factor, bool) or not isinstance(factor, Real) or not (isfinite(factor) and factor > 0):
                raise ValueError(f"the factor of component {i} is {factor!r}; expected a positive number.")
        for tie in self.ties:
            of_holders = {i: factors[i] for i in tie.components}
            if len({*of_holders.values()}) > 1:
                found = ", ".join(f"{factor:g} for component {i}" for i, factor in of_holders.items())
                raise ValueError(
                    f"the shared weight {tie} would get different learning rates ({found}), and its copies would come "
                    "apart; give its components the same factor, or build the model with tied_weights='untie'."
                )
        for component, factor in zip(self.components, factors, strict=True):
            component.scale_learning_rate(float(factor))
