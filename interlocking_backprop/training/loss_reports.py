"""Training losses on their way to rank 0, which writes and shows them as soon as all ranks have sent theirs.

No rank waits for another between two steps: what a rank knows of a report is posted, and rank 0 looks for it later.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from interlocking_backprop.model import InterlockingBackpropModel
from interlocking_backprop.training.divergence import BadLoss, first_bad_loss
from interlocking_backprop.training.metrics_log import MetricsLog
from interlocking_backprop.training.progress import Display
from interlocking_backprop.training.stopwatch import Stopwatch


class _Report(NamedTuple):
    step: int
    lr: float
    rate: float


class LossReports:
    """The reports of an epoch.

    Args:
        model: computes the losses, and has the ranks.
        log: is written by rank 0.
        display: is shown by rank 0.
        epoch: counts from 0.
        loss_sum: is the sum of the network's losses in the steps of this epoch that are done already.

    Attributes:
        loss_sum: the sum of the losses that were written, on rank 0; `finish` brings it to all ranks.
        bad: the first loss that is not finite, among those that were written on rank 0.
        stopwatch: measures samples per second.
    """

    def __init__(
        self, model: InterlockingBackpropModel, log: MetricsLog, display: Display, epoch: int, loss_sum: float
    ) -> None:
        self._model, self._log, self._display, self._epoch = model, log, display, epoch
        self._losses: list[Tensor] = []
        self._pending: list[_Report] = []
        self.loss_sum = loss_sum
        self.bad: BadLoss | None = None
        self.stopwatch = Stopwatch()

    def count(self, loss: Tensor | None, n_samples: int) -> None:
        """Notes the loss of a step; ranks that do not have the network's loss note None."""
        if loss is not None:
            self._losses.append(loss)
        self.stopwatch.count(n_samples)

    def send(self, step: int, lr: float) -> None:
        """Reports the steps since the last report.

        Args:
            step: the number of steps taken.
            lr: the learning rate of the last one.
        """
        values = torch.stack(self._losses).double().tolist() if self._losses else []
        self._losses.clear()
        exits = [None if loss is None else loss.item() for loss in self._model.exit_losses]
        self._model.runtime.post(f"train/{step}", {"losses": values, "exits": exits})
        self._pending.append(_Report(step, lr, self.stopwatch.rate()))
        self._write()

    def finish(self) -> None:
        """Waits until everything that was sent has been written, and tells all ranks what rank 0 knows."""
        self._model.gather(None)
        self._write()
        self.loss_sum, self.bad = self._model.gather((self.loss_sum, self.bad))[0]

    def _write(self) -> None:
        if self._model.rank > 0:
            return
        while self._pending:
            step, lr, rate = self._pending[0]
            parts = self._model.runtime.collect(f"train/{step}")
            if parts is None:
                return
            self._pending.pop(0)
            losses = parts[-1]["losses"]
            columns = zip(*(part["exits"] for part in parts), strict=True)
            exits = [next((loss for loss in column if loss is not None), None) for column in columns]
            loss = sum(losses) / len(losses)
            self.bad = self.bad or first_bad_loss(step, losses, exits)
            self.loss_sum += sum(losses)
            self._display.step(self._epoch, step, loss, rate)
            self._log.write(
                "train", step, epoch=self._epoch, loss=loss, exit_losses=exits, lr=lr, samples_per_second=rate
            )
