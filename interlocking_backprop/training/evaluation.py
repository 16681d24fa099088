"""Evaluation of every exit."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor

from interlocking_backprop.model import InterlockingBackpropModel
from interlocking_backprop.training.tasks import Metrics

ExitScores = list[dict[str, float] | None]
"""Holds for each component the mean of each metric at its exit, or None where it has no head."""


def evaluate(
    model: InterlockingBackpropModel,
    batches: Iterable[tuple[Any, Any]],
    metrics: Metrics,
    derived: Callable[[dict[str, float]], dict[str, float]] = lambda means: {},
) -> ExitScores:
    """Computes the metrics of every exit in evaluation mode, and then puts the model back into its mode.

    Args:
        model: what to evaluate. On several ranks all call this, and all get the metrics of all exits.
        batches: inputs and targets; on ranks other than the first as many pairs of None.
        metrics: computes the sums over a batch.
        derived: computes what follows from the means.
    """
    sums: list[dict[str, Tensor]] = [{} for _ in model.components]
    was_training = model.training
    model.eval()
    try:
        for inputs, target in batches:
            for total, values in zip(sums, model.map_exits(metrics, inputs, target), strict=True):
                for name, value in (values or {}).items():
                    # On the device, so that it need not be waited for; summed in double precision.
                    total[name] = total[name] + value.double() if name in total else value.double()
    finally:
        model.train(was_training)
    everywhere = model.gather([_means(total) if total else None for total in sums])
    exits = [next((scores[i] for scores in everywhere if scores[i]), None) for i in range(len(sums))]
    return [None if means is None else means | derived(means) for means in exits]


def _means(total: dict[str, Tensor]) -> dict[str, float]:
    n = float(total["n"])
    return {name: float(value) / n for name, value in total.items() if name != "n"}
