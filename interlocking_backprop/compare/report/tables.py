"""The tables of the page."""

from __future__ import annotations

from collections import Counter

from interlocking_backprop.compare.report import formatting as f
from interlocking_backprop.compare.report.summary import Panel, Row, Summary, is_finished, why_unfinished
from interlocking_backprop.compare.report.table import EMPTY, Cell, Column, Table


def results_table(panel: Panel, metric: f.Metric) -> Table:
    """A row for each scheme: its score, what it costs here, and what it would cost on K devices."""
    k = panel.components
    test, here, model = "On the test set", "Measured here, one device", f"Modelled, {k} devices"
    has_gap = any(row.gap for row in panel.rows)
    has_profile = any(row.profile for row in panel.rows)
    has_estimate = any(row.estimate for row in panel.rows)
    better = "more" if metric.maximize else "less"
    hint = f"mean ± standard deviation over seeds (n); {better} is better"
    columns = [Column("Scheme"), Column(metric.heading, test, hint)]
    if has_gap:
        columns.append(Column("Gap to e2e", test, f"difference of means and its {f.LEVEL} confidence interval"))
    if has_profile:
        columns += [
            Column("Step", here, "median time of a training step ± standard deviation; how many times that of e2e"),
            Column("Peak memory", here, "activations, gradients and temporary tensors alive at once"),
            Column("Passes", here, "actions per step: forward, loss, input gradient, weight gradient, both, …"),
        ]
    if has_estimate:
        columns += [
            Column("Step", model, "modelled time of a step; units are mean forward times of a component"),
            Column("Throughput", model, "samples per second, and how many times that of the fastest e2e pipeline"),
            Column("M", model, "micro-batches per step"),
            Column("Busy", model, "share of the devices' time in which they compute"),
            Column("Memory", model, "activations and gradients on the fullest device"),
            Column("Sent", model, "by all devices together per step"),
        ]
    rows = []
    for row in panel.rows:
        cells = [Cell(row.scheme, kind="name", scheme=row.scheme), score_cell(row, metric)]
        if has_gap:
            cells.append(gap_cell(row, metric))
        if has_profile:
            cells += _profile_cells(row)
        if has_estimate:
            cells += _estimate_cells(row)
        rows.append(cells)
    return Table(f"results-k{k}", f"K = {k} components", columns, rows)


def score_cell(row: Row, metric: f.Metric) -> Cell:
    """Mean ± std (n), and what became of the runs that are not in it."""
    lost = Counter(run.status for run in row.runs if not is_finished(run))
    note = ", ".join(f"{count} {status}" for status, count in sorted(lost.items()))
    if row.score.mean is None:
        return Cell("no score", None, note or "no runs", "worse")
    text = metric.spread(row.score)
    return Cell(f"{text} ({'n = 1' if row.score.n == 1 else row.score.n})", row.score.mean, note)


def gap_cell(row: Row, metric: f.Metric) -> Cell:
    """The difference and its interval."""
    if row.is_reference:
        return Cell("reference", 0.0, kind="quiet")
    if row.gap is None:
        return EMPTY
    text = metric.number(row.gap.mean, "+")
    if row.gap.low is None or row.gap.high is None:
        return Cell(text, row.gap.mean, "n = 1, no interval")
    text += f" [{metric.number(row.gap.low, '+')}, {metric.number(row.gap.high, '+')}]"
    verdict = metric.verdict(row.gap)
    pairs = f"{row.gap.n} pairs" if row.gap.paired else "not paired"
    as_many = row.gap.paired and row.gap.n == row.score.n
    kind = verdict if verdict in ("better", "worse") else ""
    return Cell(text, row.gap.mean, verdict if as_many else f"{verdict}, {pairs}", kind)


def _profile_cells(row: Row) -> list[Cell]:
    profile, relative = row.profile, row.relative_seconds
    if profile is None:
        return [EMPTY] * 3
    time = f.seconds_spread(profile.step_seconds, profile.step_std)
    return [
        Cell(time, profile.step_seconds, "" if relative is None else f"{f.times(relative)} e2e"),
        Cell(f.size(profile.peak_bytes), profile.peak_bytes),
        Cell(f.passes(profile.passes), sum(profile.passes.values())),
    ]


def _estimate_cells(row: Row) -> list[Cell]:
    estimate = row.estimate
    if estimate is None:
        return [EMPTY] * 6
    # Where the scheme itself has no estimate, that of a pipeline which trains alike.
    other = f", {estimate.name}" if estimate.name != row.scheme else ""
    rate = f.NOTHING if row.throughput is None else f"{f.significant(row.throughput)}/s"
    return [
        Cell(f.seconds(estimate.step_seconds), estimate.step_seconds, f"{estimate.units:.2f} units{other}"),
        Cell(rate, row.throughput, "" if row.speedup is None else f"{f.times(row.speedup)} e2e"),
        Cell(str(estimate.microbatches), estimate.microbatches),
        Cell(f.share(estimate.utilization), estimate.utilization),
        Cell(f.size(estimate.peak_bytes), estimate.peak_bytes, f.count(estimate.peak_graphs, "graph")),
        Cell(f.size(estimate.sent_bytes), estimate.sent_bytes),
    ]


def exits_table(panel: Panel, metric: f.Metric) -> Table:
    """The score of each exit, for those who cannot see the picture."""
    k = panel.components
    columns = [Column("Scheme"), *(Column(str(i) if i < k - 1 else f"{i} (network)", "Exit") for i in range(k))]
    rows = []
    for row in panel.rows:
        exits = row.exits or (None,) * k
        cells = [EMPTY if e is None or e.mean is None else Cell(metric.spread(e), e.mean) for e in exits]
        rows.append([Cell(row.scheme, kind="name", scheme=row.scheme), *cells])
    return Table(f"exits-k{k}", f"Test {metric.label} of each exit, K = {k}", columns, rows)


def baselines_table(panel: Panel, batch_size: int) -> Table | None:
    """The pipelines of e2e, and what else was modelled that is no scheme of its own."""
    chosen = [e for e in panel.estimates if e.scheme == "e2e" or e in panel.baselines]
    if not chosen:
        return None
    columns = [
        Column("Pipeline"),
        Column("Step"),
        Column("Throughput"),
        Column("M"),
        Column("Units"),
        Column("Busy"),
        Column("Memory", hint="activations and gradients on the fullest device"),
        Column("Sent"),
    ]
    rows = [
        [
            Cell(e.name, kind="name"),
            Cell(f.seconds(e.step_seconds), e.step_seconds),
            Cell(f"{f.significant(batch_size / e.step_seconds)}/s", batch_size / e.step_seconds),
            Cell(str(e.microbatches), e.microbatches),
            Cell(f"{e.units:.2f}", e.units),
            Cell(f.share(e.utilization), e.utilization),
            Cell(f.size(e.peak_bytes), e.peak_bytes, f.count(e.peak_graphs, "graph")),
            Cell(f.size(e.sent_bytes), e.sent_bytes),
        ]
        for e in chosen
    ]
    k = panel.components
    return Table(f"pipelines-k{k}", f"Modelled on {k} devices, each with the M that suits it best", columns, rows)


def profiles_table(panel: Panel) -> Table | None:
    """What was measured on one device of e2e, and of all that is no scheme of its own."""
    schemes = {row.scheme for row in panel.rows}
    chosen = [p for p in panel.profiles if p.scheme == "e2e" or p.name not in schemes]
    if not chosen:
        return None
    columns = [
        Column("Variant"),
        Column("M"),
        Column("Step"),
        Column("Peak memory"),
        Column("Passes"),
        Column("Steps timed"),
    ]
    rows = [
        [
            Cell(p.name, kind="name", scheme=p.name if p.name in schemes else None),
            Cell(str(p.microbatches), p.microbatches),
            Cell(f.seconds_spread(p.step_seconds, p.step_std), p.step_seconds),
            Cell(f.size(p.peak_bytes), p.peak_bytes),
            Cell(f.passes(p.passes), sum(p.passes.values())),
            Cell(str(p.n_steps), p.n_steps),
        ]
        for p in chosen
    ]
    k = panel.components
    return Table(f"profiles-k{k}", f"Measured here on one device, K = {k}", columns, rows)


def tuned_table(summary: Summary) -> Table | None:
    """Learning rates and factors of the heads, where they differ."""
    if len({(run.lr, run.aux_lr_factor) for run in summary.runs}) < 2:
        return None
    columns = [Column("Scheme"), Column("K"), Column("Learning rate"), Column("Factor of the heads")]
    rows = []
    for row in summary.rows:
        rates, factors = sorted({r.lr for r in row.runs}), sorted({r.aux_lr_factor for r in row.runs})
        if rates:
            rows.append(
                [
                    Cell(row.scheme, kind="name", scheme=row.scheme),
                    Cell(str(row.components), row.components),
                    Cell(", ".join(f"{v:g}" for v in rates), rates[0]),
                    Cell(", ".join(f"{v:g}" for v in factors), factors[0]),
                ]
            )
    return Table("tuned", "Settings that differ between schemes", columns, rows)


def unfinished_table(summary: Summary) -> Table | None:
    """The runs that did not finish, with their reasons."""
    rows = [
        [
            Cell(run.scheme, kind="name", scheme=run.scheme),
            Cell(str(run.components), run.components),
            Cell(str(run.seed), run.seed),
            Cell(run.status, kind="worse"),
            Cell(why_unfinished(run), kind="long"),
        ]
        for run in summary.unfinished
    ]
    columns = [Column("Scheme"), Column("K"), Column("Seed"), Column("Status"), Column("Reason", is_text=True)]
    caption = f"{len(rows)} of {len(summary.runs)} runs"
    return Table("unfinished", caption, columns, rows) if rows else None


def runs_table(summary: Summary, metric: f.Metric) -> Table:
    """Every run."""
    columns = [
        Column("Scheme"),
        Column("K"),
        Column("Seed"),
        Column("Status"),
        Column(metric.heading),
        Column("Learning rate"),
        Column("Factor of the heads"),
        Column("Steps"),
        Column("Took"),
        Column("Folder", is_text=True),
    ]
    rows = [
        [
            Cell(run.scheme, kind="name", scheme=run.scheme),
            Cell(str(run.components), run.components),
            Cell(str(run.seed), run.seed),
            Cell(run.status, kind="" if is_finished(run) else "worse"),
            Cell(metric.number(run.score), run.score) if is_finished(run) and run.score is not None else EMPTY,
            Cell(f"{run.lr:g}", run.lr),
            Cell(f"{run.aux_lr_factor:g}", run.aux_lr_factor),
            Cell(f"{run.steps:,}", run.steps),
            Cell(f.seconds(run.seconds), run.seconds),
            Cell(run.folder, kind="long"),
        ]
        for run in summary.runs
    ]
    return Table("runs", "Every run", columns, rows)
