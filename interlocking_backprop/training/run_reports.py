"""What a run reports: training losses as they come, and a validation at the end of every epoch.

No rank waits for another between two steps. What a rank knows of the losses is posted, and rank 0, which writes the log
and shows progress, collects it when all ranks have posted theirs.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import torch
from torch import Tensor

from interlocking_backprop.model import InterlockingBackpropModel
from interlocking_backprop.training.divergence import BadLoss, first_bad_loss
from interlocking_backprop.training.evaluation import ExitScores
from interlocking_backprop.training.metrics_log import MetricsLog
from interlocking_backprop.training.progress import Display


class _Posted(NamedTuple):
    step: int
    lr: float
    samples_per_second: float


class Reports:
    """The reports of a run; all ranks have them.

    Args:
        model: computes the losses, and has the ranks.
        log: is written by rank 0.
        display: is shown by rank 0.

    Attributes:
        loss_sum: the sum of the network's losses in the present epoch; rank 0 knows it, after `finish` all do.
        bad: the first loss that is not finite, likewise.
    """

    def __init__(self, model: InterlockingBackpropModel, log: MetricsLog, display: Display) -> None:
        self._model, self._log, self._display = model, log, display
        self._losses: list[Tensor] = []
        self._posted: list[_Posted] = []
        self.bad: BadLoss | None = None

    def begin_epoch(self, epoch: int, loss_sum: float) -> None:
        """Begins or goes on with an epoch whose losses add up to ``loss_sum`` so far."""
        self._epoch, self.loss_sum = epoch, loss_sum
        self._n_samples = self._n_posted = 0
        self._start = self._last = time.perf_counter()

    def count(self, loss: Tensor | None, n_samples: int) -> None:
        """Notes a step; ranks that do not have the network's loss give None."""
        if loss is not None:
            self._losses.append(loss)
        self._n_samples += n_samples

    def post(self, step: int, lr: float) -> None:
        """Reports the steps since the last report, up to ``step``, which had the learning rate ``lr``."""
        values = torch.stack(self._losses).double().tolist() if self._losses else []
        exits = [None if loss is None else loss.item() for loss in self._model.exit_losses]
        self._model.runtime.post(f"train/{step}", {"losses": values, "exits": exits})
        rate = _rate(self._n_samples - self._n_posted, self._last)
        self._posted.append(_Posted(step, lr, rate))
        self._losses, self._n_posted, self._last = [], self._n_samples, time.perf_counter()
        self._write()

    def finish(self) -> None:
        """Waits until everything that was posted has been written, and tells all ranks what rank 0 knows."""
        self._rate = _rate(self._n_samples, self._start)
        self._model.gather(None)
        self._write()
        self.loss_sum, self.bad = self._model.gather((self.loss_sum, self.bad))[0]

    def validation(self, step: int, loss: float, exits: ExitScores) -> None:
        """Reports the end of an epoch after ``step``: the mean loss in training, and the scores in validation."""
        self._display.epoch(self._epoch, self._model.scheme.name, loss, exits, self._rate)
        self._log.write("validation", step, epoch=self._epoch, exits=exits, train_loss=loss)

    def _write(self) -> None:
        while self._model.rank == 0 and self._posted:
            step, lr, rate = self._posted[0]
            parts = self._model.runtime.collect(f"train/{step}")
            if parts is None:
                return
            self._posted.pop(0)
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


def _rate(n_samples: int, since: float) -> float:
    return n_samples / max(time.perf_counter() - since, 1e-9)
