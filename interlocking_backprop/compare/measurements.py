"""Measurements of a comparison: made once for each number of components, in a process with nothing beside it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from interlocking_backprop.common.atomic_files import write_text
from interlocking_backprop.compare.config import CompareConfig
from interlocking_backprop.compare.display import Item
from interlocking_backprop.compare.folder import ComparisonFolder
from interlocking_backprop.compare.jobs import Job, Outcome, Report
from interlocking_backprop.compare.results import Estimate, Profile
from interlocking_backprop.planning.estimating import CostModel, Link, estimate
from interlocking_backprop.planning.profiling import profile
from interlocking_backprop.training.config import TrainConfig
from interlocking_backprop.training.trainer import Trainer

_PROFILES, _ESTIMATES = "profiles.json", "estimates.json"


class Measurements:
    """What has been measured, and what is still to be.

    Args:
        config: of the comparison.
        folder: where they are kept.
        threads: as many as a run has.
        device: on which they are made.

    Attributes:
        problems: a line for each that failed.
    """

    def __init__(self, config: CompareConfig, folder: ComparisonFolder, threads: int, device: str) -> None:
        self._config, self._folder, self._threads, self._device = config, folder, threads, device
        self.problems: list[str] = []

    @property
    def profiles(self) -> tuple[Profile, ...]:
        """On one device."""
        return tuple(Profile(**row) for row in self._rows(_PROFILES))

    @property
    def estimates(self) -> tuple[Estimate, ...]:
        """For a device per component."""
        return tuple(Estimate(**row) for row in self._rows(_ESTIMATES))

    def jobs(self) -> list[tuple[Item, Job]]:
        """Those that are still to be made."""
        if not self._config.profile_steps:
            return []
        return [(self._item(k), self._job(k)) for k in self._config.components if not self._is_done(k)]

    def _job(self, k: int) -> Job:
        config = self._config
        shared = {"components": k, "threads": self._threads, "device": self._device}
        configs = [config.run(scheme=scheme, **shared) for scheme in config.schemes]
        link = Link(config.link_latency * 1e-6, config.link_bandwidth * 1e9)
        log = self._folder.path / "stderr.txt"
        return Job(_measure, (configs, config.profile_steps, config.pipeline_microbatches, link), log)

    def _item(self, k: int) -> Item:
        def note(outcome: Outcome) -> str:
            if outcome.error and not outcome.was_told_to_stop:
                self.problems.append(f"measurements, K {k}, failed: {outcome.error}")
            elif not outcome.error:
                for name, rows in zip((_PROFILES, _ESTIMATES), outcome.value, strict=True):
                    saved = self._folder.read(name) or {}
                    saved[str(k)] = {"of": self._key(), "rows": rows}
                    write_text(self._folder.path / name, json.dumps(saved, indent=1) + "\n")
            return f"K {k}  {outcome.error or 'measured'}"

        return Item(f"K {k}", note)

    def _key(self) -> dict[str, Any]:
        """What the measurements depend on, beside what is the same in all of the comparison."""
        names = ("schemes", "profile_steps", "pipeline_microbatches", "link_bandwidth", "link_latency")
        return {name: self._config.settings()[name] for name in names}

    def _is_done(self, k: int) -> bool:
        saved = (self._folder.read(name) or {} for name in (_PROFILES, _ESTIMATES))
        return all(content.get(str(k), {}).get("of") == self._key() for content in saved)

    def _rows(self, name: str) -> list[dict[str, Any]]:
        if not self._config.profile_steps:
            return []
        saved = self._folder.read(name) or {}
        return [row for k in self._config.components if self._is_done(k) for row in saved[str(k)]["rows"]]


def _measure(
    slot: int,
    report: Report,
    configs: Sequence[TrainConfig],
    n_steps: int,
    microbatches: Sequence[int],
    link: Link,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Profiles and estimates of all schemes for one number of components."""
    trainers = {config.scheme: Trainer(config) for config in configs}
    for trainer in trainers.values():
        trainer.place()
    profiles = profile(trainers, n_steps)
    estimates = estimate(trainers, CostModel(configs[0], link, n_steps), microbatches)
    return [dataclasses.asdict(p) for p in profiles], [dataclasses.asdict(e) for e in estimates]
