"""Tuning: every scheme gets the same trials, with one seed that no run has, judged by the validation score alone."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

from interlocking_backprop.common.atomic_files import write_text
from interlocking_backprop.compare.config import TUNE_SEED, CompareConfig
from interlocking_backprop.compare.results import RunResult
from interlocking_backprop.compare.runs import Run, slug

Key = tuple[str, int]
"""A scheme and a number of components."""


def all_trials(config: CompareConfig, threads: int, resolved: Callable[[str, int], str]) -> dict[Key, list[Run]]:
    """The trials of each scheme and number of components.

    Args:
        config: of the comparison.
        threads: of each trial.
        resolved: gives a scheme for so many components with delays as numbers.
    """
    return {(s, k): _trials(config, s, k, threads, resolved(s, k)) for k in config.components for s in config.schemes}


def choose(
    trials: dict[Key, list[Run]], config: CompareConfig, metric: str, *, maximize: bool
) -> tuple[dict[Key, dict[str, float]], list[str]]:
    """Chooses the best trials, and writes all of them to tuning.jsonl.

    Args:
        trials: that have ended.
        config: of the comparison.
        metric: by which they are judged.
        maximize: whether more of it is better.

    Returns:
        The values of each best trial, or, where no trial has come to its end, those with the lowest learning rate; and
        a line for each trial that failed. (To diverge is no failure: trials are there to find that out.)
    """

    def best_score(result: RunResult) -> float | None:
        scores = [point.score for point in result.curve if result.status == "finished"]
        return (max if maximize else min)(scores, default=None)

    def badness(result: RunResult) -> tuple[bool, float]:
        score = best_score(result)
        return (True, result.lr) if score is None else (False, -score if maximize else score)

    chosen: dict[Key, dict[str, float]] = {}
    problems: list[str] = []
    rows: list[dict[str, Any]] = []
    for key, runs in trials.items():
        results = [run.result(metric) for run in runs]
        best = min(results, key=badness)
        chosen[key] = {"lr": best.lr, "aux_lr_factor": best.aux_lr_factor}
        for run, result in zip(runs, results, strict=True):
            if result.status == "failed":
                problems.append(f"trial {run.name} failed: {result.reason}")
            names = ("scheme", "components", "lr", "aux_lr_factor", "seed", "status", "reason", "folder", "seconds")
            row = {name: getattr(result, name) for name in names} | {
                "epochs": run.config.optimization.epochs,
                "metric": metric,
            }
            rows.append(row | {"validation_score": best_score(result), "chosen": result is best})
    write_text(config.out / "tuning.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    return chosen, problems


def _trials(config: CompareConfig, scheme: str, k: int, threads: int, resolved: str) -> list[Run]:
    root = config.out.absolute()
    base = config.run(scheme=scheme, components=k, seed=TUNE_SEED, epochs=config.trial_epochs, test=False)
    has_heads = any(phase.uses[:, :-1].any() for phase in base.phases.schemes)
    lrs = config.tune_lr or [base.of_optimizer("lr")]
    # Without heads the trials would be the same.
    factors = (has_heads and config.tune_aux_lr_factor) or [base.of_optimizer("aux_lr_factor")]
    trials = []
    for lr, factor in itertools.product(lrs, factors):
        folder = root / "tuning" / f"{slug(scheme)}-k{k}-lr{lr:g}-aux{factor:g}"
        values: dict[str, Any] = {"lr": lr, "aux_lr_factor": factor, "threads": threads, "out": folder}
        trials.append(Run(base.replace(**values), root, resolved))
    return trials
