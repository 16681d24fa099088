"""The runs of a comparison: what each of them is, carried out in a process of its own, and what its folder says."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interlocking_backprop.common.atomic_files import write_text
from interlocking_backprop.compare.config import CompareConfig
from interlocking_backprop.compare.jobs import Job, Outcome, Report
from interlocking_backprop.compare.results import Point, RunResult
from interlocking_backprop.training.config import TrainConfig
from interlocking_backprop.training.divergence import Diverged
from interlocking_backprop.training.interruption import Stopped
from interlocking_backprop.training.metrics_log import read_metrics
from interlocking_backprop.training.run_folder import RunFolder
from interlocking_backprop.training.trainer import Trainer

_STOPPED = "stopped"


@dataclass(frozen=True)
class Run:
    """A run of the comparison, in a folder as ``ibp train`` makes them.

    Attributes:
        config: all that it depends on.
        root: folder of the comparison.
    """

    config: TrainConfig
    root: Path

    @property
    def folder(self) -> Path:
        return self.config.run_folder

    @property
    def name(self) -> str:
        """What it is called on the terminal."""
        return f"{self.config.scheme}  K {self.config.components}  seed {self.config.seed}"

    @property
    def status(self) -> str | None:
        """How it ended; None if it has not."""
        return self._outcome().get("status")

    def job(self, devices: Sequence[str]) -> Job:
        """Begins the run, or goes on with it, on the device of the slot."""
        return Job(_train, (self.config, tuple(devices)), self.folder / "stderr.txt")

    def forget(self) -> None:
        """Lets a run that failed go on."""
        self._write(None, "", self._outcome()["seconds"])

    def note(self, outcome: Outcome) -> str:
        """Writes down how it ended this time, and returns a line that says so."""
        seconds = self._outcome().get("seconds", 0.0) + outcome.seconds
        status, reason = ("failed", outcome.error) if outcome.error else outcome.value
        if outcome.was_told_to_stop and (outcome.error or status == _STOPPED):
            status, reason = None, ""
        elif status == _STOPPED:
            status, reason = "failed", "ended by a signal that was not for the comparison as a whole"
        self._write(status, reason, seconds)
        return f"{self.name}  {status or 'stopped'}{': ' if reason else ''}{reason}"

    def result(self, metric: str) -> RunResult:
        """What came out, by the metrics of the run."""
        config, outcome, lines = self.config, self._outcome(), read_metrics(RunFolder(self.folder).metrics)
        tests = [line for line in lines if line["event"] == "test"]
        exits = [e and e[metric] for e in tests[-1]["exits"]] if tests else [None] * config.components
        return RunResult(
            scheme=config.scheme,
            components=config.components,
            seed=config.seed,
            status=outcome["status"],
            reason=outcome["reason"],
            folder=str(self.folder.relative_to(self.root)),
            lr=config.of_optimizer("lr"),
            aux_lr_factor=config.of_optimizer("aux_lr_factor"),
            score=exits[-1],
            exits=tuple(exits),
            curve=tuple(
                Point(line["epoch"] + 1, line["step"], line["exits"][-1][metric])
                for line in lines
                if line["event"] == "validation"
            ),
            steps=max((line["step"] for line in lines), default=0),
            seconds=outcome["seconds"],
        )

    def _outcome(self) -> dict[str, Any]:
        path = self.folder / "outcome.json"
        if not path.exists():
            return {}
        outcome: dict[str, Any] = json.loads(path.read_text())
        return outcome

    def _write(self, status: str | None, reason: str, seconds: float) -> None:
        outcome = {"status": status, "reason": reason, "seconds": seconds}
        write_text(self.folder / "outcome.json", json.dumps(outcome) + "\n")


def grid(config: CompareConfig, threads: int, chosen: dict[tuple[str, int], dict[str, float]]) -> list[Run]:
    """All runs, those of the first seed first.

    Args:
        config: of the comparison.
        threads: of each run.
        chosen: by scheme and number of components, the values that were tuned.
    """
    found = []
    for seed, k, scheme in itertools.product(range(config.seeds), config.components, config.schemes):
        folder = config.out.absolute() / "runs" / f"{slug(scheme)}-k{k}-s{seed}"
        values: dict[str, Any] = {"scheme": scheme, "components": k, "seed": seed, "threads": threads, "out": folder}
        found.append(Run(config.run(**values | chosen.get((scheme, k), {})), config.out.absolute()))
    return found


def slug(text: str) -> str:
    """A name for a folder; different texts have different ones."""
    plain = re.sub(r"[^\w.-]+", "_", text)
    return plain if plain == text else f"{plain}-{hashlib.blake2b(text.encode(), digest_size=3).hexdigest()}"


def _train(slot: int, report: Report, config: TrainConfig, devices: tuple[str, ...]) -> tuple[str, str]:
    """Trains to the end; returns how it ended and why."""
    has_begun = (config.run_folder / "config.json").exists()
    trainer = Trainer(config.replace(device=devices[slot % len(devices)], resume=has_begun))
    report(trainer.n_steps)
    try:
        trainer.fit()
    except Diverged as diverged:
        return "diverged", str(diverged)
    except Stopped as stopped:
        return _STOPPED, str(stopped)
    return "finished", ""
