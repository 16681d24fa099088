"""The tour shows the code as it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOUR = (ROOT / "docs" / "tour.md").read_text()
BLOCKS = [(match[1], match[2]) for match in re.finditer(r"```python\n# (\S+\.py)\n(.*?)```", TOUR, re.DOTALL)]


@pytest.mark.parametrize(("path", "shown"), BLOCKS, ids=[f"{n}-{path}" for n, (path, _) in enumerate(BLOCKS)])
def test_lines_stand_in_the_file_in_this_order(path, shown):
    lines = [line.strip() for line in (ROOT / "interlocking_backprop" / path).read_text().splitlines()]
    for part in re.split(r"^ *\.\.\.\n", shown, flags=re.MULTILINE):
        wanted = [line.strip() for line in part.splitlines()]
        starts = [n for n in range(len(lines)) if lines[n : n + len(wanted)] == wanted]
        assert starts, f"{path} does not hold, in a row:\n{part}"
        lines = lines[starts[0] + len(wanted) :]


def test_every_snippet_is_one_of_these():
    assert TOUR.count("```python") == len(BLOCKS) >= 12
