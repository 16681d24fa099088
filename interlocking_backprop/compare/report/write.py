"""Writes a report's files."""

from __future__ import annotations

from pathlib import Path

from interlocking_backprop.common.atomic_files import replacing, write_text
from interlocking_backprop.compare.report.files import results_csv, runs_jsonl
from interlocking_backprop.compare.report.page import page
from interlocking_backprop.compare.report.pictures import pictures
from interlocking_backprop.compare.report.summary import summarize
from interlocking_backprop.compare.results import Comparison

_DPI = 150


def write_report(comparison: Comparison, folder: Path) -> Path:
    """Writes report.html, results.csv, runs.jsonl and a PNG for each picture, each of them whole or not at all.

    The same comparison gives the same files, whatever was in the folder.

    Args:
        comparison: what was found.
        folder: where to; made if it is not there.

    Returns:
        The path of report.html.
    """
    folder = Path(folder)
    summary = summarize(comparison)
    drawn = pictures(summary)
    write_text(folder / "results.csv", results_csv(summary))
    write_text(folder / "runs.jsonl", runs_jsonl(summary))
    for picture in drawn:
        with replacing(folder / f"{picture.name}.png") as path:
            picture.figure.savefig(path, dpi=_DPI, format="png", metadata={"Software": None})
    write_text(folder / "report.html", page(summary, drawn))
    return folder / "report.html"
