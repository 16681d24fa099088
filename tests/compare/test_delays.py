"""Schemes whose credit is late: the same delays in all runs of a comparison, and as many trials as for any other."""

from __future__ import annotations

import json

import pytest

from interlocking_backprop.cli.compare import read_config
from interlocking_backprop.compare.results import Twin
from interlocking_backprop.compare.tuning import all_trials
from interlocking_backprop.compare.twins import find_twins
from tests.compare.small import compare, rows

FLAGS = ["--schemes", "e2e", "e2e~", "pairwise:1,pairwise+e2e~", "--max-steps", "8", "--epochs", "2"]


def scheme_of(run) -> str:
    return json.loads((run / "config.json").read_text())["scheme"]


def test_the_delays_of_the_first_start_are_those_of_all_runs(tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    assert compare(out, *FLAGS, "--components", "2,3", "--seeds", "1", profile_steps=1) == 0
    said = capsys.readouterr().out
    assert "e2e~, K = 2: e2e~1.0\n" in said
    assert "e2e~, K = 3: e2e~2.1.0\n" in said
    expected = {"e2e": "e2e", "e2e~": "e2e~2.1.0", "pairwise:1,pairwise+e2e~": "pairwise:1,pairwise+e2e~2.1.0"}
    found = {r["scheme"]: scheme_of(out / r["folder"]) for r in rows(out / "runs.jsonl") if r["components"] == 3}
    assert found == expected
    for name in ("profiles.json", "estimates.json"):
        measured = json.loads((out / name).read_text())["3"]["rows"]
        assert {row["scheme"] for row in measured} == expected.keys()
    page = (out / "report.html").read_text()
    assert "e2e~, K = 3" in page
    assert "pairwise:1,pairwise+e2e~2.1.0" in page

    # As a later version might have it.
    changed = lambda scheme, n_microbatches: (5,) * scheme.n_components  # noqa: E731
    monkeypatch.setattr("interlocking_backprop.training.config.least_delays", changed)
    flags = ["--schemes", "e2e", "e2e~", "pairwise:1,pairwise+e2e~", "local+e2e~", *FLAGS[4:]]
    assert compare(out, *flags, "--components", "3", "--seeds", "2") == 0
    found = {(r["scheme"], r["seed"]): scheme_of(out / r["folder"]) for r in rows(out / "runs.jsonl")}
    assert found == {(s, n): {**expected, "local+e2e~": "local+e2e~5"}[s] for s, n in found}
    assert len(found) == 8
    assert "local+e2e~, K = 3: local+e2e~5\n" in capsys.readouterr().out


def test_trials_are_the_same_whatever_the_ages(tmp_path):
    schemes = ["e2e", "e2e~", "e2e~1", "pipedream", "pairwise", "pairwise+e2e~", "local~1"]
    grid = ["--tune-lr", "0.01,0.1", "--tune-aux-lr-factor", "1,5", "--microbatches", "2"]
    config = read_config(["--schemes", *schemes, *grid, "--components", "3", "--out", str(tmp_path)])
    trials = all_trials(config, 1, config.resolved)
    tried = {
        scheme: [(t.config.optimization.lr, t.config.optimization.aux_lr_factor) for t in trials[scheme, 3]]
        for scheme in schemes
    }
    assert tried["e2e"] == tried["e2e~"] == tried["e2e~1"] == tried["pipedream"] == [(0.01, 1), (0.1, 1)]
    assert tried["pairwise"] == tried["pairwise+e2e~"] == tried["local~1"]
    assert tried["pairwise"] == [(0.01, 1), (0.01, 5), (0.1, 1), (0.1, 5)]
    assert {t.config.optimization.delay_lr_power for runs in trials.values() for t in runs} == {0.5}
    assert {t.scheme for t in trials["e2e~", 3]} == {"e2e~1.1.0"}


def test_schemes_that_are_one_by_their_delays():
    config = read_config(["--schemes", "e2e~", "e2e~1.0", "--components", "2"])
    assert find_twins(("e2e~", "pipedream", "e2e~1", "e2e"), (2,), config.resolved) == (Twin(2, "pipedream", "e2e~"),)


@pytest.mark.parametrize("name", ["late.json", "a+b.json"])
def test_a_file_of_ages_that_has_changed_is_refused(tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    fields = {"matrix": [[0, 0], [0, 1]], "delayed": {"1": [[0, 1], [0, 0]]}}
    (tmp_path / name).write_text(json.dumps(fields))
    texts = {"late.json": "0.5*late.json+0.5*e2e", "a+b.json": "a+b.json"}
    flags = ["--schemes", "e2e", texts[name], "--components", "2", "--seeds", "1", "--max-steps", "1", "--epochs", "1"]
    assert compare(tmp_path / "out", *flags) == 0
    assert compare(tmp_path / "out", *flags) == 0
    (tmp_path / name).write_text(json.dumps(fields | {"delayed": {"2": [[0, 1], [0, 0]]}}))
    capsys.readouterr()
    assert compare(tmp_path / "out", *flags) == 2
    assert f"scheme file {name} has changed since the comparison" in capsys.readouterr().err
