"""The tables of the page: data frames, and how their columns are shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pandas as pd

from interlocking_backprop.compare.report import formatting as f
from interlocking_backprop.compare.report.summary import REFERENCE, Summary, of

# The style sheet has classes of these names, for cells that say so.
_STYLES = ("better", "worse", "diverged", "failed", "no score", "reference")


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        title: its heading.
        fields: of the frame that are shown, with spaces between them; its rows are sorted by the first one.
        show: makes the text of a cell from the fields.
        note: makes a second, smaller line from the row.
        missing: the text where the first field is missing.
    """

    title: str
    fields: str
    show: Callable[..., str] = str
    note: Callable[[Any], str] = lambda row: ""
    missing: str = f.NOTHING

    def cell(self, row: Any) -> tuple[str, Any, str, str]:
        """The text, the number behind it, the note, and a class of the style sheet."""
        values = [getattr(row, field) for field in self.fields.split()]
        text = self.missing if pd.isna(values[0]) else self.show(*values)
        note = "" if text == f.NOTHING else self.note(row)
        style = next((word for word in (text, note.split(",")[0]) if word in _STYLES), "")
        return text, None if isinstance(values[0], str) or pd.isna(values[0]) else values[0], note, style


class Table(NamedTuple):
    """A table whose rows are named by their scheme.

    Attributes:
        name: unique on the page.
        caption: what it shows.
        frame: its rows.
        columns: from left to right, below the headings that they share.
        rows_are: the heading of the names.
    """

    name: str
    caption: str
    frame: pd.DataFrame
    columns: dict[str, Sequence[Column]]
    rows_are: str = "Scheme"


def tables(summary: Summary) -> dict[str, list[Table]]:
    """All tables, by what they are about."""
    runs, unfinished, ks = summary.runs, summary.unfinished, summary.components
    tuned = runs.drop_duplicates(["scheme", "components", "lr", "aux_lr_factor"])
    score = Column(summary.metric.heading, "score", summary.metric.number)
    took = (Column("Steps", "steps", "{:,}".format), Column("Took", "seconds", f.seconds), Column("Folder", "folder"))
    count = f"{len(unfinished)} of {len(runs)} runs"
    return {
        "results": [_results(summary, k) for k in ks],
        "exits": [_exits(summary, k) for k in ks],
        "baselines": [table for k in ks for table in _baselines(summary, k)],
        "unfinished": [Table("unfinished", count, unfinished, {"": (*_RUN, Column("Reason", "reason"))})],
        "tuned": [Table("tuned", "Settings that differ between schemes", tuned, {"": (_RUN[0], *_RATES)})],
        "runs": [Table("runs", "Every run", runs, {"": (*_RUN, score, *_RATES, *took)})],
    }


def _results(summary: Summary, k: int) -> Table:
    """A row for each scheme: its score, what it costs here, and what it would cost on K devices."""
    metric, rows = summary.metric, of(summary.results, k)
    if rows["gap_to_e2e"].notna().any():
        # Where rows are sorted, e2e stands at no gap to itself.
        rows = rows.assign(gap_to_e2e=rows["gap_to_e2e"].mask(rows["scheme"] == REFERENCE, 0.0))

    def score(mean: float, std: float, n: int) -> str:
        return f"{metric.spread(mean, std)} ({'n = 1' if n == 1 else n})"

    def gap(difference: float, low: float, high: float, scheme: str) -> str:
        ends = "" if pd.isna(low) else f" [{metric.number(low, '+')}, {metric.number(high, '+')}]"
        return "reference" if scheme == REFERENCE else metric.number(difference, "+") + ends

    on_test = (
        Column(metric.heading, "mean std n_finished", score, _lost, "no score"),
        Column("Gap to e2e", "gap_to_e2e gap_low gap_high scheme", gap, _certainty),
    )
    groups = {"On the test set": on_test, "Measured here, one device": _MEASURED, f"Modelled, {k} devices": _MODELLED}
    known = {
        group: [c for c in columns if c.missing != f.NOTHING or rows[c.fields.split()[0]].notna().any()]
        for group, columns in groups.items()
    }
    return Table(f"results-k{k}", f"K = {k} components", rows, {group: some for group, some in known.items() if some})


def _exits(summary: Summary, k: int) -> Table:
    """The score of each exit, for those who cannot see the picture."""
    titles = [*map(str, range(k - 1)), f"{k - 1} (network)"]
    spread = summary.metric.spread
    exits = [Column(title, f"exit_{i}_mean exit_{i}_std", spread) for i, title in enumerate(titles)]
    caption = f"Test {summary.metric.label} of each exit, K = {k}"
    return Table(f"exits-k{k}", caption, of(summary.results, k), {"Exit": exits})


def _baselines(summary: Summary, k: int) -> list[Table]:
    """What was modelled and measured of e2e, and of all that is no scheme of its own, each under its own name."""
    best, here = f"Modelled on {k} devices, each with the M that suits it best", f"Measured here on one device, K = {k}"
    measured = (Column("M", "measured_microbatches"), *_MEASURED, Column("Steps timed", "measured_n_steps"))
    others = set(summary.comparison.schemes) - {REFERENCE}
    modelled_rows, measured_rows = (
        rows[~rows[name].isin(others)].assign(scheme=rows[name])
        for rows, name in ((of(summary.fastest, k), "modelled_name"), (of(summary.measured, k), "measured_name"))
    )
    return [
        Table(f"pipelines-k{k}", best, modelled_rows, {"": _MODELLED}, "Pipeline"),
        Table(f"profiles-k{k}", here, measured_rows, {"": measured}, "Variant"),
    ]


def _lost(row: Any) -> str:
    """What became of the runs that are not in the mean."""
    other = row.n_runs - row.n_finished - row.n_diverged - row.n_failed
    counts = {"diverged": row.n_diverged, "failed": row.n_failed, "without a score": other}
    return ", ".join(f"{n} {status}" for status, n in counts.items() if n) or ("" if row.n_runs else "no runs")


def _certainty(row: Any) -> str:
    """What the interval of a gap says, and from how many pairs if not from all runs."""
    if row.scheme == REFERENCE or pd.isna(row.gap_low):
        return "" if row.scheme == REFERENCE else "n = 1, no interval"
    pairs = f", {row.gap_n} pairs" if row.gap_n != row.n_finished else ""
    return f"{row.verdict}{pairs if row.gap_paired else ', not paired'}"


def _units(row: Any) -> str:
    # Where the scheme itself has no estimate, that of a pipeline which trains alike.
    return f"{row.modelled_units:.2f} units" + ("" if row.modelled_name == row.scheme else f", {row.modelled_name}")


def _times_e2e(field: str) -> Callable[[Any], str]:
    return lambda row: "" if pd.isna(getattr(row, field)) else f"{f.times(getattr(row, field))} e2e"


_RUN = (Column("K", "components"), Column("Seed", "seed"), Column("Status", "status"))
_RATES = (Column("Learning rate", "lr", "{:g}".format), Column("Factor of the heads", "aux_lr_factor", "{:g}".format))
_MEASURED = (
    Column("Step", "measured_step_seconds measured_step_std", f.seconds, _times_e2e("measured_step_relative_to_e2e")),
    Column("Peak memory", "measured_peak_bytes", f.size),
    Column("Passes", "passes", lambda passes: passes.replace(":", "\u00a0")),
)
_MODELLED = (
    Column("Step", "modelled_step_seconds", f.seconds, _units),
    Column("Throughput", "modelled_samples_per_second", f.rate, _times_e2e("modelled_speedup_over_fastest_e2e")),
    Column("M", "modelled_microbatches"),
    Column("Busy", "modelled_utilization", lambda share: f"{100 * share:.0f} %"),
    Column(
        "Memory",
        "modelled_peak_bytes_of_fullest_device",
        f.size,
        lambda row: f.count(row.modelled_peak_graphs, "graph"),
    ),
    Column("Sent", "modelled_sent_bytes", f.size),
)
