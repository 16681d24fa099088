"""What a comparison found, in a few sentences that say no more than the numbers do."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from interlocking_backprop.compare.report import formatting as f
from interlocking_backprop.compare.report.summary import REFERENCE, Summary, of

_Row = Any  # of `Summary.results`
_CLEAR = ("better", "worse")


def headline(summary: Summary) -> list[str]:
    """A sentence for each number of components."""
    return [f"At K = {k}{_finding(summary, k)}." for k in summary.components]


def caveats(summary: Summary) -> list[str]:
    """How far the headline can be trusted."""
    lines, metric = [], summary.metric
    if len(summary.unfinished):
        lines.append(
            f"{len(summary.unfinished)} of {len(summary.runs)} runs did not finish. They are listed below with their "
            "reasons, and no mean contains them."
        )
    known = summary.results.dropna(subset=["gap_high"])
    if len(known):
        fewest, most = known["gap_n"].min(), known["gap_n"].max()
        half = (known["gap_high"] - known["gap_to_e2e"]).median()
        lines.append(
            f"An interval covers the difference to e2e with {f.LEVEL} confidence, from "
            f"n = {fewest}{'' if fewest == most else f' to {most}'} seeds, and half of the intervals are wider than "
            f"± {metric.number(half)}{metric.unit}: smaller differences cannot be seen here, and “no clear difference” "
            "does not mean “equal”. The intervals are not corrected for their number."
        )
    elif REFERENCE in summary.comparison.schemes and summary.runs["is_finished"].any():
        lines.append("With fewer than two seeds there is no interval, and a difference may be chance.")
    if (known["gap_n"] == 2).any():
        lines.append("Two seeds can show a clear difference, but not that there is none: that takes three or more.")
    return lines


def crossings(summary: Summary) -> list[str]:
    """From how many micro-batches on a pipeline of e2e is faster than which scheme, for each number of components."""
    sentences = []
    for k in summary.components:
        e2e = of(summary.modelled[summary.modelled["scheme"] == REFERENCE], k)
        rows = of(summary.results[summary.results["scheme"] != REFERENCE], k).dropna(subset=["modelled_step_seconds"])
        if rows.empty or e2e.empty:
            continue
        overtaken: dict[int | None, list[str]] = {}
        for row in rows.itertuples():
            faster = e2e.loc[e2e["modelled_step_seconds"] < row.modelled_step_seconds, "modelled_microbatches"]
            overtaken.setdefault(min(faster, default=None), []).append(row.scheme)
        never = f.few(overtaken.pop(None, []), len(rows))
        parts = [f"from M = {m} than {f.few(names, len(rows))}" for m, names in sorted(overtaken.items())]
        tried = ", ".join(map(str, sorted(e2e["modelled_microbatches"].unique())))
        text = f"an e2e pipeline is faster {', '.join(parts)}" if parts else f"no e2e pipeline is faster than {never}"
        text += f", and never faster than {never}" if parts and never else ""
        sentences.append(f"At K = {k}, of the M that were tried for e2e ({tried}), {text}.")
    return sentences


def _finding(summary: Summary, k: int) -> str:
    metric = summary.metric
    rows = list(of(summary.results.dropna(subset=["mean"]), k).itertuples())
    others = [row for row in rows if not pd.isna(row.gap_to_e2e)]
    if others or not rows:
        return f", {_against_reference(others, metric)}" if rows else " no run finished"
    best = max(rows, key=lambda row: row.mean if metric.maximize else -row.mean)
    score = metric.spread(best.mean, best.std) + (" %" if metric.is_share else "")
    text = f", {best.scheme} has a test {metric.words} of {score} (n = {best.n_finished})"
    if len(rows) == 1:
        return f"{text}; nothing else finished that it could be compared with"
    text += ", the best; there is no e2e to compare with"
    fast = max(rows, key=lambda row: _or_0(row.modelled_samples_per_second))
    if speed := _or_0(fast.modelled_samples_per_second):
        also = "it is also" if fast is best else f"{fast.scheme} is"
        text += f", and {also} the fastest in the model, at {f.significant(speed)} samples/s"
    return text


def _against_reference(rows: list[_Row], metric: f.Metric) -> str:
    def advantage(row: _Row) -> float:
        return float(row.gap_to_e2e if metric.maximize else -row.gap_to_e2e)

    def speedup(row: _Row) -> float:
        return _or_0(row.modelled_speedup_over_fastest_e2e)

    better, level, worse = (
        [row for row in rows if row.verdict == v] for v in ("better", "no clear difference", "worse")
    )
    near = max(rows, key=advantage)
    closest = f"e2e in {metric.words} ({_gap(near, metric)}){_speed(near)}"
    if len(level) == len(rows) > 1:
        text = f"no scheme shows a clear difference from e2e in {metric.words}; {near.scheme} has the best mean of the "
        text += f"others ({_gap(near, metric)}){_speed(near)}"
        fast = max(rows, key=speedup)
        if fast is near or not speedup(fast):
            return text
        return f"{text}, and {fast.scheme} is the fastest, {f.times(speedup(fast))} ({_gap(fast, metric)})"
    if not better + level:
        if len(worse) == len(rows) > 1:
            return f"all others are clearly worse than e2e; {near.scheme} comes closest to {closest}"
        return f"{near.scheme} {'is clearly worse than' if near in worse else 'comes closest to'} {closest}"
    # The fastest of those that may be as good as e2e, as far as one can name it in good faith: not one of which a run
    # was lost, nor one whose interval reaches zero only because it is so wide that its mean is below a worse scheme's.
    bound = max(map(advantage, worse), default=-math.inf)
    sound = [row for row in better + level if row.n_finished == row.n_runs and advantage(row) > bound]
    pick = max(sound or better + level, key=lambda row: (speedup(row), advantage(row)))
    how = "is clearly better than" if pick in better else "shows no clear difference from"
    text = f"{pick.scheme} {how} e2e in {metric.words} ({_gap(pick, metric)}){_speed(pick)}"
    for verdict in ("better", "no clear difference", "too few seeds to tell", "worse"):
        names = [row.scheme for row in rows if row.verdict == verdict and row is not pick]
        text += f"; {'clearly ' * (verdict in _CLEAR)}{verdict}: {f.few(names)}" if names else ""
    return text


def _gap(row: _Row, metric: f.Metric) -> str:
    text = f"{metric.number(row.gap_to_e2e, '+')}{metric.unit}"
    if not pd.isna(row.gap_low):
        text += f", {f.LEVEL} interval {metric.number(row.gap_low, '+')} to {metric.number(row.gap_high, '+')}"
    return f"{text}, n = {row.gap_n}"


def _speed(row: _Row) -> str:
    speedup = _or_0(row.modelled_speedup_over_fastest_e2e)
    how = "and is modelled to train" if speedup >= 1 else "but is modelled to train at only"
    than = "as fast as" if speedup >= 1 else "the speed of"
    return f" {how} {f.times(speedup)} {than} the fastest e2e pipeline ({row.modelled_fastest_e2e})" if speedup else ""


def _or_0(value: float) -> float:
    return 0.0 if pd.isna(value) else float(value)
