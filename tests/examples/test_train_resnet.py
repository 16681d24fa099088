"""The example of the README runs as a user would call it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(EXAMPLES / "train_resnet.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=200)


@pytest.mark.parametrize("mode", ["e2e", "local", "pairwise", "3wise"])
def test_every_mode(mode):
    small = ["--dataset", "digits", "--architecture", "4,2/8,1", "--epochs", "1", "--components", "4"]
    result = run("--mode", mode, *small)
    assert result.returncode == 0, result.stderr
    assert "component 3:" in result.stdout
    assert "Epoch 1: training loss =" in result.stdout


def test_missing_data_is_explained(tmp_path):
    result = run("--mode", "e2e", "--dataset_root", str(tmp_path))
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "cifar-10-batches-bin" in result.stderr
