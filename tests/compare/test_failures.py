"""Runs that do not come to their end are shown with the reason, and the others finish."""

from __future__ import annotations

import math

import pytest

from interlocking_backprop.cli.main import main
from interlocking_backprop.training.divergence import Diverged
from interlocking_backprop.training.metrics_log import read_metrics
from interlocking_backprop.training.trainer import Trainer
from tests.compare.small import compare, rows, train_config


def test_a_diverging_scheme_and_a_crashing_one(tmp_path, capsys):
    out, huge = tmp_path / "out", tmp_path / "huge.csv"
    huge.write_text("1e30,0\n0,1e30\n")
    broken = out / "runs" / "pairwise-k2-s0" / "config.json"
    broken.parent.mkdir(parents=True)
    broken.write_text("{")
    flags = ["--schemes", f"e2e,pairwise,{huge}", "--components", "2", "--seeds", "1", "--max-steps", "4"]
    assert compare(out, *flags) == 1
    e2e, pairwise, diverged = rows(out / "runs.jsonl")
    assert e2e["status"] == "finished"
    assert e2e["score"] is not None
    assert pairwise["status"] == "failed"
    assert "cannot be read as JSON" in pairwise["reason"]
    assert pairwise["score"] is None
    assert pairwise["exits"] == [None, None]
    assert diverged["status"] == "diverged"
    assert "lower --lr (it is 0.1)" in diverged["reason"]
    assert "Traceback" in (out / pairwise["folder"] / "stderr.txt").read_text()
    errors = capsys.readouterr().err
    assert "pairwise  K 2  seed 0 failed: ValueError: " in errors
    assert "seed 0 diverged: training diverged" in errors
    assert "cannot be read as JSON" in (out / "report.html").read_text()

    begun = (out / e2e["folder"] / "metrics.jsonl").stat().st_mtime_ns
    assert compare(out, *flags) == 1
    assert rows(out / "runs.jsonl")[1]["status"] == "failed"
    broken.unlink()
    assert compare(out, *flags, "--retry-failed") == 1
    assert [row["status"] for row in rows(out / "runs.jsonl")] == ["finished", "finished", "diverged"]
    assert (out / e2e["folder"] / "metrics.jsonl").stat().st_mtime_ns == begun


@pytest.mark.parametrize("log_every", [1, 100])
def test_a_loss_that_is_not_finite_ends_a_run(tmp_path, log_every):
    config = train_config(
        scheme="local", lr=1e30, warmup_epochs=0, max_steps=20, log_every=log_every, out=tmp_path, quiet=True
    )
    trainer = Trainer(config)
    with pytest.raises(
        Diverged, match=r"training diverged: the loss.* at step \d+; lower --lr \(it is 1e\+30\)"
    ) as caught:
        trainer.fit()
    loss = caught.value.loss
    assert not math.isfinite(loss.value)
    assert loss.step <= 4
    assert not math.isfinite(read_metrics(tmp_path / "metrics.jsonl")[-1]["loss"])
    assert not trainer.task.maximize or not (tmp_path / "checkpoints" / "index.json").exists()


def test_the_loss_of_a_head_counts(tmp_path):
    config = train_config(
        scheme="e2e",
        heads="all",
        aux_lr_factor=1e30,
        warmup_epochs=0,
        max_steps=20,
        log_every=1,
        out=tmp_path,
        quiet=True,
    )
    with pytest.raises(Diverged, match=r"the loss of exit [01] is"):
        Trainer(config).fit()


def test_train_says_so_in_one_line(tmp_path, capsys):
    net = ["--architecture", "4,2", "--aux-architecture", "gbpl_fc", "--components", "2", "--device", "cpu"]
    assert main(["train", *net, "--lr", "1e30", "--max-steps", "5", "--out", str(tmp_path), "--threads", "1"]) == 1
    errors = capsys.readouterr().err
    assert errors.startswith("ibp: error: training diverged")
    assert errors.count("\n") == 1
