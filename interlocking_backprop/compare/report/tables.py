"""The tables of the page: data frames, and how their columns are shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
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
        field: of the frame that is shown, and by which its rows are sorted.
        show: makes the text of a cell from the field.
        note: makes a second, smaller line from the row.
        hint: what the column means, in a few words.
        show_row: makes the text from the row in place of ``show``, also where the field is missing.
        is_text: whether its cells are sentences, not numbers.
    """

    title: str
    field: str
    show: Callable[[Any], str] = str
    note: Callable[[Any], str] | None = None
    hint: str = ""
    show_row: Callable[[Any], str] | None = None
    is_text: bool = False

    def cell(self, row: Any) -> tuple[str, Any, str, str]:
        """The text, the number behind it, the note, and a class of the style sheet."""
        value = getattr(row, self.field)
        text = self.show_row(row) if self.show_row else f.known(value, self.show)
        note = self.note(row) if self.note and text != f.NOTHING else ""
        style = next((word for word in (text, note.split(",")[0]) if word in _STYLES), "")
        return text, None if isinstance(value, str) or pd.isna(value) else value, note, style


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


def _units(row: Any) -> str:
    # Where the scheme itself has no estimate, that of a pipeline which trains alike.
    return f"{row.modelled_units:.2f} units" + ("" if row.modelled_name == row.scheme else f", {row.modelled_name}")


_RUN = (Column("K", "components"), Column("Seed", "seed"), Column("Status", "status"))
_RATES = (Column("Learning rate", "lr", "{:g}".format), Column("Factor of the heads", "aux_lr_factor", "{:g}".format))
_MEASURED = (
    Column(
        "Step",
        "measured_step_seconds",
        note=lambda row: f.times_e2e(row.measured_step_relative_to_e2e),
        hint="median time of a training step ± standard deviation; how many times that of e2e",
        show_row=lambda row: f.seconds(row.measured_step_seconds, row.measured_step_std),
    ),
    Column("Peak memory", "measured_peak_bytes", f.size, hint="activations, gradients and temporary tensors at once"),
    Column("Passes", "passes", lambda passes: passes.replace(":", "\u00a0"), hint="actions per step, by kind"),
)
_MODELLED = (
    Column("Step", "modelled_step_seconds", f.seconds, _units, "units are mean forward times of a component"),
    Column(
        "Throughput",
        "modelled_samples_per_second",
        lambda rate: f"{f.significant(rate)}/s",
        lambda row: f.times_e2e(row.modelled_speedup_over_fastest_e2e),
        "samples per second, and how many times that of the fastest e2e pipeline",
    ),
    Column("M", "modelled_microbatches", hint="micro-batches per step"),
    Column("Busy", "modelled_utilization", f.share, hint="share of the devices' time in which they compute"),
    Column(
        "Memory",
        "modelled_peak_bytes_of_fullest_device",
        f.size,
        lambda row: f.count(row.modelled_peak_graphs, "graph"),
        "activations and gradients on the fullest device",
    ),
    Column("Sent", "modelled_sent_bytes", f.size, hint="by all devices together per step"),
)


def results_table(summary: Summary, k: int) -> Table:
    """A row for each scheme: its score, what it costs here, and what it would cost on K devices."""
    metric, rows = summary.metric, of(summary.results, k)
    if rows["gap_to_e2e"].notna().any():
        # Where rows are sorted, e2e stands at no gap to itself.
        rows = rows.assign(gap_to_e2e=rows["gap_to_e2e"].mask(rows["scheme"] == REFERENCE, 0.0))
    score_hint = f"mean ± standard deviation over seeds (n); {'more' if metric.maximize else 'less'} is better"
    gap_hint = f"difference of means and its {f.LEVEL} confidence interval"
    score = Column(metric.heading, "mean", note=_lost, hint=score_hint, show_row=partial(_score, metric))
    gap = Column("Gap to e2e", "gap_to_e2e", note=_certainty, hint=gap_hint, show_row=partial(_gap, metric))
    columns = {
        "On the test set": (score, *_known(rows, gap)),
        "Measured here, one device": _known(rows, *_MEASURED),
        f"Modelled, {k} devices": _known(rows, *_MODELLED),
    }
    return Table(f"results-k{k}", f"K = {k} components", rows, {group: some for group, some in columns.items() if some})


def exits_table(summary: Summary, k: int) -> Table:
    """The score of each exit, for those who cannot see the picture."""

    def text(i: int, row: Any) -> str:
        return summary.metric.spread(getattr(row, f"exit_{i}_mean"), getattr(row, f"exit_{i}_std"))

    titles = [*map(str, range(k - 1)), f"{k - 1} (network)"]
    exits = [Column(title, f"exit_{i}_mean", show_row=partial(text, i)) for i, title in enumerate(titles)]
    caption = f"Test {summary.metric.label} of each exit, K = {k}"
    return Table(f"exits-k{k}", caption, of(summary.results, k), {"Exit": exits})


def pipelines_table(summary: Summary, k: int) -> Table:
    """The pipelines of e2e, and what else was modelled that is no scheme of its own."""
    rows = _baselines(summary, of(summary.fastest, k), "modelled_name")
    caption = f"Modelled on {k} devices, each with the M that suits it best"
    return Table(f"pipelines-k{k}", caption, rows, {"": _MODELLED}, "Pipeline")


def profiles_table(summary: Summary, k: int) -> Table:
    """What was measured on one device of e2e, and of all that is no scheme of its own."""
    rows = _baselines(summary, of(summary.measured, k), "measured_name")
    columns = (Column("M", "measured_microbatches"), *_MEASURED, Column("Steps timed", "measured_n_steps"))
    return Table(f"profiles-k{k}", f"Measured here on one device, K = {k}", rows, {"": columns}, "Variant")


def tuned_table(summary: Summary) -> Table:
    """Learning rates and factors of the heads."""
    rows = summary.runs.drop_duplicates(["scheme", "components", "lr", "aux_lr_factor"])
    return Table("tuned", "Settings that differ between schemes", rows, {"": (_RUN[0], *_RATES)})


def unfinished_table(summary: Summary) -> Table:
    """The runs that did not finish, with their reasons."""
    caption = f"{len(summary.unfinished)} of {len(summary.runs)} runs"
    return Table("unfinished", caption, summary.unfinished, {"": (*_RUN, Column("Reason", "reason", is_text=True))})


def runs_table(summary: Summary) -> Table:
    """Every run."""
    score = Column(summary.metric.heading, "score", summary.metric.number)
    took = (Column("Steps", "steps", "{:,}".format), Column("Took", "seconds", f.seconds))
    columns = (*_RUN, score, *_RATES, *took, Column("Folder", "folder", is_text=True))
    return Table("runs", "Every run", summary.runs, {"": columns})


def _known(rows: pd.DataFrame, *columns: Column) -> list[Column]:
    """The columns of which anything is known."""
    return [column for column in columns if rows[column.field].notna().any()]


def _baselines(summary: Summary, rows: pd.DataFrame, name: str) -> pd.DataFrame:
    """Rows of e2e and of what is no scheme that was asked for, under their own names."""
    is_baseline = (rows["scheme"] == REFERENCE) | ~rows[name].isin(summary.comparison.schemes)
    return rows[is_baseline].assign(scheme=rows[name])


def _score(metric: f.Metric, row: Any) -> str:
    n = "n = 1" if row.n_finished == 1 else row.n_finished
    return "no score" if pd.isna(row.mean) else f"{metric.spread(row.mean, row.std)} ({n})"


def _lost(row: Any) -> str:
    """What became of the runs that are not in the mean."""
    other = row.n_runs - row.n_finished - row.n_diverged - row.n_failed
    counts = {"diverged": row.n_diverged, "failed": row.n_failed, "without a finite score": other}
    return ", ".join(f"{n} {status}" for status, n in counts.items() if n) or ("" if row.n_runs else "no runs")


def _gap(metric: f.Metric, row: Any) -> str:
    if row.scheme == REFERENCE:
        return "reference"
    text, ends = f.known(row.gap_to_e2e, lambda gap: metric.number(gap, "+")), (row.gap_low, row.gap_high)
    return text if pd.isna(row.gap_low) else f"{text} [{', '.join(metric.number(end, '+') for end in ends)}]"


def _certainty(row: Any) -> str:
    """What the interval of a gap says, and from how many pairs if not from all runs."""
    if row.scheme == REFERENCE:
        return ""
    if pd.isna(row.gap_low):
        return "n = 1, no interval"
    pairs = f", {row.gap_n} pairs" if row.gap_n != row.n_finished else ""
    return f"{row.verdict}{pairs if row.gap_paired else ', not paired'}"
