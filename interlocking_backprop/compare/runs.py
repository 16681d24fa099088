"""The runs of a comparison: what each of them is, carried out in a process of its own, and what its folder says."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interlocking_backprop.common.atomic_files import write_text
from interlocking_backprop.common.json_files import read_json
from interlocking_backprop.compare.config import CompareConfig
from interlocking_backprop.compare.jobs import Job, Outcome
from interlocking_backprop.compare.results import Point, RunResult
from interlocking_backprop.training.config import TrainConfig
from interlocking_backprop.training.divergence import Diverged
from interlocking_backprop.training.interruption import Stopped
from interlocking_backprop.training.metrics_log import read_metrics
from interlocking_backprop.training.run_folder import RunFolder
from interlocking_backprop.training.trainer import Trainer


@dataclass(frozen=True)
class Run:
    """A run of the comparison, in a folder as ``ibp train`` makes them.

    Attributes:
        config: all that it depends on; its scheme as it was asked for.
        root: folder of the comparison.
        scheme: that of the configuration, with delays as numbers.
    """

    config: TrainConfig
    root: Path
    scheme: str

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

    def job(self, n_steps: int) -> Job:
        """Begins the run, which has so many steps, or goes on with it."""
        log, metrics = self.folder / "stderr.txt", self.folder / "metrics.jsonl"
        config = self.config.replace(scheme=self.scheme)
        return Job(self.name, _train, (config,), log, self.note, metrics, n_steps)

    def note(self, outcome: Outcome) -> str:
        """Writes down how it ended this time, and returns a line that says so."""
        status, reason = ("failed", outcome.error) if outcome.error else outcome.value
        if outcome.error and outcome.was_told_to_stop:
            status, reason = None, ""
        seconds = self._outcome().get("seconds", 0.0) + outcome.seconds
        content = {"status": status, "reason": reason, "seconds": seconds}
        write_text(self.folder / "outcome.json", json.dumps(content) + "\n")
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
        content = read_json(path, _OUTCOME)
        names = {"status", "reason", "seconds"}
        if not isinstance(content, dict) or names != content.keys() or not isinstance(content["seconds"], (int, float)):
            raise ValueError(f"{path} does not say how a run ended; expected {_OUTCOME}.")
        return content


_OUTCOME = "status, reason and seconds; remove the file to have the run begun again"


def grid(
    config: CompareConfig,
    threads: int,
    chosen: dict[tuple[str, int], dict[str, float]],
    resolved: Callable[[str, int], str],
) -> list[Run]:
    """All runs, those of the first seed first.

    Args:
        config: of the comparison.
        threads: of each run.
        chosen: by scheme and number of components, the values that were tuned.
        resolved: gives a scheme for so many components with delays as numbers.
    """
    root = config.out.absolute()
    found = []
    for seed, k, scheme in itertools.product(range(config.seeds), config.components, config.schemes):
        values: dict[str, Any] = {"scheme": scheme, "components": k, "seed": seed, "threads": threads}
        values["out"] = root / "runs" / f"{slug(scheme)}-k{k}-s{seed}"
        found.append(Run(config.run(**values | chosen.get((scheme, k), {})), root, resolved(scheme, k)))
    return found


def slug(text: str) -> str:
    """A name for a folder; different texts have different ones."""
    plain = re.sub(r"[^\w.-]+", "_", text)
    return plain if plain == text else f"{plain}-{hashlib.blake2b(text.encode(), digest_size=3).hexdigest()}"


def _train(device: str, config: TrainConfig) -> tuple[str, str]:
    """Trains to the end; returns how it ended and why."""
    has_begun = (config.run_folder / "config.json").exists()
    try:
        Trainer(config.replace(device=device, resume=has_begun)).fit()
    except Diverged as diverged:
        return "diverged", str(diverged)
    except Stopped:  # no failure, if the comparison as a whole was told to stop
        raise RuntimeError("ended by a signal that was not for the comparison as a whole") from None
    return "finished", ""
