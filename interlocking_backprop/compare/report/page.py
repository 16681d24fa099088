"""Writes a report's files, of which report.html is one page that needs nothing but itself."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from interlocking_backprop.common.atomic_files import replacing, write_text
from interlocking_backprop.compare.report import formatting as f
from interlocking_backprop.compare.report import tables
from interlocking_backprop.compare.report.figures import Picture, marks, pictures, svg
from interlocking_backprop.compare.report.headline import caveats, crossings, headline
from interlocking_backprop.compare.report.summary import Summary, summarize
from interlocking_backprop.compare.results import Comparison, RunResult

_DPI = 150


def write_report(comparison: Comparison, folder: Path) -> Path:
    """Writes report.html, results.csv, runs.jsonl and a PNG for each picture, each of them whole or not at all.

    In results.csv scores, gaps and shares are as they were measured (an accuracy is a share of 1), times are in seconds
    and sizes in bytes; what is not known is empty. The same comparison gives the same files.

    Args:
        comparison: what was found.
        folder: where to; made if it is not there.

    Returns:
        The path of report.html.
    """
    folder = Path(folder)
    summary = summarize(comparison)
    drawn = pictures(summary)
    write_text(folder / "results.csv", summary.results.to_csv(index=False))
    write_text(folder / "runs.jsonl", "".join(map(_line, comparison.runs)))
    for picture in drawn:
        with replacing(folder / f"{picture.name}.png") as path:
            picture.figure.savefig(path, dpi=_DPI, format="png", metadata={"Software": None})
    write_text(folder / "report.html", _page(summary, drawn))
    return folder / "report.html"


def _line(run: RunResult) -> str:
    """A run as JSON, which has no word for NaN: it becomes null."""
    text = json.dumps({**vars(run), "curve": [point._asdict() for point in run.curve]})
    return json.dumps(json.loads(text, parse_constant=lambda _: None)) + "\n"


def _page(summary: Summary, drawn: Sequence[Picture]) -> str:
    comparison, ks = summary.comparison, summary.components
    figures: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for picture in drawn:
        image = f"data:image/svg+xml,{quote(svg(picture.figure), safe=' /;=,')}"
        figures[picture.kind].append((picture.description, image))
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(setting=f.setting, glue=f.glue)
    clocks = summary.clocks[summary.clocks["modelled_name"] != summary.clocks["scheme"]]
    return environment.from_string(_asset("page.html.j2")).render(
        summary=summary,
        metric=summary.metric,
        level=f.LEVEL,
        size=_size(summary),
        headline=headline(summary),
        caveats=caveats(summary),
        crossings=crossings(summary),
        clocks=clocks.sort_index(),
        figures=figures,
        marks=marks(comparison.schemes),
        unfinished=tables.unfinished_table(summary),
        results=[tables.results_table(summary, k) for k in ks],
        exits=[tables.exits_table(summary, k) for k in ks],
        baselines=[make(summary, k) for make in (tables.pipelines_table, tables.profiles_table) for k in ks],
        rates=summary.runs[["lr", "aux_lr_factor"]].drop_duplicates(),
        tuned=tables.tuned_table(summary),
        runs=tables.runs_table(summary),
        css=Markup(_asset("page.css")),
        js=Markup(_asset("page.js")),
    )


def _size(summary: Summary) -> str:
    """How much was compared."""
    comparison, n_runs = summary.comparison, len(summary.runs)
    counts = [
        f.count(len(set(comparison.schemes)), "scheme"),
        f"K = {f.few([str(k) for k in summary.components], len(summary.components))}",
        f.count(len(set(comparison.seeds)), "seed"),
        f"{n_runs - len(summary.unfinished)} of {f.count(n_runs, 'run')} finished",
    ]
    return " · ".join(counts)


def _asset(name: str) -> str:
    return (resources.files("interlocking_backprop.compare.report") / "assets" / name).read_text(encoding="utf-8")
