"""A comparison that goes well: its numbers, its files, and what a second start does."""

from __future__ import annotations

import json

import pytest
import torch

import interlocking_backprop as ib
from interlocking_backprop.cli.compare import read_config
from interlocking_backprop.cli.main import main
from interlocking_backprop.compare.config import CompareConfig
from interlocking_backprop.compare.folder import ComparisonFolder
from interlocking_backprop.compare.runs import grid
from interlocking_backprop.training.trainer import Trainer
from tests.compare.small import NET, compare, results, rows
from tests.text.made import write_texts

FLAGS = ["--schemes", "e2e,pairwise", "local:1,e2e", "--components", "2", "--seeds", "2", "--epochs", "2"]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished comparison."""
    out = tmp_path_factory.mktemp("comparisons") / "done"
    assert compare(out, *FLAGS, profile_steps=2) == 0
    return out


def test_every_run_is_there(done):
    assert sorted((r["scheme"], r["components"], r["seed"]) for r in rows(done / "runs.jsonl")) == [
        (scheme, 2, seed) for scheme in ("e2e", "local:1,e2e", "pairwise") for seed in (0, 1)
    ]
    assert all(r["status"] == "finished" and not r["reason"] for r in rows(done / "runs.jsonl"))


def test_the_numbers_are_those_of_the_runs(done):
    for row in rows(done / "runs.jsonl"):
        lines = rows(done / row["folder"] / "metrics.jsonl")
        test = lines[-1]
        assert test["event"] == "test"
        assert row["score"] == test["exits"][-1]["accuracy"]
        assert row["exits"] == [e and e["accuracy"] for e in test["exits"]]
        validations = [line for line in lines if line["event"] == "validation"]
        assert [point["score"] for point in row["curve"]] == [v["exits"][-1]["accuracy"] for v in validations]
        assert [(point["epoch"], point["step"]) for point in row["curve"]] == [(1, 6), (2, 12)]
        assert row["steps"] == 12
        assert row["lr"] == 0.1


def test_a_run_can_be_evaluated_by_itself(done, capsys):
    row = rows(done / "runs.jsonl")[0]
    assert main(["eval", str(done / row["folder"]), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["test"][-1]["accuracy"] == row["score"]


def test_what_is_measured_and_modelled(done):
    profiles = json.loads((done / "profiles.json").read_text())["2"]["rows"]
    assert {p["name"] for p in profiles} >= {"e2e", "pairwise", "local:1,e2e", "e2e, checkpointed"}
    estimates = json.loads((done / "estimates.json").read_text())["2"]["rows"]
    names = {e["name"] for e in estimates}
    assert names == {
        "e2e",
        "pairwise",
        "local:1,e2e",
        "e2e one at a time",
        "e2e 1F1B",
        "e2e 1F1B, checkpointed",
        "e2e zero-bubble",
    }
    assert [sum(e["is_best"] for e in estimates if e["name"] == name) for name in names] == [1] * len(names)


def test_a_second_start_repeats_nothing_and_shows_the_same(done, capsys):
    before = {path: path.stat().st_mtime_ns for path in done.glob("runs/*/*")}
    measured = (done / "profiles.json").read_bytes()
    runs = (done / "runs.jsonl").read_bytes()
    assert compare(done, *FLAGS, profile_steps=2) == 0
    assert {path: path.stat().st_mtime_ns for path in done.glob("runs/*/*")} == before
    assert (done / "profiles.json").read_bytes() == measured
    assert (done / "runs.jsonl").read_bytes() == runs
    text = capsys.readouterr().out
    assert "pairwise" in text
    assert text.rstrip().endswith("report.html")


def test_the_grid_may_grow(done):
    before = results(done)
    assert compare(done, *[flag.replace("e2e,pairwise", "e2e,pairwise,local") for flag in FLAGS]) == 0
    after = results(done)
    assert len(after) == 8
    assert [row for row in after if row["scheme"] != "local"] == before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--lr", "0.2"], "--lr is 0.2, but the comparison in"),
        (["--epochs", "3"], "--epochs is 3"),
        (["--tune-lr", "0.2"], "--tune-lr is [0.2]"),
    ],
)
def test_other_settings_are_rejected(done, flags, message, capsys):
    assert compare(done, *FLAGS, *flags) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert "choose another --out" in errors


def test_a_changed_matrix_is_rejected(tmp_path, capsys):
    path = tmp_path / "mine.csv"
    path.write_text("1,0\n0,1\n")
    config = read_config(["--schemes", str(path), "--components", "2", "--out", str(tmp_path / "out")])
    ComparisonFolder(config).begin({"components": [2], "metric": "accuracy", "maximize": True, "n_steps": 1})
    ComparisonFolder(config).check_settings()
    path.write_text("0,1\n0,1\n")
    with pytest.raises(ValueError, match=r"mine\.csv has changed since the comparison"):
        ComparisonFolder(config).check_settings()


def test_a_changed_age_of_a_file_in_a_sum_is_rejected(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(ib.local(2).delay(1).to_json())
    config = read_config(["--schemes", f"0.5*{path}~1+e2e:1,e2e", "--components", "2", "--out", str(tmp_path / "out")])
    ComparisonFolder(config).begin({"components": [2], "metric": "accuracy", "maximize": True, "n_steps": 1})
    ComparisonFolder(config).check_settings()
    path.write_text(ib.local(2).delay(2).to_json())
    with pytest.raises(ValueError, match=r"mine\.json has changed since the comparison"):
        ComparisonFolder(config).check_settings()


def test_one_comparison_at_a_time_is_at_work_in_a_folder(tmp_path):
    folder = ComparisonFolder(CompareConfig(out=tmp_path))
    with folder.locked(), pytest.raises(ValueError, match="another comparison is at work"):
        folder.locked().__enter__()


def test_all_schemes_start_from_the_same_weights_and_see_the_same_data(tmp_path):
    """With heads or without, for images and for text."""
    write_texts(tmp_path / "texts")
    text = [
        "--data",
        f"text:{tmp_path / 'texts'}",
        "--data-root",
        str(tmp_path / "data"),
        "--width",
        "8",
        "--attention-heads",
        "2",
        "--context",
        "16",
    ]
    for flags in ([*NET], ["--model", "transformer", *text, "--depth", "3", "--batch-size", "4", "--device", "cpu"]):
        config = read_config([*flags, "--components", "3", "--seeds", "2", "--out", str(tmp_path / "out")])
        firsts: dict[int, Trainer] = {}
        for run in grid(config, 1, {}, config.resolved):
            trainer = Trainer(run.config)
            first = firsts.setdefault(run.config.seed, trainer)
            expected = [p for component in first.model.components for p in component.main_net.state_dict().values()]
            found = [p for component in trainer.model.components for p in component.main_net.state_dict().values()]
            assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True)), run.name
            assert all(torch.equal(a, b) for a, b in zip(first.first_batch(), trainer.first_batch(), strict=True))
        a, b = (next(iter(firsts[seed].model.parameters())) for seed in (0, 1))
        assert not torch.equal(a, b)
