"""Writes a report's files, of which report.html is one page that needs nothing but itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from interlocking_backprop.common.atomic_files import replacing, write_text
from interlocking_backprop.compare.report import formatting as f
from interlocking_backprop.compare.report.figures import ASSETS, SYMBOLS, Picture, marks, pictures
from interlocking_backprop.compare.report.headline import caveats, crossings, headline, twins
from interlocking_backprop.compare.report.summary import Summary, summarize
from interlocking_backprop.compare.report.tables import tables
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
    write_text(folder / "results.csv", summary.every_result.to_csv(index=False))
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
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(setting=f.setting, glue=f.glue, count=f.count, few=f.few)
    css, js, template = (
        (ASSETS / name).read_text(encoding="utf-8") for name in ("page.css", "page.js", "page.html.j2")
    )
    return environment.from_string(template).render(
        summary=summary,
        metric=summary.metric,
        level=f.LEVEL,
        headline=headline(summary),
        caveats=caveats(summary),
        crossings=crossings(summary),
        twins=twins(summary),
        clocks=summary.clocks[summary.clocks["modelled_name"] != summary.clocks["scheme"]].sort_index(),
        rates=summary.runs[["lr", "aux_lr_factor"]].drop_duplicates(),
        pictures=drawn,
        kinds={picture.kind for picture in drawn},
        tables=tables(summary),
        marks=marks(summary.comparison.schemes),
        symbols=SYMBOLS,
        css=Markup(css),
        js=Markup(js),
    )
