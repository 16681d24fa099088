"""What docs/models.md shows can be run, from top to bottom."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "models.md"


@pytest.mark.slow
def test_snippets(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    snippets, outputs = (
        re.findall(rf"^```{kind}\n(.*?)^```$", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)
        for kind in ("python", "text")
    )
    names: dict[str, object] = {"__name__": "snippets"}
    for n, snippet in enumerate(snippets):
        exec(compile(snippet, f"snippet {n} of {PAGE.name}", "exec"), names)
    printed = capsys.readouterr().out
    assert len(snippets) > 5
    assert [output for output in outputs if output not in printed] == []
    assert (tmp_path / "trained.pth").exists()
    assert (tmp_path / "trained" / "model.safetensors").exists()
