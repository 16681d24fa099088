"""Measurements of a comparison: made once for each number of components, in a process with nothing beside it."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from interlocking_backprop.common.atomic_files import write_text
from interlocking_backprop.compare.config import CompareConfig
from interlocking_backprop.compare.folder import ComparisonFolder
from interlocking_backprop.compare.jobs import Job, Outcome
from interlocking_backprop.compare.results import Estimate, Profile
from interlocking_backprop.compare.step_costs import estimate_schemes, network_costs, profile_schemes
from interlocking_backprop.training.config import TrainConfig
from interlocking_backprop.training.trainer import Trainer

_PROFILES, _ESTIMATES = "profiles.json", "estimates.json"


class Measurements:
    """What has been measured, and what is still to be.

    Args:
        config: of the comparison.
        folder: where they are kept.
        threads: as many as a run has.

    Attributes:
        problems: a line for each that failed.
    """

    def __init__(self, config: CompareConfig, folder: ComparisonFolder, threads: int) -> None:
        self._config, self._folder, self._threads = config, folder, threads
        # What they depend on, beside what is the same in all of the comparison.
        names = ("schemes", "profile_steps", "pipeline_microbatches", "link_bandwidth", "link_latency")
        self._key = {name: config.settings()[name] for name in names}
        self.problems: list[str] = []

    def jobs(self) -> list[Job]:
        """Those that are still to be made."""
        config, log = self._config, self._folder.path / "stderr.txt"
        done = self._rows(_PROFILES).keys() & self._rows(_ESTIMATES).keys()
        link = (config.link_latency * 1e-6, config.link_bandwidth * 1e9)
        jobs = []
        for k in config.components:
            if config.profile_steps and k not in done:
                texts = {scheme: self._folder.resolved(scheme, k) for scheme in config.schemes}
                configs = {s: config.run(scheme=text, components=k, threads=self._threads) for s, text in texts.items()}
                args = (configs, config.profile_steps, config.pipeline_microbatches, link)
                jobs.append(Job(f"K {k}", _measure, args, log, functools.partial(self._note, k)))
        return jobs

    def records(self) -> tuple[tuple[Profile, ...], tuple[Estimate, ...]]:
        """What has been measured on one device, and modelled for a device per component."""
        profiles = (Profile(**row) for rows in self._rows(_PROFILES).values() for row in rows)
        estimates = (Estimate(**row) for rows in self._rows(_ESTIMATES).values() for row in rows)
        return tuple(profiles), tuple(estimates)

    def _note(self, k: int, outcome: Outcome) -> str:
        if not outcome.error:
            for name, rows in zip((_PROFILES, _ESTIMATES), outcome.value, strict=True):
                saved = self._folder.read(name) or {}
                saved[str(k)] = {"of": self._key, "rows": rows}
                write_text(self._folder.path / name, json.dumps(saved, indent=1) + "\n")
        elif not outcome.was_told_to_stop:
            self.problems.append(f"measurements, K {k}, failed: {outcome.error}")
        return f"K {k}  {outcome.error or 'measured'}"

    def _rows(self, name: str) -> dict[int, list[dict[str, Any]]]:
        """What is in a file for each number of components that has been measured as is asked for now."""
        saved = (self._folder.read(name) or {}) if self._config.profile_steps else {}
        found: dict[int, Any] = {k: saved.get(str(k)) for k in self._config.components}
        names = {field.name for field in dataclasses.fields(Profile if name == _PROFILES else Estimate)}

        def is_of_now(content: Any) -> bool:
            rows = content.get("rows") if isinstance(content, dict) and content.get("of") == self._key else None
            return isinstance(rows, list) and all(isinstance(row, dict) and row.keys() == names for row in rows)

        return {k: content["rows"] for k, content in found.items() if is_of_now(content)}


def _measure(
    device: str,
    configs: Mapping[str, TrainConfig],
    n_steps: int,
    microbatches: Sequence[int],
    link: tuple[float, float],
) -> list[list[dict[str, Any]]]:
    """Profiles and estimates of all schemes for one number of components."""

    def placed(config: TrainConfig, **changes: Any) -> Trainer:
        trainer = Trainer(config.replace(device=device, **changes))
        trainer.place()
        return trainer

    trainers = {scheme: placed(config) for scheme, config in configs.items()}
    measured = profile_schemes(trainers, n_steps)
    costs_of = network_costs(placed(next(iter(configs.values())), scheme="e2e", heads="all"), *link, n_steps)
    modelled = estimate_schemes(trainers, costs_of, microbatches)
    return [[dataclasses.asdict(record) for record in records] for records in (measured, modelled)]
