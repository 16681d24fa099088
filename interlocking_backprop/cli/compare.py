"""``ibp compare``."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from rich.table import Table

from interlocking_backprop.cli.arguments import given, parse
from interlocking_backprop.cli.failure import fail
from interlocking_backprop.cli.terminal import console
from interlocking_backprop.compare.comparison import Comparer, Interrupted
from interlocking_backprop.compare.config import CompareConfig
from interlocking_backprop.compare.report import write_report
from interlocking_backprop.compare.report.formatting import known, significant, size
from interlocking_backprop.compare.report.summary import Summary, summarize
from interlocking_backprop.compare.results import Comparison
from interlocking_backprop.training.run_checks import check_run


def compare(arguments: Sequence[str]) -> int:
    """Compares schemes; returns the exit code: 1 if a run or a measurement did not come to its end."""
    config = read_config(arguments)
    for scheme in config.schemes:
        for k in config.components:
            check_run(config.run(scheme=scheme, components=k), given(arguments))
    output = console(width=160)
    try:
        comparison, problems = Comparer(config, output).compare()
    except Interrupted:
        output.print(f"stopped; go on with: {shlex.join(['ibp', 'compare', *arguments])}", soft_wrap=True, markup=False)
        return 130
    page = write_report(comparison, config.out)
    output.print(table(comparison))
    output.print(str(page), soft_wrap=True, markup=False)
    for problem in problems:
        fail(problem, code=1)
    return 1 if problems else 0


def read_config(arguments: Sequence[str]) -> CompareConfig:
    """The configuration from the command line.

    Raises:
        ValueError: if a flag does not fit.
    """
    return parse(CompareConfig, arguments, prog="ibp compare")


def table(comparison: Comparison) -> Table:
    """A row for each scheme and number of components."""
    summary = summarize(comparison)
    metric = summary.metric
    made = Table(title=f"{metric.label} on the test set, mean ± std (n)", title_justify="left")
    for name in ("scheme", "K", metric.words, "ms a step here", "ms a step on K devices", "M", "peak memory here"):
        made.add_column(name, justify="left" if name == "scheme" else "right")
    for cells in _cells(summary):
        made.add_row(*cells)
    return made


def _step(seconds: float, std: float) -> str:
    return known(seconds, lambda seconds: f"{significant(1e3 * seconds)} ± {significant(1e3 * std, 2)}")


def _cells(summary: Summary) -> list[list[str]]:
    return [
        [
            summary.label(row.components, row.scheme),
            str(row.components),
            f"{summary.metric.spread(row.mean, row.std)} ({row.n_finished})",
            _step(row.measured_step_seconds, row.measured_step_std),
            known(1e3 * row.modelled_step_seconds, significant),
            known(row.modelled_microbatches, str),
            known(row.measured_peak_bytes, size),
        ]
        for row in summary.results.itertuples()
    ]
