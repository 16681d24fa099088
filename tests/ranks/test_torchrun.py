"""The same command line under torchrun: one machine, two agents, interruption, failure."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from interlocking_backprop.cli.main import main

NET = ["--components", "4", "--architecture", "4,2/8,1", "--aux-architecture", "gbpl_fc", "--scheme", "3wise-sum"]
SMALL = ["train", *NET, "--microbatches", "2", "--batch-size", "200", "--threads", "1", "--device", "cpu", "--quiet"]


def torchrun(*arguments: str, processes: int = 2, agent: tuple[str, ...] = ("--standalone",)) -> subprocess.Popen[str]:
    """Starts torchrun in a process group of its own, as a terminal does."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes), *agent]
    return subprocess.Popen(
        [*launcher, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def finished(process: subprocess.Popen[str], timeout: float = 180) -> tuple[int, str, str]:
    """Exit code and output; whatever happens, nothing of the group is left."""
    try:
        output, errors = process.communicate(timeout=timeout)
        return process.returncode, output, errors
    finally:
        for _ in range(50):
            if not alive(process.pid):
                break
            time.sleep(0.1)
        else:
            os.killpg(process.pid, signal.SIGKILL)


def alive(group: int) -> list[str]:
    """The processes of a group that still run."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found.append(stat.parent.name)
    return found


def metrics(run: Path) -> list[dict]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] != "train"]


@pytest.fixture(scope="module")
def one_device(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "one"
    assert main([*SMALL, "--epochs", "3", "--out", str(out)]) == 0
    return out


def test_training_is_the_same_as_on_one_device(one_device, tmp_path):
    out = tmp_path / "run"
    shown = [word for word in SMALL if word != "--quiet"]
    code, said, errors = finished(torchrun("-m", "interlocking_backprop", *shown, "--epochs", "3", "--out", str(out)))
    assert code == 0, errors
    assert metrics(out) == metrics(one_device)
    assert said.count(f"folder    {out}\n") == said.count("epoch   1 ") == 1
    assert "device    cpu here, of 2 ranks that hold the components 0: 0-1, 1: 2-3\n" in said
    assert " units per micro-batch on 2 devices, the limit is " in said
    train = json.loads((out / "metrics.jsonl").read_text().splitlines()[0])
    assert all(isinstance(loss, float) for loss in train["exit_losses"])  # of all ranks
    # A run of several ranks is evaluated by one process.
    assert main(["eval", str(out), "--device", "cpu"]) == 0


def test_two_agents(one_device, tmp_path):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    out = tmp_path / "run"
    agents = [
        torchrun(
            *("-m", "interlocking_backprop", *SMALL, "--epochs", "3", "--out", str(out)),
            agent=("--nnodes", "2", "--node-rank", str(n), "--master-addr", "127.0.0.1", "--master-port", str(port)),
        )
        for n in range(2)
    ]
    results = [finished(agent) for agent in agents]
    assert [code for code, _, _ in results] == [0, 0], results
    assert metrics(out) == metrics(one_device)


def test_an_interrupted_run_leaves_a_checkpoint_and_no_process_and_goes_on_with_other_ranks(one_device, tmp_path):
    out = tmp_path / "run"
    arguments = ["-m", "interlocking_backprop", *SMALL, "--out", str(out)]
    process = torchrun(*arguments, "--epochs", "400", "--lr-schedule", "constant")
    deadline = time.monotonic() + 120
    while not (out / "checkpoints" / "index.json").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # what Ctrl-C does
    code, _, errors = finished(process, timeout=60)
    assert code != 0
    assert not alive(process.pid)
    assert "hangs" not in errors
    step = json.loads((out / "checkpoints" / "index.json").read_text())["last"]
    resumed = torchrun("-m", "interlocking_backprop", "train", "--out", str(out), "--resume", processes=3)
    while json.loads((out / "checkpoints" / "index.json").read_text())["last"] == step:
        assert resumed.poll() is None, resumed.communicate()
        assert time.monotonic() < deadline + 120
        time.sleep(0.1)
    os.killpg(resumed.pid, signal.SIGINT)
    finished(resumed, timeout=60)
    steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)


def test_bad_input_is_said_once(tmp_path):
    code, output, errors = finished(
        torchrun("-m", "interlocking_backprop", "train", "--components", "2", "--out", str(tmp_path / "r"), processes=3)
    )
    assert code != 0
    assert errors.count("ibp: error: 3 ranks for 2 components; expected at most one rank for each component.") == 1
    assert 'Traceback (most recent call last):\n  File "/usr' not in output


SCRIPT = """
import os, signal, sys, time
import torch
from torch.nn import functional as F
import interlocking_backprop as ib
from tests.small_nets import mlp_components

main_nets, aux_nets = mlp_components(4)
model = ib.build_model(main_nets, aux_nets, ib.nwise(4, 3), lambda p: torch.optim.SGD(p, lr=0.1), F.mse_loss)
model.enable_model_parallel()
data = torch.randn(6, 5).double() if model.rank == 0 else None
for step in range(1000):
    model.training_step(data, data).result()
    if step == 20 and model.rank == 2:
        if sys.argv[1] == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise ArithmeticError("the sum is wrong")
"""


@pytest.mark.parametrize(("what", "cause"), [("raise", "ArithmeticError: the sum is wrong"), ("kill", "")])
def test_every_rank_says_which_one_failed(tmp_path, monkeypatch, what, cause):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    start = time.monotonic()
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    code, _, errors = finished(torchrun(str(script), what, processes=4))
    assert code != 0
    assert time.monotonic() - start < 60
    for rank in (0, 1, 3):
        assert f"[rank {rank}] interlocking-backprop: rank 2 failed: {cause}" in errors, errors
