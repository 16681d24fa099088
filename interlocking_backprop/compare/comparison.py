"""A comparison from its beginning to its report: look at the task, tune, train, measure, put together."""

from __future__ import annotations

import itertools
import multiprocessing
import os
from collections.abc import Sequence
from typing import Any

import torch
from rich.console import Console

from interlocking_backprop.compare.config import CompareConfig
from interlocking_backprop.compare.display import Display
from interlocking_backprop.compare.folder import ComparisonFolder
from interlocking_backprop.compare.jobs import Job, Outcome, run_jobs
from interlocking_backprop.compare.measurements import Measurements
from interlocking_backprop.compare.results import Comparison
from interlocking_backprop.compare.runs import Run, grid
from interlocking_backprop.compare.tuning import all_trials, choose
from interlocking_backprop.compare.twins import find_twins
from interlocking_backprop.training.config import TrainConfig
from interlocking_backprop.training.interruption import Interruption, interruptible
from interlocking_backprop.training.run_folder import environment
from interlocking_backprop.training.trainer import Trainer

# What runs import, that included which torch imports when it is first used.
_MODULES = (
    "torch._dynamo",
    "interlocking_backprop.training.trainer",
    "interlocking_backprop.training.tasks.image_task",
    "interlocking_backprop.training.tasks.text_task",
    "kornia.augmentation",
    "sklearn.datasets",
)


class Interrupted(Exception):  # noqa: N818  (no error: the user asked for it)
    """The comparison was stopped and can go on."""


class Comparer:
    """Carries out a comparison.

    Args:
        config: what is asked for.
        console: where progress is shown.
    """

    def __init__(self, config: CompareConfig, console: Console) -> None:
        self._config, self._console = config, console
        self._folder = ComparisonFolder(config)
        self._devices, self._threads = _places(config)
        self._interruption = Interruption()

    def compare(self) -> tuple[Comparison, list[str]]:
        """Does whatever is not done yet.

        Returns:
            What was found, and a line for all that went wrong.

        Raises:
            ValueError: if something that is asked for cannot be had.
            Interrupted: after Ctrl-C, when everything has come to a stop.
        """
        multiprocessing.set_forkserver_preload(list(_MODULES))
        with self._folder.locked(), interruptible() as self._interruption:
            self._folder.check_settings()
            facts = self._folder.facts() or self._look()
            for scheme, text in self._folder.keep_delays().items():
                self._console.print(f"{scheme}: {text}", soft_wrap=True, markup=False, highlight=False)
            return self._compare(facts)

    def _compare(self, facts: dict[str, Any]) -> tuple[Comparison, list[str]]:
        config, threads, metric = self._config, self._threads, facts["metric"]
        trials = all_trials(config, threads, self._folder.resolved) if config.tunes else {}
        self._train("trials", list(itertools.chain(*trials.values())), facts)
        chosen, problems = choose(trials, config, metric, maximize=facts["maximize"]) if trials else ({}, [])
        runs = grid(config, threads, chosen, self._folder.resolved)
        self._train("runs", runs, facts)
        measurements = Measurements(config, self._folder, threads)
        self._carry_out("measurements", measurements.jobs(), self._devices[:1])
        profiles, estimates = measurements.records()
        results = {run.name: run.result(metric) for run in runs}
        problems += measurements.problems
        problems += [f"{name} {r.status}: {r.reason}" for name, r in results.items() if r.status != "finished"]
        comparison = Comparison(
            metric=metric,
            maximize=facts["maximize"],
            schemes=config.schemes,
            components=config.components,
            seeds=tuple(range(config.seeds)),
            batch_size=config.optimization.batch_size,
            settings=config.settings() | self._folder.delays(),
            environment=environment(),
            runs=tuple(results.values()),
            profiles=profiles,
            estimates=estimates,
            twins=find_twins(config.schemes, config.components, self._folder.resolved),
        )
        return comparison, problems

    def _look(self) -> dict[str, Any]:
        """Finds out about the task, in a process, for this one is not to hold data or devices."""
        config, outcomes = self._config, list[Outcome]()
        some = [config.run(scheme=config.schemes[0], components=k) for k in config.components]
        job = Job("data and nets", _facts, (some,), self._folder.path / "stderr.txt", outcomes.append)
        self._carry_out("task", [job], self._devices[:1])
        (outcome,) = outcomes
        if outcome.error:
            raise RuntimeError(outcome.error)
        facts, bad_input = outcome.value
        if bad_input:
            raise ValueError(bad_input)
        self._folder.begin(facts)
        return dict(facts)

    def _train(self, title: str, runs: Sequence[Run], facts: dict[str, Any]) -> None:
        todo = [run for run in runs if run.status != "finished" and (self._config.retry_failed or run.status is None)]
        # Trials may have other numbers of epochs, and with them of steps.
        steps_per_epoch = facts["n_steps"] / self._config.optimization.epochs
        jobs = [run.job(round(run.config.optimization.epochs * steps_per_epoch)) for run in todo]
        self._carry_out(title, jobs, self._devices, len(runs) - len(jobs), facts["metric"])

    def _carry_out(
        self, title: str, jobs: Sequence[Job], devices: Sequence[str], n_done: int = 0, metric: str = ""
    ) -> None:
        """Carries out jobs and shows how far they are.

        Raises:
            Interrupted: if the user has asked to stop.
        """
        if not jobs:
            return
        with Display(self._console, self._interruption, title, n_done + len(jobs), n_done, metric) as display:
            run_jobs(jobs, devices, display.ended, display.should_stop)
        if self._interruption.requested:
            raise Interrupted


def _places(config: CompareConfig) -> tuple[list[str], int]:
    """The devices of the runs that go on side by side, and the threads of each run."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    devices = [config.execution.device]
    if config.execution.device == "auto":
        n = torch.accelerator.device_count() if accelerator else 0
        devices = [f"{accelerator.type}:{i}" for i in range(n)] if accelerator else ["cpu"]
    n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = config.execution.threads
    n_jobs = config.jobs or (max(n_cores // (threads or 1), 1) if devices == ["cpu"] else len(devices))
    return [devices[i % len(devices)] for i in range(n_jobs)], threads or max(n_cores // n_jobs, 1)


def _facts(device: str, configs: Sequence[TrainConfig]) -> tuple[dict[str, Any], str]:
    """Builds what runs would train: what is known of the task then, and what does not fit, before they begin."""
    try:
        for config in configs:
            trainer = Trainer(config.replace(device=device))
            trainer.check()
    except ValueError as error:
        return {}, str(error)
    return {
        "metric": trainer.task.score,
        "maximize": trainer.task.maximize,
        "n_steps": trainer.n_steps,
        "components": [config.components for config in configs],
    }, ""
