"""A comparison that is killed or interrupted and started again comes to the same end as one that is left alone."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time

import pytest

from interlocking_backprop.cli.main import main
from tests.compare.small import arguments, compare, results, rows

CONTEXT = multiprocessing.get_context("forkserver")
FLAGS = ["--schemes", "e2e,pairwise", "--components", "2", "--seeds", "2", "--epochs", "6", "--jobs", "2"]


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The results of a comparison that nobody disturbs."""
    out = tmp_path_factory.mktemp("straight") / "out"
    assert compare(out, *FLAGS) == 0
    return results(out)


def start(out):
    """A comparison in a process group of its own, when the first of its runs has begun and written a checkpoint."""
    process = CONTEXT.Process(target=in_a_group_of_its_own, args=(out,))
    process.start()
    deadline = time.monotonic() + 200
    while not list(out.glob("runs/*/checkpoints/index.json")):
        assert process.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


def in_a_group_of_its_own(out):
    os.setsid()
    out.mkdir()
    output = os.open(out / "terminal", os.O_WRONLY | os.O_CREAT)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.exit(main(["compare", *arguments(out, *FLAGS)]))


def unfinished(out) -> int:
    return 4 - sum('"finished"' in path.read_text() for path in out.glob("runs/*/outcome.json"))


def test_after_sigkill_of_all_its_processes(straight, tmp_path):
    out = tmp_path / "out"
    process = start(out)
    os.killpg(process.pid, signal.SIGKILL)
    process.join()
    assert unfinished(out) > 0
    assert not (out / "runs.jsonl").exists()
    assert compare(out, *FLAGS) == 0
    assert results(out) == straight


def test_after_ctrl_c(straight, tmp_path):
    out = tmp_path / "out"
    process = start(out)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    process.join(120)
    output = (out / "terminal").read_text()
    assert process.exitcode == 130, output
    assert "Traceback" not in output
    assert f"go on with: ibp compare --out {out}" in output
    assert unfinished(out) > 0
    begun = [path.parent for path in out.glob("runs/*/config.json")]
    assert all(list(run.glob("checkpoints/step-*")) for run in begun)
    assert compare(out, *FLAGS) == 0
    assert results(out) == straight
    for run in begun:  # it went on from the checkpoint
        steps = [line["step"] for line in rows(run / "metrics.jsonl") if line["event"] == "train"]
        assert steps == sorted(set(steps))
