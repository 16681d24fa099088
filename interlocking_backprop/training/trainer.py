"""The training loop: epochs, evaluation, checkpoints, and stopping and going on at any step."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from interlocking_backprop.build import build_model
from interlocking_backprop.data import Split, batches
from interlocking_backprop.model import InterlockingBackpropModel
from interlocking_backprop.runtime.allocator import keep_freed_memory
from interlocking_backprop.training.config import TrainConfig
from interlocking_backprop.training.display import Display
from interlocking_backprop.training.evaluation import ExitScores, evaluate
from interlocking_backprop.training.interruption import Interruption, Stopped, interruptible
from interlocking_backprop.training.metrics_log import MetricsLog
from interlocking_backprop.training.optimization import OptimizerOf, SchedulerOf
from interlocking_backprop.training.run_folder import RunFolder
from interlocking_backprop.training.scheme_plan import SchemePlan
from interlocking_backprop.training.stopwatch import Stopwatch
from interlocking_backprop.training.task import Task, build_task


@dataclass
class Progress:
    """How far a run has come; part of every checkpoint.

    Attributes:
        step: training steps taken.
        loss_sum: of the steps of the present epoch.
        best: the best validation score so far.
    """

    step: int = 0
    loss_sum: float = 0.0
    best: float = -math.inf


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
        self.task: Task = build_task(config, self.plan.schemes)
        self.steps_per_epoch = math.ceil(len(self.task.train) / config.batch_size)
        self.n_steps = config.epochs * self.steps_per_epoch
        if config.max_steps:
            self.n_steps = min(self.n_steps, config.max_steps)
        self.scheduler = SchedulerOf(config, self.steps_per_epoch, self.n_steps)
        self.model: InterlockingBackpropModel = build_model(
            self.task.main_nets,
            self.task.aux_nets,
            self.plan.at(0),
            OptimizerOf(config),
            self.task.loss_function,
            self.scheduler,
            n_microbatches=config.microbatches,
            aux_lr_factor=config.aux_lr_factor,
            max_grad_norm=config.max_grad_norm or None,
            seed=config.seed,
        ).to(self.device)
        self.progress = Progress()

    def fit(self) -> ExitScores:
        """Trains to the end and returns the test metrics of every exit, of the best checkpoint.

        Raises:
            Stopped: after Ctrl-C; the run can be resumed.
            ValueError: if the run's folder does not fit.
        """
        config = self.config
        run = RunFolder.resume(config) if config.resume else RunFolder.create(config)
        if config.resume and run.last.exists():
            self.load(run.load_checkpoint(run.last, self.device))
        with (
            MetricsLog(run, self.progress.step, tensorboard=config.tensorboard) as log,
            Display(self.n_steps, self.progress.step, quiet=config.quiet) as display,
            interruptible() as interruption,
        ):
            while self.progress.step < self.n_steps:
                self._epoch(run, log, display, interruption)
            if run.best.exists():
                self.load_weights(run.load_checkpoint(run.best, self.device))
            scores = self.evaluate("test")
            log.write("test", self.progress.step, exits=scores)
        return scores

    def evaluate(self, part: Literal["validation", "test"]) -> ExitScores:
        """The metrics of every exit."""
        split = self.task.validation if part == "validation" else self.task.test
        return evaluate(self.model, self._batches(split), self.task.metrics)

    def state(self) -> dict[str, Any]:
        """Everything that a checkpoint holds."""
        return {
            "model": self.model.state_dict(),
            "training": self.model.training_state_dict(),
            "progress": vars(self.progress),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Restores a checkpoint, to go on from there."""
        self.load_weights(state)
        self.model.load_training_state_dict(state["training"])
        self.progress = Progress(**state["progress"])

    def load_weights(self, state: dict[str, Any]) -> None:
        """Restores the weights alone.

        Raises:
            ValueError: if they are of another network.
        """
        try:
            self.model.load_state_dict(state["model"])
        except (KeyError, RuntimeError) as error:
            raise ValueError(f"the checkpoint does not fit the network ({str(error).splitlines()[0]}).") from None

    def _epoch(self, run: RunFolder, log: MetricsLog, display: Display, interruption: Interruption) -> None:
        """The rest of the present epoch, and its validation."""
        config, progress = self.config, self.progress
        epoch, start = divmod(progress.step, self.steps_per_epoch)
        end = min((epoch + 1) * self.steps_per_epoch, self.n_steps)
        self.model.set_scheme(self.plan.at(epoch))
        self.model.train()
        stopwatch = Stopwatch()
        losses: list[Tensor] = []
        for inputs, targets in self._batches(self.task.train, epoch, start, shuffle=True):
            lr = self.model.get_lr()
            with self._autocast():
                losses.append(self.model.training_step(inputs, targets).result())
            if not self.scheduler.is_per_epoch:
                self.model.lr_scheduler_step()
            progress.step += 1
            stopwatch.count(len(targets))
            if progress.step % config.log_every == 0 or progress.step == end or interruption.requested:
                recent = torch.stack(losses).double().mean().item()
                progress.loss_sum += recent * len(losses)
                losses.clear()
                rate = stopwatch.rate()
                display.step(epoch, progress.step, recent, rate)
                exits = [None if loss is None else loss.item() for loss in self.model.exit_losses]
                log.write(
                    "train", progress.step, epoch=epoch, loss=recent, exit_losses=exits, lr=lr, samples_per_second=rate
                )
            if progress.step == end:
                break
            if interruption.requested:
                run.save_checkpoint(self.state(), is_best=False)
                raise Stopped(progress.step, self.n_steps)
        self._end_epoch(run, log, display, epoch, progress.loss_sum / (end - epoch * self.steps_per_epoch), stopwatch)
        if interruption.requested and progress.step < self.n_steps:
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
        is_best = score > self.progress.best
        self.progress.best = max(score, self.progress.best)
        self.progress.loss_sum = 0.0
        display.epoch(epoch, self.model.scheme.name, loss, exits, rate)
        log.write("validation", self.progress.step, epoch=epoch, exits=exits, train_loss=loss)
        run.save_checkpoint(self.state(), is_best=is_best)

    def _batches(
        self, split: Split, epoch: int = 0, start: int = 0, *, shuffle: bool = False
    ) -> DataLoader[tuple[Tensor, Tensor]]:
        return batches(
            split,
            self.config.batch_size,
            seed=self.config.seed,
            epoch=epoch,
            start=start,
            shuffle=shuffle,
            num_workers=self.config.workers,
            pin_memory=self.device.type != "cpu",
        )

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.config.autocast == "none":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)


def select_device(name: str) -> torch.device:
    """The device that a flag names; "auto" is an accelerator if there is one.

    Raises:
        ValueError: if there is no such device.
    """
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if name == "auto":
        return accelerator or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        available = ["cpu"]
        if accelerator is not None:
            available += [f"{accelerator.type}:{i}" for i in range(torch.accelerator.device_count())]
        raise ValueError(f"--device is {name!r}; expected auto or one of {', '.join(available)}.") from None
    return device
