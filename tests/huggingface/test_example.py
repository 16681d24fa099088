from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "finetune_hf.py"


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, EXAMPLE, *arguments], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(("model", "steps"), [("gpt2", "20"), ("vit", "60")])
def test_the_loss_falls_with_every_scheme_and_the_models_are_saved(model, steps, tmp_path):
    done = run("--model", model, "--steps", steps, "--scheme", "e2e", "pairwise", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    losses = re.findall(r"(\S+): (\d\.\d+) → (\d\.\d+)", done.stdout)
    assert [scheme for scheme, _, _ in losses] == ["e2e", "pairwise"]
    assert all(float(after) < 0.9 * float(before) for _, before, after in losses)
    assert all((tmp_path / scheme / "model.safetensors").exists() for scheme, _, _ in losses)


def test_an_error_is_one_line():
    done = run("--model", "bert", "--scheme", "sideways", "--steps", "1")
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("finetune_hf.py: error: scheme 'sideways' is not known")
