"""The command line: output, exit codes, one-line errors."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import pytest

from interlocking_backprop.cli.main import main

NET = ["--components", "2", "--architecture", "4,1/8,1", "--aux-architecture", "gbpl_fc"]
SMALL = [*NET, "--batch-size", "200", "--threads", "1", "--device", "cpu"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run."""
    out = tmp_path_factory.mktemp("runs") / "run"
    assert main(["train", *SMALL, "--scheme", "local", "--epochs", "2", "--out", str(out)]) == 0
    return out


def test_train_reports_every_epoch_and_exit(run, capsys, tmp_path):
    assert main(["train", *SMALL, "--scheme", "local", "--epochs", "2", "--out", str(tmp_path / "r")]) == 0
    text = capsys.readouterr().out
    assert "epoch   1  local  train loss" in text
    assert "epoch   2" in text
    assert "component 0" in text
    assert "network" in text


def test_eval_gives_the_numbers_of_the_run(run, capsys):
    assert main(["eval", str(run), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert printed["test"] == last["exits"]
    assert main(["eval", str(run), "--checkpoint", "last", "--split", "validation"]) == 0
    assert "validation set, last checkpoint" in capsys.readouterr().out


def test_a_saved_configuration_makes_the_same_run(run, capsys, tmp_path):
    out = tmp_path / "again"
    assert main(["train", "--config", str(run / "config.json"), "--out", str(out)]) == 0
    assert (out / "metrics.jsonl").read_text().splitlines()[-1] == (run / "metrics.jsonl").read_text().splitlines()[-1]


def test_resume_needs_no_other_flag(run, capsys):
    assert main(["train", "--out", str(run), "--resume"]) == 0
    assert "best checkpoint" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--schem", "e2e"], "Unrecognized options: --schem"),
        (["train", "--scheme", "foo"], "scheme 'foo' is not known; expected e2e, local"),
        (["train", "--data", "mnist"], "data set 'mnist' is not known; expected digits"),
        (["train", "--components", "0"], "--components is 0; expected"),
        (["train", "--components", "x"], "Error parsing --components"),
        (["train", "--epochs", "-1"], "--epochs is -1"),
        (["train", "--config"], "--config has no value"),
        (["train", "--config", "none.json"], "none.json cannot be read"),
        (["train", "--resume", "--out", "nowhere"], "nowhere holds no run"),
        (["eval"], "Missing from ibp eval"),
        (["eval", "nowhere"], "nowhere holds no run"),
        (["trian"], "command 'trian' is not known"),
    ],
)
def test_bad_input_gets_one_line_and_exit_code_2(arguments, message, capsys):
    assert main(arguments) == 2
    streams = capsys.readouterr()
    assert streams.out == ""
    assert streams.err.startswith("ibp: error: ")
    assert message in streams.err
    assert streams.err.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["eval", "--help"], ["--version"]])
def test_help(arguments, capsys):
    try:
        code = main(arguments)
    except SystemExit as stop:
        code = stop.code
    assert not code
    assert capsys.readouterr().out


def test_without_a_command_the_usage_is_shown(capsys):
    assert main([]) == 2
    assert "train" in capsys.readouterr().out


def test_ctrl_c_leaves_a_checkpoint_and_resume_goes_on(tmp_path):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "interlocking_backprop", "train", *SMALL, "--epochs", "500", "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 120
        while not (out / "checkpoints" / "index.json").exists():
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert "stopped at step" in output
    assert f"ibp train --out {out} --resume" in output.replace("\n", "")
