"""Gradients on their way to a later update: the credit that a scheme delays.

An update sums what is due in it in the order of ages, whenever it was computed, so the sum is the same to the bit
wherever and in whatever order the passes are carried out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from torch import Tensor
from torch.nn import Parameter

Gradients = Sequence[Tensor | None]
"""Of the parameters of a main net, in their order; None for one that the pass gave none."""


class _Term(NamedTuple):
    """What goes into an update.

    Attributes:
        coefficient: of the gradients.
        gradients: summed over the micro-batches of a batch.
        is_needed_again: whether another update takes them too, so that they must not be changed.
    """

    coefficient: float
    gradients: Gradients
    is_needed_again: bool


class Credit:
    """The gradients of one component's main net that wait for their updates.

    Args:
        parameters: of the main net.
    """

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        self._parameters = parameters
        # By the step of the update, then by age and by the index of the weight gradient.
        self._waiting: dict[int, dict[tuple[int, int], _Term]] = {}

    def add(self, step: int, weights: int, uses: Iterable[tuple[int, float]], gradients: Gradients) -> None:
        """Puts gradients on their way.

        Args:
            step: of the batch that they come from.
            weights: which of the component's weight gradients they are.
            uses: the ages at which updates take them, with their coefficients.
            gradients: summed over the micro-batches of the batch.
        """
        uses = list(uses)
        for age, coefficient in uses:
            term = _Term(coefficient, gradients, is_needed_again=age != uses[-1][0])
            self._waiting.setdefault(step + age, {})[age, weights] = term

    def take(self, step: int) -> None:
        """Puts the sum of what is due in an update into ``.grad``; None where nothing is."""
        due = self._waiting.pop(step, {})
        terms = [due[key] for key in sorted(due)]
        for n, parameter in enumerate(self._parameters):
            parameter.grad = _sum(terms, n) if parameter.requires_grad else None
        for past in [other for other in self._waiting if other < step]:  # the component was not updated then
            del self._waiting[past]

    def clear(self) -> None:
        """Drops all of it."""
        self._waiting.clear()

    def state_dict(self) -> list[dict[str, Any]]:
        """What is on its way, as plain data."""
        return [
            {"step": step, "age": age, "weights": weights, **term._asdict()}
            for step, due in sorted(self._waiting.items())
            for (age, weights), term in sorted(due.items())
        ]

    def load_state_dict(self, state: Sequence[dict[str, Any]]) -> None:
        """Restores what `state_dict` returned."""
        self._waiting = {}
        for entry in state:
            gradients = [
                None if g is None else g.to(p.device) for g, p in zip(entry["gradients"], self._parameters, strict=True)
            ]
            term = _Term(entry["coefficient"], gradients, entry["is_needed_again"])
            self._waiting.setdefault(entry["step"], {})[entry["age"], entry["weights"]] = term


def _sum(terms: Sequence[_Term], n: int) -> Tensor | None:
    """The linear combination of the gradients of one parameter."""
    total: Tensor | None = None
    for coefficient, gradients, is_needed_again in terms:
        gradient = gradients[n]
        if gradient is None:
            continue
        if total is not None:
            total.add_(gradient, alpha=coefficient)
        elif coefficient != 1 or is_needed_again:
            total = gradient * coefficient
        else:
            total = gradient
    return total
