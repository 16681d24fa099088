"""The example runs as a user would call it, by itself and under torchrun."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ranks.test_torchrun import finished, torchrun
from tests.text.made import write_texts

EXAMPLE = Path(__file__).parents[2] / "examples" / "train_transformer.py"
NET = ["--components", "3", "--width", "16", "--depth", "4", "--heads", "2", "--context", "32"]
SMALL = [*NET, "--batch_size", "32", "--steps", "20", "--report_every", "10", "--tokens", "20", "--lr", "0.01"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, str(EXAMPLE), *arguments], capture_output=True, text=True, env=environment, timeout=200
    )


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> list[str]:
    """The flags for a small text."""
    folder = tmp_path_factory.mktemp("text")
    write_texts(folder / "corpus")
    return ["--text", str(folder / "corpus"), "--data_root", str(folder), "--prompt", "7: the"]


def test_every_exit_learns_and_a_text_is_written(text):
    alone = run("--mode", "3wise-sum", *SMALL, *text)
    assert alone.returncode == 0, alone.stderr
    assert "component 2:" in alone.stdout
    reports = [list(map(float, line.split())) for line in re.findall(r"every exit = (.*)", alone.stdout)]
    assert [len(bits) for bits in reports] == [3, 3, 3]
    assert all(last < first - 1 for first, last in zip(reports[0], reports[-1], strict=True))
    assert "\n\n7: the" in alone.stdout


@pytest.mark.slow
def test_torchrun_gives_the_same(text):
    alone = run("--mode", "3wise-sum", *SMALL, *text)
    code, output, errors = finished(torchrun(str(EXAMPLE), "--mode", "3wise-sum", *SMALL, *text))
    assert code == 0, errors
    assert output == alone.stdout


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["e2e", "local", "pairwise", "3wise", "deep-supervision"])
def test_every_mode(text, mode):
    result = run("--mode", mode, *SMALL, *text)
    assert result.returncode == 0, result.stderr
    assert "Step 20: validation bits per byte" in result.stdout


@pytest.mark.slow
def test_an_error_is_one_line():
    result = run("--mode", "sideways")
    assert result.returncode == 1
    assert result.stderr.startswith("train_transformer.py: error: scheme 'sideways' is not known")
    assert result.stderr.count("\n") == 1
