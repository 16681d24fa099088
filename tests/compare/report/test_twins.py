"""Schemes that are one and the same at some number of components are shown as one."""

from __future__ import annotations

import csv
import dataclasses

import pytest

from interlocking_backprop.compare.report import write_report
from interlocking_backprop.compare.report.headline import twins
from interlocking_backprop.compare.report.summary import summarize
from interlocking_backprop.compare.results import Twin
from interlocking_backprop.compare.twins import find_twins
from tests.compare.report import made
from tests.compare.report.parsed import Page


def test_twins_are_found():
    schemes = ("pairwise", "e2e", "local", "3wise", "3wise-sum", "deep-supervision", "local:2,e2e", "local:2,3wise")
    assert find_twins(schemes, (2, 3, 4)) == (
        Twin(2, "pairwise", "e2e"),
        Twin(2, "3wise", "e2e"),
        Twin(2, "deep-supervision", "3wise-sum"),
        Twin(2, "local:2,3wise", "local:2,e2e"),
        Twin(3, "3wise", "e2e"),
        Twin(3, "deep-supervision", "3wise-sum"),
        Twin(3, "local:2,3wise", "local:2,e2e"),
    )
    assert find_twins(("pairwise", "3wise"), (2,)) == (Twin(2, "3wise", "pairwise"),)
    assert find_twins(("e2e", "pipedream-2bw", "e2e~1", "pipedream"), (3,)) == (Twin(3, "e2e~1", "pipedream-2bw"),)


@pytest.fixture(scope="module")
def with_twins():
    """With two components pairwise and 3wise are e2e; their runs are the same, and their times by chance are not."""
    schemes = ("pairwise", "local", "e2e", "3wise")
    found = find_twins(schemes, (2, 4))
    comparison = made.comparison(schemes, (2, 4), epochs=3, twins=found)
    first = {(twin.components, twin.scheme): twin.first for twin in found}
    runs = [
        dataclasses.replace(
            made.run(first.get((r.components, r.scheme), r.scheme), r.components, r.seed, epochs=3), scheme=r.scheme
        )
        for r in comparison.runs
    ]
    return dataclasses.replace(comparison, runs=tuple(runs))


def test_the_page_shows_them_once_and_the_csv_names_them(with_twins, tmp_path):
    page = Page(write_report(with_twins, tmp_path))
    tables = {name: [row[0] for row in table.rows] for name, table in page.tables.items()}
    for name in ("results-k2", "exits-k2"):
        assert [cell[0] for cell in tables[name]] == ["local", "e2e"]
    assert tables["results-k2"][1][2] == "= pairwise, 3wise"
    assert [cell[0] for cell in tables["results-k4"]] == ["pairwise", "local", "e2e", "3wise"]
    assert {cell[0] for cell in tables["profiles-k2"]} == {"e2e", "e2e, checkpointed", "e2e, 4 micro-batches"}
    assert [cell[0] for cell in tables["runs"]].count("pairwise") == 6
    with (tmp_path / "results.csv").open(newline="") as file:
        rows = {(int(row["components"]), row["scheme"]): row for row in csv.DictReader(file)}
    assert {key: row["same_as"] for key, row in rows.items() if row["same_as"]} == {
        (2, "pairwise"): "e2e",
        (2, "3wise"): "e2e",
    }
    assert len(rows) == 8
    assert "e2e = pairwise = 3wise" in page.source  # the legend


def test_the_noise_of_times_is_told(with_twins):
    (sentence,) = twins(summarize(with_twins))
    times = [
        1e3 * p.step_seconds
        for p in with_twins.profiles
        if p.components == 2 and p.name in ("e2e", "pairwise", "3wise")
    ]
    assert sentence == (
        "At K = 2, pairwise and 3wise are the same as e2e, and shown once. Their steps, measured apart, take "
        f"{min(times):.1f} ms to {max(times):.1f} ms: measured times that differ by "
        f"{100 * (max(times) / min(times) - 1):.0f} % or less do not tell schemes apart."
    )
    assert twins(summarize(dataclasses.replace(with_twins, profiles=())))[0].endswith("and shown once.")
    assert twins(summarize(made.comparison())) == []
