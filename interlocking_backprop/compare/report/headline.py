"""What a comparison found, in a few sentences that say no more than the numbers do."""

from __future__ import annotations

import math
import statistics

from interlocking_backprop.compare.report import formatting as f
from interlocking_backprop.compare.report.summary import Panel, Row, Summary, is_finished


def headline(summary: Summary) -> list[str]:
    """A sentence for each number of components."""
    metric = f.Metric(summary.comparison.metric, summary.comparison.maximize)
    return [_sentence(panel, metric) for panel in summary.panels]


def caveats(summary: Summary) -> list[str]:
    """How far the headline can be trusted."""
    metric = f.Metric(summary.comparison.metric, summary.comparison.maximize)
    unfinished = len(summary.unfinished)
    lines = []
    if unfinished:
        lines.append(
            f"{unfinished} of {len(summary.runs)} runs did not finish. They are listed below with their reasons, "
            "and no mean contains them."
        )
    halves = [(r.gap.high - r.gap.mean) for r in summary.rows if r.gap and r.gap.high is not None]
    if halves:
        n = sorted({r.gap.n for r in summary.rows if r.gap and r.gap.high is not None})
        lines.append(
            f"An interval covers the difference to e2e with {f.LEVEL} confidence, from {_counts(n)}, and half of the "
            f"intervals are wider than ± {metric.number(statistics.median(halves))}{metric.unit}: smaller differences "
            "cannot be seen here, and “no clear difference” does not mean “equal”. The intervals are not corrected for "
            "their number."
        )
    elif summary.has_reference and any(is_finished(run) for run in summary.runs):
        lines.append("With fewer than two seeds there is no interval, and a difference may be chance.")
    return lines


def _sentence(panel: Panel, metric: f.Metric) -> str:
    where = f"At K = {panel.components}"
    scored = [row for row in panel.rows if row.score.mean is not None]
    if not scored:
        return f"{where} no run finished."
    others = [row for row in scored if row.gap is not None]
    if others:
        return f"{where}, {_against_reference(others, panel, metric)}."
    if len(scored) == 1:
        return f"{where}, {_score(scored[0], metric)}; nothing else finished that it could be compared with."
    best = _best(scored, metric)
    fast = max((row for row in scored if row.throughput), key=lambda row: row.throughput or 0, default=None)
    text = f"{where}, {_score(best, metric)}, the best; there is no e2e to compare with"
    if fast and fast.throughput:
        also = "it is also" if fast is best else f"{fast.scheme} is"
        text += f", and {also} the fastest in the model, at {f.significant(fast.throughput)} samples/s"
    return f"{text}."


def _against_reference(rows: list[Row], panel: Panel, metric: f.Metric) -> str:
    verdicts = {row.scheme: metric.verdict(row.gap) for row in rows if row.gap}
    level = [row for row in rows if verdicts[row.scheme] in ("better", "no clear difference")]
    if len(level) == len(rows) > 1 and "better" not in verdicts.values():
        return _nothing_clear(rows, panel, metric)
    if level:
        pick = _recommended(level, [row for row in rows if row not in level], metric)
        is_better = verdicts[pick.scheme] == "better"
        how = "is clearly better than" if is_better else "shows no clear difference from"
        parts = [f"{pick.scheme} {how} e2e in {metric.words} ({_gap(pick, metric)}){_speed(pick, panel)}"]
        rest = {"better": "clearly better", "no clear difference": "no clear difference", "worse": "clearly worse"}
        for verdict, words in rest.items():
            names = [row.scheme for row in rows if row is not pick and verdicts[row.scheme] == verdict]
            if names:
                parts.append(f"{words}: {f.few(names)}")
        return "; ".join(parts)
    pick = _best(rows, metric)
    closest = f"comes closest to e2e in {metric.words} ({_gap(pick, metric)}){_speed(pick, panel)}"
    if len(rows) > 1 and all(verdict == "worse" for verdict in verdicts.values()):
        return f"all others are clearly worse than e2e; {pick.scheme} {closest}"
    if verdicts[pick.scheme] == "worse":
        return f"{pick.scheme} is clearly worse than e2e in {closest.split(' in ', 1)[1]}"
    return f"{pick.scheme} {closest}"


def _recommended(level: list[Row], worse: list[Row], metric: f.Metric) -> Row:
    """The fastest of those that may be as good as e2e, as far as one can name it in good faith.

    Not a scheme of which a run was lost, nor one whose interval reaches zero only because it is so wide: whose mean is
    below that of a scheme that is clearly worse. If there are only such, one of them.
    """
    bound = max((_advantage(row, metric) for row in worse), default=-math.inf)
    sound = [row for row in level if row.score.n == len(row.runs) and _advantage(row, metric) > bound]
    return max(sound or level, key=lambda row: (row.speedup or 0, _advantage(row, metric)))


def _nothing_clear(rows: list[Row], panel: Panel, metric: f.Metric) -> str:
    near = max(rows, key=lambda row: _advantage(row, metric))
    fast = max(rows, key=lambda row: row.speedup or 0)
    text = f"no scheme shows a clear difference from e2e in {metric.words}; "
    if fast.speedup is None or fast is near:
        return f"{text}{near.scheme} has the best mean of the others ({_gap(near, metric)}){_speed(near, panel)}"
    text += f"{near.scheme} has the best mean of the others ({_gap(near, metric)}){_speed(near, panel)}, "
    return f"{text}and {fast.scheme} is the fastest, {f.times(fast.speedup)} ({_gap(fast, metric)})"


def _score(row: Row, metric: f.Metric) -> str:
    return f"{row.scheme} has a test {metric.words} of {metric.spread(row.score, unit=True)} (n = {row.score.n})"


def _gap(row: Row, metric: f.Metric) -> str:
    assert row.gap is not None
    text = f"{metric.number(row.gap.mean, '+')}{metric.unit}"
    if row.gap.low is not None and row.gap.high is not None:
        text += f", {f.LEVEL} interval {metric.number(row.gap.low, '+')} to {metric.number(row.gap.high, '+')}"
    return f"{text}, n = {row.gap.n}"


def _speed(row: Row, panel: Panel) -> str:
    if row.speedup is None or panel.fastest_e2e is None:
        return ""
    how = "and is modelled to train" if row.speedup >= 1 else "but is modelled to train at only"
    than = "as fast as" if row.speedup >= 1 else "the speed of"
    return (
        f" {how} {f.times(row.speedup)} {than} the fastest e2e pipeline "
        f"({panel.fastest_e2e.name}, M = {panel.fastest_e2e.microbatches})"
    )


def _advantage(row: Row, metric: f.Metric) -> float:
    """By how much a scheme is better than e2e."""
    assert row.gap is not None
    return row.gap.mean if metric.maximize else -row.gap.mean


def _goodness(row: Row, metric: f.Metric) -> float:
    assert row.score.mean is not None
    return row.score.mean if metric.maximize else -row.score.mean


def _best(rows: list[Row], metric: f.Metric) -> Row:
    return max(rows, key=lambda row: _goodness(row, metric))


def _counts(n: list[int]) -> str:
    return f"n = {n[0]} seeds" if len(n) == 1 else f"n = {n[0]} to {n[-1]} seeds"
