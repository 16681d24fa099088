"""Tuning: every scheme gets the same trials, with one seed that no run has, judged by the validation score alone."""

from __future__ import annotations

import itertools
import json
from typing import Any

from interlocking_backprop.common.atomic_files import write_text
from interlocking_backprop.compare.config import TUNE_SEED, CompareConfig
from interlocking_backprop.compare.results import RunResult
from interlocking_backprop.compare.runs import Run, slug
from interlocking_backprop.scheme.phases import Phases


class Tuning:
    """The trials of all schemes and numbers of components.

    Args:
        config: of the comparison.
        threads: of each trial.
        metric: by which they are judged.
        maximize: whether more of it is better.

    Attributes:
        problems: a line for each trial that failed. To diverge is no failure: trials are there to find that out.
    """

    def __init__(self, config: CompareConfig, threads: int, metric: str, *, maximize: bool) -> None:
        self._config, self._threads, self._metric, self._maximize = config, threads, metric, maximize
        self.problems: list[str] = []
        self._root = config.out.absolute()
        self._of = {(scheme, k): self._trials(scheme, k) for k in config.components for scheme in config.schemes}

    @property
    def trials(self) -> list[Run]:
        """All of them."""
        return list(itertools.chain.from_iterable(self._of.values()))

    def choose(self) -> dict[tuple[str, int], dict[str, float]]:
        """For each scheme and number of components the values of its best trial; all trials go to tuning.jsonl.

        Where no trial has come to its end the one with the lowest learning rate counts.
        """
        chosen: dict[tuple[str, int], dict[str, float]] = {}
        rows: list[dict[str, Any]] = []
        for key, trials in self._of.items():
            results = [(trial, trial.result(self._metric)) for trial in trials]
            self.problems += [f"trial {t.name} failed: {r.reason}" for t, r in results if r.status == "failed"]
            best, result = min(results, key=lambda pair: self._badness(pair[1]))
            chosen[key] = {"lr": result.lr, "aux_lr_factor": result.aux_lr_factor}
            rows += [self._row(r, trial.config.optimization.epochs, is_chosen=trial is best) for trial, r in results]
        write_text(self._root / "tuning.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        return chosen

    def _trials(self, scheme: str, k: int) -> list[Run]:
        config = self._config
        base = config.run(scheme=scheme, components=k, seed=TUNE_SEED, epochs=config.trial_epochs, test=False)
        factors: tuple[float, ...] = config.tune_aux_lr_factor
        if not factors or not _uses_heads(scheme, k):  # without heads the trials would be the same
            factors = (base.of_optimizer("aux_lr_factor"),)
        trials = []
        for lr, factor in itertools.product(config.tune_lr or (base.of_optimizer("lr"),), factors):
            folder = self._root / "tuning" / f"{slug(scheme)}-k{k}-lr{lr:g}-aux{factor:g}"
            values: dict[str, Any] = {"lr": lr, "aux_lr_factor": factor, "threads": self._threads, "out": folder}
            trials.append(Run(base.replace(**values), self._root))
        return trials

    def _badness(self, result: RunResult) -> tuple[bool, float, float]:
        score = self._best(result)
        if score is None:
            return True, 0.0, result.lr
        return False, -score if self._maximize else score, 0.0

    def _best(self, result: RunResult) -> float | None:
        """The best validation score of a trial that came to its end."""
        scores = [point.score for point in result.curve]
        if result.status != "finished" or not scores:
            return None
        return max(scores) if self._maximize else min(scores)

    def _row(self, result: RunResult, epochs: int, *, is_chosen: bool) -> dict[str, Any]:
        return {
            "scheme": result.scheme,
            "components": result.components,
            "lr": result.lr,
            "aux_lr_factor": result.aux_lr_factor,
            "seed": result.seed,
            "epochs": epochs,
            "status": result.status,
            "reason": result.reason,
            "metric": self._metric,
            "validation_score": self._best(result),
            "chosen": is_chosen,
            "folder": result.folder,
            "seconds": result.seconds,
        }


def _uses_heads(scheme: str, k: int) -> bool:
    return any(phase.matrix[:, :-1].any() for phase in Phases.parse(scheme, k).schemes)
