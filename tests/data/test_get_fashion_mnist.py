"""The script that gets Fashion-MNIST, as far as it goes without a network."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.data.made import write_fashion_mnist

SCRIPT = Path(__file__).parents[2] / "scripts" / "get_fashion_mnist.sh"
SHELL = shutil.which("sh") or "sh"


def run(*arguments, **environment) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SHELL, str(SCRIPT), *map(str, arguments)], capture_output=True, text=True, env=environment or None, timeout=60
    )


def test_does_nothing_where_the_files_are(tmp_path):
    write_fashion_mnist(tmp_path, ".gz")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    result = run(tmp_path)
    assert result.returncode == 0
    assert "already" in result.stdout
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_says_what_is_missing(tmp_path):
    result = run(tmp_path / "new", PATH=str(tmp_path))
    assert result.returncode == 1
    assert "apt-get is missing" in result.stderr
    assert "hub:zalando-datasets/fashion_mnist" in result.stderr
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("arguments", [(), ("a", "b")])
def test_wants_one_folder(arguments):
    result = run(*arguments)
    assert result.returncode == 1
    assert "expected one argument" in result.stderr
