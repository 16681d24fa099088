"""A comparison from its beginning to its report: look at the task, tune, train, measure, put together."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console

from interlocking_backprop.compare.config import CompareConfig
from interlocking_backprop.compare.display import Display, Item
from interlocking_backprop.compare.folder import ComparisonFolder
from interlocking_backprop.compare.jobs import Job, Outcome, Processes, Report
from interlocking_backprop.compare.measurements import Measurements
from interlocking_backprop.compare.results import Comparison
from interlocking_backprop.compare.runs import Run, grid
from interlocking_backprop.compare.tuning import Tuning
from interlocking_backprop.training.config import TrainConfig
from interlocking_backprop.training.interruption import Interruption, interruptible
from interlocking_backprop.training.run_folder import environment
from interlocking_backprop.training.trainer import Trainer


class Interrupted(Exception):  # noqa: N818  (no error: the user asked for it)
    """The comparison was stopped and can go on."""


@dataclass(frozen=True)
class Workplaces:
    """Where runs go.

    Attributes:
        devices: over which they are spread.
        n_jobs: side by side.
        threads: of each.
    """

    devices: tuple[str, ...]
    n_jobs: int
    threads: int

    @classmethod
    def of(cls, config: CompareConfig) -> Workplaces:
        """What the configuration asks for on this machine."""
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        devices: tuple[str, ...] = (config.execution.device,)
        if config.execution.device == "auto":
            n = torch.accelerator.device_count() if accelerator else 0
            devices = tuple(f"{accelerator.type}:{i}" for i in range(n)) if accelerator else ("cpu",)
        n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        n_jobs = config.jobs
        if not n_jobs:
            n_jobs = max(n_cores // (config.execution.threads or 1), 1) if devices == ("cpu",) else len(devices)
        return cls(devices, n_jobs, config.execution.threads or max(n_cores // n_jobs, 1))


class Comparer:
    """Carries out a comparison.

    Args:
        config: what is asked for.
        console: where progress is shown.
    """

    def __init__(self, config: CompareConfig, console: Console) -> None:
        self._config, self._console = config, console
        self._folder = ComparisonFolder(config)
        self._places = Workplaces.of(config)
        self._problems: list[str] = []

    def compare(self) -> tuple[Comparison, list[str]]:
        """Does whatever is not done yet.

        Returns:
            What was found, and a line for all that went wrong.

        Raises:
            ValueError: if something that is asked for cannot be had.
            Interrupted: after Ctrl-C, when everything has come to a stop.
        """
        with self._folder.locked(), interruptible() as interruption:
            self._folder.check_settings()
            facts = self._facts(interruption)
            return self._compare(facts, interruption), self._problems

    def _compare(self, facts: dict[str, Any], interruption: Interruption) -> Comparison:
        config = self._config
        chosen: dict[tuple[str, int], dict[str, float]] = {}
        if config.tunes:
            tuning = Tuning(config, self._places.threads, facts["metric"], maximize=facts["maximize"])
            self._train("trials", tuning.trials, facts["metric"], interruption)
            chosen = tuning.choose()
            self._problems += tuning.problems
        runs = grid(config, self._places.threads, chosen)
        self._train("runs", runs, facts["metric"], interruption)
        measurements = Measurements(config, self._folder, self._places.threads, self._places.devices[0])
        jobs = measurements.jobs()
        self._carry_out("measurements", [job for _, job in jobs], [item for item, _ in jobs], 1, interruption)
        self._problems += measurements.problems
        results = [run.result(facts["metric"]) for run in runs]
        self._problems += [
            f"{run.name} {result.status}: {result.reason}"
            for run, result in zip(runs, results, strict=True)
            if result.status != "finished"
        ]
        return Comparison(
            metric=facts["metric"],
            maximize=facts["maximize"],
            schemes=config.schemes,
            components=config.components,
            seeds=tuple(range(config.seeds)),
            batch_size=config.optimization.batch_size,
            settings=config.settings(),
            environment=environment(),
            runs=tuple(results),
            profiles=measurements.profiles,
            estimates=measurements.estimates,
        )

    def _facts(self, interruption: Interruption) -> dict[str, Any]:
        """What is known of the task; found in a process, for this one is not to hold data or devices."""
        facts = self._folder.facts()
        if facts is not None:
            return facts
        config = self._config
        some = [
            config.run(scheme=config.schemes[0], components=k, device=self._places.devices[0])
            for k in config.components
        ]
        outcomes: list[Outcome] = []

        def note(outcome: Outcome) -> str:
            outcomes.append(outcome)
            return "looked at data and nets"

        job = Job(_look, (some,), self._folder.path / "stderr.txt")
        self._carry_out("task", [job], [Item("data and nets", note)], 1, interruption)
        (outcome,) = outcomes
        if outcome.is_bad_input:
            raise ValueError(outcome.error.removeprefix("ValueError: "))
        if outcome.error:
            raise RuntimeError(outcome.error)
        found: dict[str, Any] = outcome.value
        self._folder.begin(found)
        return found

    def _train(self, title: str, runs: Sequence[Run], metric: str, interruption: Interruption) -> None:
        if self._config.retry_failed:
            for run in runs:
                if run.status not in (None, "finished"):
                    run.forget()
        todo = [run for run in runs if run.status is None]
        jobs = [run.job(self._places.devices) for run in todo]
        items = [Item(run.name, run.note, run.folder / "metrics.jsonl") for run in todo]
        n_done = len(runs) - len(todo)
        self._carry_out(title, jobs, items, self._places.n_jobs, interruption, n_done, metric)

    def _carry_out(
        self,
        title: str,
        jobs: Sequence[Job],
        items: Sequence[Item],
        n_slots: int,
        interruption: Interruption,
        n_done: int = 0,
        metric: str = "",
    ) -> None:
        if not jobs:
            return
        with (
            Display(self._console, interruption, title, items, n_done, metric) as display,
            Processes(n_slots, _modules(self._config)) as processes,
        ):
            processes.run(jobs, display)
        if interruption.requested:
            raise Interrupted


def _modules(config: CompareConfig) -> list[str]:
    """What a run imports, that included which torch, kornia and sklearn import when they are first used."""
    modules = ["torch._dynamo", "interlocking_backprop.training.trainer"]
    if config.network.model == "transformer":
        return [*modules, "interlocking_backprop.training.tasks.text"]
    modules.append("interlocking_backprop.training.tasks.images")
    if config.dataset.augment:
        modules.append("kornia.augmentation")
    if config.data_name == "digits":
        modules.append("sklearn.datasets")
    return modules


def _look(slot: int, report: Report, configs: Sequence[TrainConfig]) -> dict[str, Any]:
    """Builds what runs would train, to find out what does not fit before they begin."""
    for config in configs:
        trainer = Trainer(config)
    return {
        "metric": trainer.task.score,
        "maximize": trainer.task.maximize,
        "n_steps": trainer.n_steps,
        "components": [config.components for config in configs],
    }
