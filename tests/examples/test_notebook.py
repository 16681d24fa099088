"""The notebook runs from top to bottom, and what it shows are pictures."""

from __future__ import annotations

from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "examples" / "schemes.ipynb"


def test_the_notebook_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    # The kernel of this name is the interpreter that the tests run with.
    NotebookClient(notebook, timeout=200, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    shown = [
        output["data"]
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.output_type == "execute_result"
    ]
    pictures = [data["text/html"] for data in shown if "text/html" in data]
    assert [picture.count("<svg") for picture in pictures] == [1] * 7
    assert "K = 4, M = 2" in pictures[2]
    assert [data["text/plain"] for data in shown if "text/html" not in data] == [shown[3]["text/plain"]]
    assert shown[3]["text/plain"].startswith("<Future: loss ")


def test_the_notebook_is_kept_without_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert all(not cell.outputs and cell.execution_count is None for cell in notebook.cells if cell.cell_type == "code")
