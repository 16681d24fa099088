"""Evaluation of every exit."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from interlocking_backprop.model import InterlockingBackpropModel
from interlocking_backprop.training.task import Metrics
from interlocking_backprop.tree import Tree, to_device

ExitScores = list[dict[str, float] | None]
"""For each component the mean of each metric at its exit; None without a head."""


def evaluate(model: InterlockingBackpropModel, batches: Iterable[tuple[Tree, Tree]], metrics: Metrics) -> ExitScores:
    """The metrics of every exit, in evaluation mode; the model's mode is restored.

    Args:
        model: what to evaluate.
        batches: inputs and targets.
        metrics: sums of a batch.
    """
    sums: list[dict[str, Tensor]] = [{} for _ in model.components]
    was_training = model.training
    model.eval()
    try:
        for inputs, target in batches:
            for total, output in zip(sums, model.forward_exits(inputs), strict=True):
                if output is None:
                    continue
                values = metrics(output, to_device(target, model.get_output_device()))
                for name, value in values.items():
                    # On the device, so that it need not be waited for; summed in double precision.
                    total[name] = total[name] + value.double() if name in total else value.double()
    finally:
        model.train(was_training)
    return [_means(total) if total else None for total in sums]


def _means(total: dict[str, Tensor]) -> dict[str, float]:
    n = float(total["n"])
    return {name: float(value) / n for name, value in total.items() if name != "n"}
