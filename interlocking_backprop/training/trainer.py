"""The training loop: epochs, evaluation, checkpoints, and stopping and going on at any step.

Under torchrun every rank runs it. Rank 0 reads the data, writes metrics and shows progress; the others take part in the
same steps, evaluations and checkpoints. Nobody waits for the others between two steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor

from interlocking_backprop.build import build_model
from interlocking_backprop.data import batches
from interlocking_backprop.engine.allocator import keep_freed_memory
from interlocking_backprop.model import InterlockingBackpropModel
from interlocking_backprop.scheme.coefficients import Scheme
from interlocking_backprop.scheme.phases import Phases
from interlocking_backprop.training.checkpoints import Which
from interlocking_backprop.training.config import TrainConfig
from interlocking_backprop.training.divergence import Diverged
from interlocking_backprop.training.evaluation import ExitScores, evaluate
from interlocking_backprop.training.interruption import Interruption, Stopped, interruptible
from interlocking_backprop.training.introduction import introduction
from interlocking_backprop.training.metrics_log import MetricsLog
from interlocking_backprop.training.optimization import OptimizerOf, SchedulerOf
from interlocking_backprop.training.progress import Display
from interlocking_backprop.training.run_checks import check_batch, check_reached
from interlocking_backprop.training.run_folder import RunFolder
from interlocking_backprop.training.run_reports import Reports
from interlocking_backprop.training.select_device import select_device
from interlocking_backprop.training.tasks import Part, build_task
from interlocking_backprop.training.tracing import traced
from interlocking_backprop.transport.process_groups import has_ranks


@dataclass
class Progress:
    """How far a run has come; part of every checkpoint.

    Attributes:
        step: how many training steps were taken.
        loss_sum: the sum of the losses of the steps of the present epoch.
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
        optimization = config.optimization
        if config.execution.threads:
            torch.set_num_threads(config.execution.threads)
        self.config = config
        self.phases: Phases = config.phases
        self.device = select_device(config.execution.device)
        for name in config.parallelism.devices:
            select_device(name, "--devices")
        if self.device.type == "cpu":
            keep_freed_memory()
        self.task = build_task(config, self.phases.schemes)
        self.steps_per_epoch = math.ceil(len(self.task.train) / optimization.batch_size)
        if optimization.epoch_steps:
            self.steps_per_epoch = min(self.steps_per_epoch, optimization.epoch_steps)
        self.n_steps = optimization.epochs * self.steps_per_epoch
        if optimization.max_steps:
            self.n_steps = min(self.n_steps, optimization.max_steps)
        self.scheduler = SchedulerOf(optimization, self.steps_per_epoch, self.n_steps, self.task.maximize)
        optimizer = OptimizerOf(config, self.task.main_nets, self.task.own_head)
        self.rates_fall = any(factor != 1 for scheme in self.phases.schemes for factor in config.rate_factors(scheme))
        self.model: InterlockingBackpropModel = build_model(
            self.task.main_nets,
            self.task.aux_nets,
            self.phases.at(0),
            optimizer,
            self.task.loss_function,
            self.scheduler,
            n_microbatches=optimization.microbatches,
            # Heads have no delay, hence optimizers apart from those whose rates fall with it.
            aux_optimizer_constructor=optimizer if self.rates_fall else None,
            aux_lr_factor=config.of_optimizer("aux_lr_factor"),
            max_grad_norm=optimization.max_grad_norm or None,
            seed=config.seed,
        )
        self.progress = Progress()

    def check(self) -> None:
        """Makes sure that a new run has enough data for a batch, and enough steps for all phases of its scheme.

        Raises:
            ValueError: if it has not.
        """
        check_batch(self.config, len(self.task.train))
        check_reached(self.config, self.steps_per_epoch, self.n_steps)

    def place(self) -> None:
        """Puts the model where it computes: on one device, on a device per component, or on the ranks of torchrun."""
        device, parallelism = self.config.execution.device, self.config.parallelism
        if has_ranks():
            devices = None if device == "auto" else [device]
            self.model.enable_model_parallel(devices, timeout=timedelta(seconds=parallelism.timeout))
        elif parallelism.devices:
            self.model.enable_model_parallel(parallelism.devices)
        else:
            self.model.to(self.device)

    def fit(self) -> ExitScores:
        """Trains to the end and returns the metrics of every exit, of the best checkpoint.

        They are of the test set, or of the validation set if the configuration says that there is to be no test.

        Raises:
            Stopped: after Ctrl-C; the run can be resumed.
            Diverged: if a training loss is not finite.
            ValueError: if the run's folder does not fit, or `check` finds something wrong with a new run.
        """
        config, output, model = self.config, self.config.output, self.model
        if not output.resume:
            self.check()
        run = RunFolder.resume(config) if output.resume else RunFolder.new(config)
        self.place()
        is_first = model.rank == 0
        if is_first and not output.resume:
            run.write(config, self.task.files)
        if output.resume and model.gather(run.checkpoints.has("last"))[0]:
            self.load(run, "last")
        step, tensorboard = self.progress.step, config.execution.tensorboard
        with (
            closing(MetricsLog(run, step, tensorboard=tensorboard, silent=not is_first)) as log,
            closing(Display(self.n_steps, step, quiet=output.quiet or not is_first)) as display,
            interruptible() as interruption,
            traced(run.trace(model.rank), output.profile, self.n_steps - step) as end_step,
        ):
            if is_first and not output.quiet:
                display.begin(introduction(config, self.task, self.phases, model, self.n_steps, self.steps_per_epoch))
            reports = Reports(model, log, display)
            while self.progress.step < self.n_steps:
                self._epoch(run, reports, interruption, end_step)
            if model.gather(run.checkpoints.has("best"))[0]:
                self.load(run, "best", weights_only=True)
            scores = self.evaluate("test" if config.test else "validation")
            if config.test:
                log.write("test", self.progress.step, exits=scores)
        model.shutdown()
        return scores

    def _epoch(
        self, run: RunFolder, reports: Reports, interruption: Interruption, end_step: Callable[[], None]
    ) -> None:
        """Trains for the rest of the present epoch, and validates."""
        progress, model = self.progress, self.model
        epoch, start = divmod(progress.step, self.steps_per_epoch)
        end = min((epoch + 1) * self.steps_per_epoch, self.n_steps)
        self._follow(self.phases.at(epoch))
        model.train()
        reports.begin_epoch(epoch, progress.loss_sum)
        for inputs, targets in self._batches(self.task.train, epoch, start, end - progress.step, shuffle=True):
            lr = model.get_lr()
            # All ranks learn in this step whether rank 0 has a reason to stop after it.
            model.flag = int(interruption.requested or reports.bad is not None)
            loss = self._step(inputs, targets)
            end_step()
            stops = bool(model.flag) or (model.n_ranks == 1 and interruption.requested)
            reports.count(loss, self.config.optimization.batch_size if inputs is None else len(targets))
            if progress.step % self.config.execution.log_every == 0 or progress.step == end or stops:
                reports.post(progress.step, lr)
            if stops and progress.step < end:
                self._finish(reports)
                self._save(run, is_best=False)
                raise Stopped(progress.step, self.n_steps)
        self._finish(reports)
        self._validate(run, reports, progress.loss_sum / (end - epoch * self.steps_per_epoch))
        if model.gather(interruption.requested)[0] and progress.step < self.n_steps:
            raise Stopped(progress.step, self.n_steps)

    def _follow(self, scheme: Scheme) -> None:
        """Trains by a scheme from now on, each component at the learning rate that suits its delay."""
        self.model.set_scheme(scheme)
        if self.rates_fall:
            self.model.scale_learning_rates(self.config.rate_factors(scheme))

    def _step(self, inputs: Any, targets: Any) -> Tensor | None:
        """Takes a training step; returns the network's loss on the rank that has it."""
        with self.autocast():
            loss: Tensor | None = self.model.training_step(inputs, targets).result()
        if not self.scheduler.is_per_epoch:
            self.model.lr_scheduler_step()
        self.progress.step += 1
        return loss

    def _finish(self, reports: Reports) -> None:
        reports.finish()
        self.progress.loss_sum = reports.loss_sum
        if reports.bad is not None:
            raise Diverged(reports.bad, self.config)

    def _validate(self, run: RunFolder, reports: Reports, loss: float) -> None:
        """Ends an epoch with this mean loss: validates, steps a plateau schedule, and writes a checkpoint."""
        exits = self.evaluate("validation")
        final = exits[-1]
        assert final is not None
        score, best = final[self.task.score], self.progress.best
        if self.scheduler.is_per_epoch:
            self.model.lr_scheduler_step(score)
        is_best = best is None or (score > best if self.task.maximize else score < best)
        if is_best:
            self.progress.best = score
        self.progress.loss_sum = 0.0
        reports.validation(self.progress.step, loss, exits)
        self._save(run, is_best=is_best)

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

    def first_batch(self) -> tuple[Any, Any]:
        """The inputs and targets of the first training step."""
        return next(iter(self._batches(self.task.train, shuffle=True)))

    def _batches(
        self, split: Any, epoch: int = 0, start: int = 0, most: int | None = None, *, shuffle: bool = False
    ) -> Iterable[tuple[Any, Any]]:
        """Batches of a split, from one on, and at most so many; on ranks without data as many pairs of None."""
        batch_size = self.config.optimization.batch_size
        n = math.ceil(len(split) / batch_size) - start
        n = n if most is None else min(n, most)
        if self.model.rank > 0:
            return ((None, None) for _ in range(n))
        loader = batches(
            split,
            batch_size,
            seed=self.config.seed,
            epoch=epoch,
            start=start,
            shuffle=shuffle,
            num_workers=self.config.execution.workers,
            pin_memory=self.device.type != "cpu",
        )
        return (batch for batch, _ in zip(loader, range(n), strict=False))

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision of training steps."""
        if self.config.optimization.autocast == "none":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)
