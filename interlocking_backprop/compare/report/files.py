"""results.csv and runs.jsonl: what the page shows, for programs."""

from __future__ import annotations

import csv
import io
import json
import math
from typing import Any

from interlocking_backprop.compare.report.summary import Row, Summary, is_finished


def results_csv(summary: Summary) -> str:
    """A line for each scheme and number of components.

    Scores, gaps and shares are as they were measured (an accuracy is a share of 1), times in seconds, sizes in bytes.
    What is not known is empty.
    """
    n_exits = max((len(row.exits) for row in summary.rows), default=0)
    rows = [_columns(summary, row, n_exits) for row in summary.rows]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def runs_jsonl(summary: Summary) -> str:
    """A line for each run."""
    return "".join(json.dumps(_plain(_run(run)), allow_nan=False) + "\n" for run in summary.runs)


def _columns(summary: Summary, row: Row, n_exits: int) -> dict[str, Any]:
    exits = [*row.exits, *[None] * (n_exits - len(row.exits))]
    profile, estimate, gap = row.profile, row.estimate, row.gap
    status = [run.status for run in row.runs]
    return {
        "scheme": row.scheme,
        "components": row.components,
        "metric": summary.comparison.metric,
        "n_runs": len(row.runs),
        "n_finished": sum(is_finished(run) for run in row.runs),
        "n_diverged": status.count("diverged"),
        "n_failed": status.count("failed"),
        "mean": row.score.mean,
        "std": row.score.std,
        "gap_to_e2e": gap and gap.mean,
        "gap_low": gap and gap.low,
        "gap_high": gap and gap.high,
        "gap_n": gap and gap.n,
        "gap_paired": gap and gap.paired,
        "lr": " ".join(f"{v!r}" for v in sorted({run.lr for run in row.runs})),
        "aux_lr_factor": " ".join(f"{v!r}" for v in sorted({run.aux_lr_factor for run in row.runs})),
        "measured_step_seconds": profile and profile.step_seconds,
        "measured_step_std": profile and profile.step_std,
        "measured_step_relative_to_e2e": row.relative_seconds,
        "measured_peak_bytes": profile and profile.peak_bytes,
        "passes": profile and " ".join(f"{kind}:{count:g}" for kind, count in profile.passes.items()),
        "modelled_name": estimate and estimate.name,
        "modelled_microbatches": estimate and estimate.microbatches,
        "modelled_step_seconds": estimate and estimate.step_seconds,
        "modelled_units": estimate and estimate.units,
        "modelled_utilization": estimate and estimate.utilization,
        "modelled_samples_per_second": row.throughput,
        "modelled_speedup_over_fastest_e2e": row.speedup,
        "modelled_peak_bytes_of_fullest_device": estimate and estimate.peak_bytes,
        "modelled_peak_graphs": estimate and estimate.peak_graphs,
        "modelled_sent_bytes": estimate and estimate.sent_bytes,
        **{f"exit_{i}_mean": e and e.mean for i, e in enumerate(exits)},
        **{f"exit_{i}_std": e and e.std for i, e in enumerate(exits)},
    }


def _run(run: Any) -> dict[str, Any]:
    return {**vars(run), "curve": [point._asdict() for point in run.curve]}


def _plain(value: Any) -> Any:
    """Without infinities and NaN, for which JSON has no word."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
