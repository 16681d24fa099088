"""Comparisons with little in them are reports too."""

import dataclasses
import math
import re

from interlocking_backprop.compare.report import write_report
from tests.compare.report import made
from tests.compare.report.test_report import read


def test_one_seed_has_neither_std_nor_interval(tmp_path):
    write_report(made.comparison(("e2e", "local"), (4,), (0,), epochs=3), tmp_path)
    page, rows, _ = read(tmp_path)
    assert rows["local", 4]["std"] == rows["local", 4]["gap_low"] == ""
    cells = page.tables["results-k4"].row("local")
    assert re.fullmatch(r"\d+\.\d\d \(n = 1\)", cells["Accuracy (%)"][0])
    assert cells["Gap to e2e"][2] == "n = 1, no interval"
    assert "a difference may be chance" in page.text
    assert "clear" not in page.text.split("The frontier")[0]


def test_without_e2e_there_is_no_gap(tmp_path):
    estimates = made.estimates(("local", "3wise"), 4)
    estimates = tuple(e for e in estimates if e.scheme != "e2e")
    write_report(made.comparison(("local", "3wise"), (4,), epochs=3, estimates=estimates), tmp_path)
    page, rows, _ = read(tmp_path)
    assert "Gap to e2e" not in page.tables["results-k4"].heads
    assert rows["local", 4]["gap_to_e2e"] == rows["local", 4]["modelled_speedup_over_fastest_e2e"] == ""
    assert "there is no e2e to compare with" in page.text


def test_nothing_but_one_run_is_a_report(tmp_path):
    write_report(made.comparison(("pairwise",), (4,), (0,), epochs=1, profiles=(), estimates=()), tmp_path)
    page, rows, _ = read(tmp_path)
    assert page.tables["results-k4"].heads == ["Scheme", "Accuracy (%)"]
    assert rows["pairwise", 4]["modelled_step_seconds"] == ""
    assert not (tmp_path / "frontier-k4.png").exists()


def test_all_runs_lost_is_a_report(tmp_path):
    comparison = made.comparison(("e2e", "local"), (4,), epochs=3, estimates=())
    comparison = dataclasses.replace(comparison, runs=tuple(made.lost(run) for run in comparison.runs))
    write_report(comparison, tmp_path)
    page, rows, _ = read(tmp_path)
    assert "At K\u00a0=\u00a04 no run finished." in page.text
    assert all(row["n_diverged"] == "3" and not row["mean"] for row in rows.values())


def test_no_runs_at_all_is_a_report(tmp_path):
    write_report(made.comparison(("e2e", "local"), (2,), runs=(), estimates=()), tmp_path)
    page, _, runs = read(tmp_path)
    assert runs == []
    assert page.tables["results-k2"].row("local")["Accuracy (%)"][2] == "no runs"


def test_a_score_that_is_no_number_counts_as_lost(tmp_path):
    comparison = made.comparison(("e2e", "local"), (2,), epochs=3, estimates=())
    first, *rest = comparison.runs
    write_report(dataclasses.replace(comparison, runs=(dataclasses.replace(first, score=math.nan), *rest)), tmp_path)
    page, rows, runs = read(tmp_path)
    assert rows["e2e", 2]["n_finished"] == "2"
    assert page.tables["unfinished"].rows[0][-1][0] == "its test score is nan"
    assert runs[0]["score"] is None
