"""``ibp bench``."""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from rich.table import Table

from interlocking_backprop.bench.engine import ENGINE, Case, Measurement, cases, measure
from interlocking_backprop.cli.arguments import parse
from interlocking_backprop.cli.terminal import console
from interlocking_backprop.common.atomic_files import replacing, write_text
from interlocking_backprop.common.fields import Checked, Expected, at_least, each_at_least
from interlocking_backprop.common.folders import check_folder
from interlocking_backprop.training.run_folder import environment


@dataclass(frozen=True, kw_only=True)
class EngineConfig(Checked):
    """Measures the engine on emulated components: processes that sleep where an accelerator would compute.

    Prints, for each scheme, the units per micro-batch (the time of a component's forward pass is 1), the limit that the
    simulator gives, and their ratio; beside end-to-end backpropagation PyTorch's own schedules on the same components.
    """

    schemes: Annotated[tuple[str, ...], Expected("at least one scheme", bool)] = ("local", "pairwise", "3wise", "e2e")
    """Schemes that are measured, e.g. local pairwise 3wise-sum."""
    components: Annotated[tuple[int, ...], each_at_least(1, 256)] = (4, 8)
    """Numbers of components, each on a process of its own."""
    microbatches: Annotated[tuple[int, ...], each_at_least(1, 1000)] = (2,)
    """Numbers of micro-batches in a step."""
    unit: Annotated[float, Expected("seconds, above 0 and at most 10", lambda value: 0 < value <= 10)] = 0.1
    """Seconds of a component's forward pass of a micro-batch."""
    steps: Annotated[int, at_least(2, 1_000_000)] = 10
    """Steps that are timed, after those that lead to the steady state."""
    peers: bool = True
    """Measures PyTorch's schedules too."""
    bare: bool = False
    """Measures a bare loop of the same passes and messages too, which shows what the host itself takes."""
    out: Path | None = None
    """Folder that engine.json, engine.csv and engine.png are written to."""

    def __post_init__(self) -> None:
        """Checks the values."""
        super().__post_init__()
        self.expect("components", min(self.components) >= 2, "at least 2, one for each process")
        for case in cases(self.schemes, self.components, self.microbatches, peers=False, bare=False):
            _ = case.parsed


def bench(arguments: Sequence[str]) -> int:
    """Runs a benchmark; returns the exit code."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: ibp bench engine [FLAGS]\n\n  engine   units per step against the limit, on emulated devices")
        return 0 if arguments else 2
    if arguments[0] != "engine":
        raise ValueError(f"benchmark {arguments[0]!r} is not known; expected engine.")
    config = parse(EngineConfig, arguments[1:], prog="ibp bench engine")
    if config.out is not None:
        check_folder("--out", config.out)
    output = console(width=120)
    measurements: list[Measurement] = []
    wanted = cases(config.schemes, config.components, config.microbatches, peers=config.peers, bare=config.bare)
    for k, group in itertools.groupby(wanted, key=lambda case: case.n_components):
        some = list(group)
        with output.status(f"{k} processes, {len(some)} cases"):
            measurements += measure(some, config.unit, config.steps)
    rows = [_row(m) for m in measurements]
    output.print(_table(rows, config.unit))
    facts = environment()
    output.print(
        f"{facts['command']}\n{facts['processor']}, {facts['cpu_count']} cores, torch {facts['torch']}, unit "
        f"{config.unit:g} s, n = {config.steps} steps",
        soft_wrap=True,
    )
    if config.out is not None:
        _write(config, rows, measurements)
        output.print(f"written to {config.out}", soft_wrap=True)
    return 0


def _row(m: Measurement) -> dict[str, Any]:
    return {
        "runner": m.case.runner,
        "scheme": m.case.scheme,
        "K": m.case.n_components,
        "M": m.case.n_microbatches,
        "units": m.units,
        "std": m.std,
        "n": m.n_steps,
        "limit": m.limit,
        "ratio": m.ratio,
        "busy": m.busy,
        "cpu_ms": 1e3 * m.cpu_seconds,
    }


def _table(rows: Sequence[dict[str, Any]], unit: float) -> Table:
    table = Table(title=f"units per micro-batch (unit {unit:g} s)", title_justify="left")
    for name in rows[0]:
        table.add_column(name, justify="left" if name in ("runner", "scheme") else "right")
    for row in rows:
        table.add_row(*(f"{v:.3f}" if isinstance(v, float) else str(v) for v in row.values()))
    return table


def _write(config: EngineConfig, rows: Sequence[dict[str, Any]], measurements: Sequence[Measurement]) -> None:
    assert config.out is not None
    settings = {k: v for k, v in dataclasses.asdict(config).items() if k != "out"}
    content = {"settings": settings, "environment": environment(), "rows": rows}
    write_text(config.out / "engine.json", json.dumps(content, indent=1) + "\n")
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(config.out / "engine.csv", text.getvalue())
    with replacing(config.out / "engine.png") as path:
        _draw(measurements, path)


def _draw(measurements: Sequence[Measurement], path: Path) -> None:
    """Units per micro-batch against K: lines where the limit is, dots where it was measured."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    names = list(dict.fromkeys((m.case.runner, m.case.scheme, m.case.n_microbatches) for m in measurements))
    for n, (runner, scheme, m) in enumerate(names):
        points = [p for p in measurements if p.case == Case(runner, scheme, p.case.n_components, m)]
        ks = [p.case.n_components for p in points]
        label = f"{scheme}, M = {m}" if runner == ENGINE else f"{runner}, M = {m}"
        color = f"C{n}"
        if runner == ENGINE:
            axes.plot(ks, [p.limit for p in points], color=color, linewidth=1)
        axes.errorbar(
            ks,
            [p.units for p in points],
            yerr=[p.std for p in points],
            fmt="o" if runner == ENGINE else "x",
            color=color,
            label=label,
        )
    axes.set_xlabel("components K, each on a process")
    axes.set_ylabel("units per micro-batch")
    axes.set_xticks(sorted({p.case.n_components for p in measurements}))
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8)
    axes.set_title("measured (dots) and the simulator's limit (lines)", fontsize=10)
    figure.savefig(path, dpi=150, format="png")
