"""Tuning: the same trials for each scheme, chosen by the validation score, the test set left alone."""

from __future__ import annotations

import pytest

from interlocking_backprop.cli.compare import read_config
from interlocking_backprop.compare.config import TUNE_SEED
from interlocking_backprop.compare.tuning import all_trials
from interlocking_backprop.training.trainer import Trainer
from tests.compare.small import compare, rows, train_config

FLAGS = ["--schemes", "e2e,local", "--components", "2", "--seeds", "1", "--epochs", "1"]
GRID = ["--tune-lr", "1e-6,0.1", "--tune-aux-lr-factor", "1,5", "--tune-epochs", "1"]


def test_every_scheme_gets_the_same_trials(tmp_path):
    config = read_config(
        [*FLAGS, *GRID, "--schemes", "e2e,local,pairwise", "--components", "3", "--out", str(tmp_path)]
    )
    trials = [trial.config for trials in all_trials(config, 1, config.resolved).values() for trial in trials]
    found = {
        scheme: [(t.optimization.lr, t.optimization.aux_lr_factor) for t in trials if t.scheme == scheme]
        for scheme in ("e2e", "local", "pairwise")
    }
    assert found["local"] == found["pairwise"] == [(1e-6, 1), (1e-6, 5), (0.1, 1), (0.1, 5)]
    assert found["e2e"] == [(1e-6, 1), (0.1, 1)]  # it has no heads
    assert {(t.seed, t.optimization.epochs, t.test) for t in trials} == {(TUNE_SEED, 1, False)}


def test_the_best_by_validation_is_run(tmp_path):
    out = tmp_path / "out"
    assert compare(out, *FLAGS, *GRID, "--batch-size", "50") == 0
    trials = rows(out / "tuning.jsonl")
    assert len(trials) == 6
    for run in rows(out / "runs.jsonl"):
        own = [t for t in trials if t["scheme"] == run["scheme"]]
        best = max(own, key=lambda t: t["validation_score"])
        assert [t["lr"] for t in own if t["chosen"]] == [best["lr"]]
        chosen = next(t for t in own if t["chosen"])
        assert (run["lr"], run["aux_lr_factor"]) == (chosen["lr"], chosen["aux_lr_factor"])
        assert run["seed"] != TUNE_SEED
    for trial in trials:
        lines = rows(out / trial["folder"] / "metrics.jsonl")
        assert {line["event"] for line in lines} == {"train", "validation"}
        assert trial["validation_score"] == max(
            line["exits"][-1]["accuracy"] for line in lines if line["event"] == "validation"
        )
    before = (out / "tuning.jsonl").read_bytes()
    assert compare(out, *FLAGS, *GRID, "--batch-size", "50") == 0
    assert (out / "tuning.jsonl").read_bytes() == before


def test_without_a_test_the_test_set_is_not_read(tmp_path):
    class Forbidden:
        def __len__(self):
            raise AssertionError("the test set was looked at")

        __getitems__ = __getitem__ = __len__

    for test in (False, True):
        trainer = Trainer(train_config(scheme="local", max_steps=1, test=test, out=tmp_path / str(test), quiet=True))
        object.__setattr__(trainer.task, "test", Forbidden())
        if test:
            with pytest.raises(AssertionError, match="the test set was looked at"):
                trainer.fit()
        else:
            scores = trainer.fit()
            assert scores == trainer.evaluate("validation")


def test_trials_that_diverge_are_passed_over(tmp_path):
    out = tmp_path / "out"
    flags = ["--schemes", "local", "--components", "2", "--seeds", "1", "--max-steps", "4", "--warmup-epochs", "0"]
    assert compare(out, *flags, "--tune-lr", "1e30,0.1") == 0
    assert [(t["lr"], t["status"], t["chosen"]) for t in rows(out / "tuning.jsonl")] == [
        (1e30, "diverged", False),
        (0.1, "finished", True),
    ]
    assert rows(out / "runs.jsonl")[0]["lr"] == 0.1
