"""What the runs of a comparison come to; everything that the report shows is taken from here."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from interlocking_backprop.compare.results import Comparison, Estimate, Profile, RunResult
from interlocking_backprop.compare.statistics import Gap, Spread, gap, spread

REFERENCE = "e2e"


@dataclass(frozen=True, kw_only=True)
class Curve:
    """The validation metric in the course of training, over the finished runs.

    Attributes:
        epochs: done, at each point.
        steps: taken, at each point.
        scores: of the runs.
    """

    epochs: tuple[int, ...]
    steps: tuple[float, ...]
    scores: tuple[Spread, ...]


@dataclass(frozen=True, kw_only=True)
class Row:
    """A scheme at a number of components.

    Attributes:
        scheme: its name.
        components: K.
        runs: all of them, by seed.
        score: on the test set, over the finished runs.
        gap: of the score to that of e2e; None for e2e itself and where either has no score.
        exits: the test scores of each component's exit; None without a head.
        curve: None without a finished run that was validated.
        profile: of the scheme on one device; None if it was not measured.
        relative_seconds: time of a step on one device over that of e2e.
        estimate: of the scheme on K devices, with the micro-batches that suit it best.
        throughput: samples per second on K devices.
        speedup: throughput over that of the fastest pipeline of e2e.
        clock: the fastest estimate of anything that trains as the scheme does.
        overtaken_at: the fewest micro-batches with which a pipeline of e2e is faster than the scheme at its best.
    """

    scheme: str
    components: int
    runs: tuple[RunResult, ...]
    score: Spread
    gap: Gap | None
    exits: tuple[Spread | None, ...]
    curve: Curve | None
    profile: Profile | None
    relative_seconds: float | None
    estimate: Estimate | None
    throughput: float | None
    speedup: float | None
    clock: Estimate | None
    overtaken_at: int | None

    @property
    def is_reference(self) -> bool:
        return self.scheme == REFERENCE


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Everything at one number of components.

    Attributes:
        components: K.
        rows: one for each scheme, in the order in which they were asked for.
        profiles: all that was measured, of schemes and baselines.
        estimates: the best of each name, of schemes and baselines.
        sweep: all estimates, by name, with rising numbers of micro-batches.
        fastest_e2e: the fastest pipeline of e2e.
    """

    components: int
    rows: tuple[Row, ...]
    profiles: tuple[Profile, ...]
    estimates: tuple[Estimate, ...]
    sweep: dict[str, tuple[Estimate, ...]]
    fastest_e2e: Estimate | None

    @property
    def reference(self) -> Row | None:
        return next((row for row in self.rows if row.is_reference), None)

    @property
    def baselines(self) -> tuple[Estimate, ...]:
        """The estimates of what is no scheme of its own."""
        schemes = {row.scheme for row in self.rows}
        return tuple(estimate for estimate in self.estimates if estimate.name not in schemes)


@dataclass(frozen=True)
class Summary:
    """A comparison and what it comes to.

    Attributes:
        comparison: as it was.
        panels: one for each number of components.
    """

    comparison: Comparison
    panels: tuple[Panel, ...]

    @property
    def rows(self) -> list[Row]:
        return [row for panel in self.panels for row in panel.rows]

    @property
    def runs(self) -> list[RunResult]:
        return [run for row in self.rows for run in row.runs]

    @property
    def unfinished(self) -> list[RunResult]:
        return [run for run in self.runs if not is_finished(run)]

    @property
    def has_reference(self) -> bool:
        return REFERENCE in self.comparison.schemes


def summarize(comparison: Comparison) -> Summary:
    """Puts together what belongs together."""
    return Summary(comparison, tuple(_panel(comparison, k) for k in dict.fromkeys(comparison.components)))


def is_finished(run: RunResult) -> bool:
    """Whether a run has a score that can be counted."""
    return run.status == "finished" and run.score is not None and math.isfinite(run.score)


def why_unfinished(run: RunResult) -> str:
    """The reason why a run has no score that can be counted."""
    if run.reason or run.status != "finished":
        return run.reason or "no reason was recorded"
    return f"its test score is {run.score}"


def _panel(comparison: Comparison, k: int) -> Panel:
    sweep: dict[str, tuple[Estimate, ...]] = {}
    for estimate in sorted((e for e in comparison.estimates if e.components == k), key=lambda e: e.microbatches):
        sweep[estimate.name] = (*sweep.get(estimate.name, ()), estimate)
    schemes = tuple(dict.fromkeys(comparison.schemes))
    names = [*(name for name in schemes if name in sweep), *sorted(sweep.keys() - set(schemes))]
    estimates = {name: _fastest([e for e in sweep[name] if e.is_best] or sweep[name]) for name in names}
    profiles = tuple(profile for profile in comparison.profiles if profile.components == k)
    fastest_e2e = _fastest(e for e in estimates.values() if e and e.scheme == REFERENCE)
    reference = _scores(_runs(comparison, REFERENCE, k))
    return Panel(
        components=k,
        rows=tuple(_row(comparison, s, k, profiles, estimates, fastest_e2e, reference) for s in schemes),
        profiles=profiles,
        estimates=tuple(e for e in estimates.values() if e),
        sweep={name: sweep[name] for name in names},
        fastest_e2e=fastest_e2e,
    )


def _row(
    comparison: Comparison,
    scheme: str,
    k: int,
    profiles: Iterable[Profile],
    estimates: dict[str, Estimate | None],
    fastest_e2e: Estimate | None,
    reference: dict[int, float],
) -> Row:
    runs = _runs(comparison, scheme, k)
    scores = _scores(runs)
    by_name = {profile.name: profile for profile in profiles}
    profile, e2e = by_name.get(scheme), by_name.get(REFERENCE)
    clock = _fastest(e for e in estimates.values() if e and e.scheme == scheme)
    estimate = estimates.get(scheme) or clock
    return Row(
        scheme=scheme,
        components=k,
        runs=runs,
        score=spread(scores.values()),
        gap=None if scheme == REFERENCE else gap(scores, reference),
        exits=_exits([run for run in runs if is_finished(run)]),
        curve=_curve([run for run in runs if is_finished(run)]),
        profile=profile,
        relative_seconds=profile.step_seconds / e2e.step_seconds if profile and e2e else None,
        estimate=estimate,
        throughput=comparison.batch_size / estimate.step_seconds if estimate else None,
        speedup=fastest_e2e.step_seconds / estimate.step_seconds if estimate and fastest_e2e else None,
        clock=clock,
        overtaken_at=min(
            (
                e.microbatches
                for e in comparison.estimates
                if estimate and e.components == k and e.scheme == REFERENCE and e.step_seconds < estimate.step_seconds
            ),
            default=None,
        ),
    )


def _fastest(estimates: Iterable[Estimate | None]) -> Estimate | None:
    return min((e for e in estimates if e), key=lambda e: e.step_seconds, default=None)


def _runs(comparison: Comparison, scheme: str, k: int) -> tuple[RunResult, ...]:
    runs = [run for run in comparison.runs if run.scheme == scheme and run.components == k]
    return tuple(sorted(runs, key=lambda run: run.seed))


def _scores(runs: Iterable[RunResult]) -> dict[int, float]:
    return {run.seed: run.score for run in runs if is_finished(run) and run.score is not None}


def _exits(runs: list[RunResult]) -> tuple[Spread | None, ...]:
    columns = zip(*(run.exits for run in runs), strict=True)
    values = ([v for v in column if v is not None and math.isfinite(v)] for column in columns)
    return tuple(spread(column) if column else None for column in values)


def _curve(runs: list[RunResult]) -> Curve | None:
    """Over the epochs that all runs were validated at, so that a mean is always of the same runs."""
    by_epoch = [{p.epoch: p for p in run.curve if math.isfinite(p.score)} for run in runs]
    epochs = sorted(set.intersection(*(set(points) for points in by_epoch))) if by_epoch else []
    if not epochs:
        return None
    columns = [[points[epoch] for points in by_epoch] for epoch in epochs]
    return Curve(
        epochs=tuple(epochs),
        steps=tuple(sum(p.step for p in column) / len(column) for column in columns),
        scores=tuple(spread(p.score for p in column) for column in columns),
    )
