"""The training loop: epochs, evaluation, checkpoints, and stopping and going on at any step.

Under torchrun every rank runs it. Rank 0 reads the data, writes metrics and shows progress; the others take part in the
same steps, evaluations and checkpoints. Nobody waits for the others between two steps.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor

from interlocking_backprop.build import build_model
from interlocking_backprop.data import batches
from interlocking_backprop.engine.allocator import keep_freed_memory
from interlocking_backprop.model import InterlockingBackpropModel
from interlocking_backprop.scheme.phases import SchemePlan
from interlocking_backprop.training.checkpoints import Which
from interlocking_backprop.training.config import TrainConfig
from interlocking_backprop.training.divergence import BadLoss, Diverged, first_bad_loss
from interlocking_backprop.training.evaluation import ExitScores, evaluate
from interlocking_backprop.training.interruption import Interruption, Stopped, interruptible
from interlocking_backprop.training.metrics_log import MetricsLog
from interlocking_backprop.training.optimization import OptimizerOf, SchedulerOf
from interlocking_backprop.training.progress import Display
from interlocking_backprop.training.run_folder import RunFolder
from interlocking_backprop.training.select_device import select_device
from interlocking_backprop.training.stopwatch import Stopwatch
from interlocking_backprop.training.tasks import Part, build_task
from interlocking_backprop.transport.process_groups import has_ranks

# What rank 0 tells the others with a step, by the model's flag.
_STOP, _DIVERGED = 1, 2


@dataclass
class Progress:
    """How far a run has come; part of every checkpoint.

    Attributes:
        step: training steps taken.
        loss_sum: of the steps of the present epoch.
        best: the best validation score so far; None before the first.
        state: the model's own counters.
    """

    step: int = 0
    loss_sum: float = 0.0
    best: float | None = None
    state: dict[str, Any] | None = None


class Trainer:
    """Trains a model as a configuration says.

    Args:
        config: the configuration.

    Raises:
        ValueError: if something that it asks for cannot be had.
    """

    def __init__(self, config: TrainConfig) -> None:
        if config.threads:
            torch.set_num_threads(config.threads)
        self.config = config
        self.plan = SchemePlan.parse(config.scheme, config.components)
        self.device = select_device(config.device)
        if self.device.type == "cpu":
            keep_freed_memory()
        self.task = build_task(config, self.plan.schemes)
        self.steps_per_epoch = math.ceil(len(self.task.train) / config.batch_size)
        if config.epoch_steps:
            self.steps_per_epoch = min(self.steps_per_epoch, config.epoch_steps)
        self.n_steps = config.epochs * self.steps_per_epoch
        if config.max_steps:
            self.n_steps = min(self.n_steps, config.max_steps)
        self.scheduler = SchedulerOf(config, self.steps_per_epoch, self.n_steps, self.task.maximize)
        self.model: InterlockingBackpropModel = build_model(
            self.task.main_nets,
            self.task.aux_nets,
            self.plan.at(0),
            OptimizerOf(config, self.task.own_head),
            self.task.loss_function,
            self.scheduler,
            n_microbatches=config.microbatches,
            aux_lr_factor=config.of_optimizer("aux_lr_factor"),
            max_grad_norm=config.max_grad_norm or None,
            seed=config.seed,
        )
        self.progress = Progress()

    def place(self) -> None:
        """Puts the model where it computes: on one device, on a device per component, or on the ranks of torchrun."""
        config = self.config
        if has_ranks():
            devices = None if config.device == "auto" else [config.device]
            self.model.enable_model_parallel(devices, timeout=timedelta(seconds=config.timeout))
        elif config.devices:
            self.model.enable_model_parallel(config.devices)
        else:
            self.model.to(self.device)

    def fit(self) -> ExitScores:
        """Trains to the end and returns the metrics of every exit, of the best checkpoint.

        They are of the test set, or of the validation set if the configuration says that there is to be no test.

        Raises:
            Stopped: after Ctrl-C; the run can be resumed.
            Diverged: if a training loss is not finite.
            ValueError: if the run's folder does not fit.
        """
        config = self.config
        run = RunFolder.resume(config) if config.resume else RunFolder.new(config)
        self.place()
        if self.model.rank == 0 and not config.resume:
            run.write(config, self.task.files)
        if config.resume and self.model.gather(run.checkpoints.has("last"))[0]:
            self.load(run, "last")
        quiet = config.quiet or self.model.rank > 0
        with (
            MetricsLog(run, self.progress.step, tensorboard=config.tensorboard, silent=self.model.rank > 0) as log,
            Display(self.n_steps, self.progress.step, quiet=quiet) as display,
            interruptible() as interruption,
        ):
            while self.progress.step < self.n_steps:
                self._epoch(run, log, display, interruption)
            if self.model.gather(run.checkpoints.has("best"))[0]:
                self.load(run, "best", weights_only=True)
            scores = self.evaluate("test" if config.test else "validation")
            if config.test:
                log.write("test", self.progress.step, exits=scores)
        self.model.shutdown()
        return scores

    def evaluate(self, part: Part) -> ExitScores:
        """The metrics of every exit."""
        split = self.task.part(part)
        return evaluate(self.model, self._batches(split), self.task.metrics(part), self.task.derived)

    def load(self, run: RunFolder, which: Which, *, weights_only: bool = False) -> None:
        """Restores a checkpoint: all of it, to go on from there, or the weights alone.

        Raises:
            ValueError: if there is none, or it does not fit.
        """
        progress = run.checkpoints.load(self.model, which, weights_only=weights_only)
        if not weights_only:
            self.progress = Progress(**progress)
            self.model.load_counters(progress["state"])

    def _save(self, run: RunFolder, *, is_best: bool) -> None:
        self.progress.state = self.model.counters()
        run.checkpoints.save(self.model, vars(self.progress), is_best=is_best)

    def _epoch(self, run: RunFolder, log: MetricsLog, display: Display, interruption: Interruption) -> None:
        """The rest of the present epoch, and its validation."""
        config, progress, model = self.config, self.progress, self.model
        epoch, start = divmod(progress.step, self.steps_per_epoch)
        end = min((epoch + 1) * self.steps_per_epoch, self.n_steps)
        model.set_scheme(self.plan.at(epoch))
        model.train()
        stopwatch = Stopwatch()
        reports = _Reports(self, log, display, epoch)
        losses: list[Tensor] = []
        for inputs, targets in self._batches(self.task.train, epoch, start, end - progress.step, shuffle=True):
            lr = model.get_lr()
            model.flag = reports.flag(interruption)  # all ranks learn rank 0's in this step
            with self.autocast():
                loss = model.training_step(inputs, targets).result()
            if model.n_ranks == 1:
                model.flag = reports.flag(interruption)
            if loss is not None:
                losses.append(loss)
            if not self.scheduler.is_per_epoch:
                model.lr_scheduler_step()
            progress.step += 1
            stopwatch.count(config.batch_size if inputs is None else len(targets))
            if progress.step % config.log_every == 0 or progress.step == end or model.flag:
                reports.add(losses, lr, stopwatch.rate())
                losses.clear()
            if model.flag and progress.step < end:
                reports.finish()
                self._save(run, is_best=False)
                raise Stopped(progress.step, self.n_steps)
        reports.finish()
        self._end_epoch(run, log, display, epoch, progress.loss_sum / (end - epoch * self.steps_per_epoch), stopwatch)
        if model.gather(interruption.requested)[0] and progress.step < self.n_steps:
            raise Stopped(progress.step, self.n_steps)

    def _end_epoch(
        self, run: RunFolder, log: MetricsLog, display: Display, epoch: int, loss: float, stopwatch: Stopwatch
    ) -> None:
        rate = stopwatch.mean_rate()
        exits = self.evaluate("validation")
        final = exits[-1]
        assert final is not None
        score = final[self.task.score]
        if self.scheduler.is_per_epoch:
            self.model.lr_scheduler_step(score)
        best = self.progress.best
        is_best = best is None or (score > best if self.task.maximize else score < best)
        if is_best:
            self.progress.best = score
        self.progress.loss_sum = 0.0
        display.epoch(epoch, self.model.scheme.name, loss, exits, rate)
        log.write("validation", self.progress.step, epoch=epoch, exits=exits, train_loss=loss)
        self._save(run, is_best=is_best)

    def _batches(
        self, split: Any, epoch: int = 0, start: int = 0, most: int | None = None, *, shuffle: bool = False
    ) -> Iterable[tuple[Any, Any]]:
        """Batches of a split, from one on, and at most so many; on ranks without data as many pairs of None."""
        n = math.ceil(len(split) / self.config.batch_size) - start
        n = n if most is None else min(n, most)
        if self.model.rank > 0:
            return ((None, None) for _ in range(n))
        loader = batches(
            split,
            self.config.batch_size,
            seed=self.config.seed,
            epoch=epoch,
            start=start,
            shuffle=shuffle,
            num_workers=self.config.workers,
            pin_memory=self.device.type != "cpu",
        )
        return (batch for batch, _ in zip(loader, range(n), strict=False))

    def first_batch(self) -> tuple[Any, Any]:
        """The inputs and targets of the first training step."""
        return next(iter(self._batches(self.task.train, shuffle=True)))

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The precision of training steps."""
        if self.config.autocast == "none":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)


class _Reports:
    """Training metrics of an epoch on their way to rank 0, which writes and shows them when all are there."""

    def __init__(self, trainer: Trainer, log: MetricsLog, display: Display, epoch: int) -> None:
        self._trainer, self._log, self._display, self._epoch = trainer, log, display, epoch
        self._runtime = trainer.model.runtime
        self._pending: list[tuple[int, float, float]] = []  # steps, their learning rates, and samples per second
        self._bad: BadLoss | None = None

    def flag(self, interruption: Interruption) -> int:
        """What the other ranks have to know."""
        return _DIVERGED if self._bad is not None else _STOP if interruption.requested else 0

    def add(self, losses: list[Tensor], lr: float, rate: float) -> None:
        """Says what this rank knows of the steps since the last report."""
        values = torch.stack(losses).double().tolist() if losses else []
        exits = [None if loss is None else loss.item() for loss in self._trainer.model.exit_losses]
        step = self._trainer.progress.step
        self._runtime.post(f"train/{step}", {"losses": values, "exits": exits})
        self._pending.append((step, lr, rate))
        self._write()

    def finish(self) -> None:
        """Waits until everything that was said has been written, on all ranks.

        Raises:
            Diverged: if there was a loss that is not finite.
        """
        trainer = self._trainer
        trainer.model.gather(None)
        self._write()
        trainer.progress.loss_sum, bad = trainer.model.gather((trainer.progress.loss_sum, self._bad))[0]
        if bad is not None:
            raise Diverged(bad, trainer.config)

    def _write(self) -> None:
        if self._trainer.model.rank > 0:
            return
        while self._pending:
            step, lr, rate = self._pending[0]
            parts = self._runtime.collect(f"train/{step}")
            if parts is None:
                return
            self._pending.pop(0)
            final = parts[-1]
            columns = zip(*(part["exits"] for part in parts), strict=True)
            exits = [next((loss for loss in column if loss is not None), None) for column in columns]
            loss = sum(losses := final["losses"]) / len(losses)
            self._bad = self._bad or first_bad_loss(step, losses, exits)
            self._trainer.progress.loss_sum += sum(losses)
            self._display.step(self._epoch, step, loss, rate)
            self._log.write(
                "train", step, epoch=self._epoch, loss=loss, exit_losses=exits, lr=lr, samples_per_second=rate
            )
