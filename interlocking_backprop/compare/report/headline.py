"""What a comparison found, in a few sentences that say no more than the numbers do."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from interlocking_backprop.compare.report import formatting as f
from interlocking_backprop.compare.report.summary import REFERENCE, Summary, of

_Row = Any  # of `Summary.results`


def headline(summary: Summary) -> list[str]:
    """A sentence for each number of components."""
    return [f"At K = {k}{_finding(summary, k)}." for k in summary.components]


def caveats(summary: Summary) -> list[str]:
    """How far the headline can be trusted."""
    lines, n_unfinished = [], len(summary.unfinished)
    if n_unfinished:
        lines.append(
            f"{n_unfinished} of {len(summary.runs)} runs did not finish. They are listed below with their reasons, and "
            "no mean contains them."
        )
    known = summary.results.dropna(subset=["gap_high"])
    if len(known):
        fewest, most = known["gap_n"].min(), known["gap_n"].max()
        half = summary.metric.difference((known["gap_high"] - known["gap_to_e2e"]).median(), "")
        lines.append(
            f"An interval covers the difference to e2e with {f.LEVEL} confidence, from "
            f"n = {fewest}{'' if fewest == most else f' to {most}'} seeds, and half of the intervals are wider than "
            f"± {half}: smaller differences cannot be seen here, and “no clear difference” does not mean “equal”. The "
            "intervals are not corrected for their number."
        )
    elif REFERENCE in summary.comparison.schemes and summary.runs["is_finished"].any():
        lines.append("With fewer than two seeds there is no interval, and a difference may be chance.")
    if (known["gap_n"] == 2).any():
        lines.append("Two seeds can show a clear difference, but not that there is none: that takes three or more.")
    return lines


def twins(summary: Summary) -> list[str]:
    """Which schemes are one and the same, and what their times, measured apart, tell of the noise of all times."""
    comparison, sentences = summary.comparison, []
    for k in summary.components:
        names: dict[str, list[str]] = {}
        for twin in comparison.twins:
            if twin.components == k:
                names.setdefault(twin.first, []).append(twin.scheme)
        for first, others in names.items():
            verb = "is" if len(others) == 1 else "are"
            text = f"At K = {k}, {f.few(others)} {verb} the same as {first}, and shown once."
            profiles = [p for p in comparison.profiles if p.components == k and p.name in (first, *others)]
            times = [profile.step_seconds for profile in profiles]
            if len(times) > 1:
                least, most = min(times), max(times)
                text += (
                    f" Their steps, measured apart, take {f.seconds(least)} to {f.seconds(most)}: measured times that "
                    f"differ by {100 * (most / least - 1):.0f} % or less do not tell schemes apart."
                )
            sentences.append(text)
    return sentences


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
        never = overtaken.pop(None, None)
        parts = [f"from M = {m} than {f.few(names, len(rows))}" for m, names in sorted(overtaken.items())]
        text = f"an e2e pipeline is faster {', '.join(parts)}" if parts else "no e2e pipeline is"
        if never:
            text += f"{', and never' if parts else ''} faster than {f.few(never, len(rows))}"
        tried = ", ".join(map(str, sorted(e2e["modelled_microbatches"].unique())))
        sentences.append(f"At K = {k}, of the M that were tried for e2e ({tried}), {text}.")
    return sentences


def _finding(summary: Summary, k: int) -> str:
    metric, rows = summary.metric, of(summary.results.dropna(subset=["mean"]), k)
    rows = rows.assign(
        advantage=rows["gap_to_e2e"] * (1 if metric.maximize else -1),
        speedup=rows["modelled_speedup_over_fastest_e2e"].fillna(0),
        rate=rows["modelled_samples_per_second"].fillna(0),
    )
    others = list(rows.dropna(subset=["gap_to_e2e"]).itertuples())
    if others or rows.empty:
        return f", {_against_reference(others, metric)}" if others else " no run finished"
    best, *rest = rows.sort_values("mean", ascending=not metric.maximize, kind="stable").itertuples()
    score = metric.spread(best.mean, best.std) + (" %" if metric.is_share else "")
    text = f", {best.scheme} has a test {metric.words} of {score} (n = {best.n_finished})"
    if not rest:
        return f"{text}; nothing else finished that it could be compared with"
    text += ", the best; there is no e2e to compare with"
    fast = max([best, *rest], key=lambda row: row.rate)
    also = "it is also" if fast is best else f"{fast.scheme} is"
    speed = f", and {also} the fastest in the model, at {f.significant(fast.rate)} samples/s"
    return text + (speed if fast.rate else "")


def _against_reference(rows: list[_Row], metric: f.Metric) -> str:
    verdicts = ("better", "no clear difference", "worse")
    better, level, worse = ([row for row in rows if row.verdict == verdict] for verdict in verdicts)
    near = max(rows, key=lambda row: row.advantage)
    found = f"({_gap(near, metric)}){_speed(near)}"
    if len(level) == len(rows) > 1:
        text = f"no scheme shows a clear difference from e2e in {metric.words}; {near.scheme} has the best mean of the "
        fast = max(rows, key=lambda row: row.speedup)
        if fast is near or not fast.speedup:
            return f"{text}others {found}"
        return f"{text}others {found}, and {fast.scheme} is the fastest, {f.times(fast.speedup)} ({_gap(fast, metric)})"
    if not better + level:
        all_worse = len(worse) == len(rows) > 1
        how = "is clearly worse than" if near in worse and not all_worse else "comes closest to"
        text = f"{near.scheme} {how} e2e in {metric.words} {found}"
        return f"all others are clearly worse than e2e; {text}" if all_worse else text
    # The fastest of those that may be as good as e2e, as far as one can name it in good faith: not one of which a run
    # was lost, nor one whose interval reaches zero only because it is so wide that its mean is below a worse scheme's.
    bound = max((row.advantage for row in worse), default=-math.inf)
    sound = [row for row in better + level if row.n_finished == row.n_runs and row.advantage > bound]
    pick = max(sound or better + level, key=lambda row: (row.speedup, row.advantage))
    how = "is clearly better than" if pick in better else "shows no clear difference from"
    text = f"{pick.scheme} {how} e2e in {metric.words} ({_gap(pick, metric)}){_speed(pick)}"
    for words in ("clearly better", "no clear difference", "too few seeds to tell", "clearly worse"):
        names = [row.scheme for row in rows if row.verdict == words.removeprefix("clearly ") and row is not pick]
        text += f"; {words}: {f.few(names)}" if names else ""
    return text


def _gap(row: _Row, metric: f.Metric) -> str:
    interval = f", {f.LEVEL} interval {metric.number(row.gap_low, '+')} to {metric.number(row.gap_high, '+')}"
    return f"{metric.difference(row.gap_to_e2e)}{'' if pd.isna(row.gap_low) else interval}, n = {row.gap_n}"


def _speed(row: _Row) -> str:
    how = "and is modelled to train {} as fast as"
    if row.speedup < 1:
        how = "but is modelled to train at only {} the speed of"
    text = f" {how.format(f.times(row.speedup))} the fastest e2e pipeline ({row.modelled_fastest_e2e})"
    return text if row.speedup else ""
