"""``ibp bench engine``: what it prints and writes."""

from __future__ import annotations

import csv
import json

import pytest

from interlocking_backprop.cli.main import main

TINY = ["--components", "2", "--unit", "0.002", "--steps", "2"]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The folder of a small run."""
    out = tmp_path_factory.mktemp("bench") / "engine"
    assert main(["bench", "engine", "--schemes", "pairwise", "e2e", *TINY, "--bare", "--out", str(out)]) == 0
    return out


def test_the_json_file_holds_every_case_with_its_circumstances(written):
    content = json.loads((written / "engine.json").read_text())
    assert [(r["runner"], r["scheme"], r["K"], r["M"]) for r in content["rows"]] == [
        ("engine", "pairwise", 2, 2),
        ("bare loop", "pairwise", 2, 2),
        ("engine", "e2e", 2, 2),
        ("bare loop", "e2e", 2, 2),
        ("torch GPipe", "e2e", 2, 2),
        ("torch 1F1B", "e2e", 2, 2),
        ("torch zero bubble", "e2e", 2, 2),
    ]
    assert content["settings"] == {
        "schemes": ["pairwise", "e2e"],
        "components": [2],
        "microbatches": [2],
        "unit": 0.002,
        "steps": 2,
        "peers": True,
        "bare": True,
    }
    assert content["environment"]["torch"]
    for row in content["rows"]:
        assert row["n"] == 2
        assert row["ratio"] == pytest.approx(row["units"] / row["limit"])
        assert row["limit"] >= row["busy"] * (1 - 1e-9) > 0
        assert row["std"] >= 0
        assert row["cpu_ms"] > 0


def test_the_csv_file_holds_the_same_rows(written):
    with (written / "engine.csv").open() as file:
        rows = list(csv.DictReader(file))
    expected = json.loads((written / "engine.json").read_text())["rows"]
    assert [{k: str(v) for k, v in row.items()} for row in expected] == rows


def test_the_picture_is_there(written):
    assert (written / "engine.png").read_bytes().startswith(b"\x89PNG")


def test_it_prints_a_row_for_each_case(tmp_path, capsys):
    assert main(["bench", "engine", "--schemes", "local", *TINY, "--microbatches", "1", "--no-peers"]) == 0
    text = capsys.readouterr().out
    assert "units per micro-batch (unit 0.002 s)" in text
    (row,) = [line for line in text.splitlines() if "local" in line and "engine" in line and "bench" not in line]
    # runner, scheme, K, M, then the numbers
    assert row.replace("│", " ").split()[:4] == ["engine", "local", "2", "1"]
    assert "unit 0.002 s, n = 2 steps" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--components", "1"], "--components is 1; expected at least 2"),
        (["--components", "0"], "--components is 0; expected whole numbers of at least 1"),
        (["--microbatches", "0"], "--microbatches is 0; expected whole numbers of at least 1"),
        (["--unit", "0"], "--unit is 0.0; expected seconds, above 0 and at most 10"),
        (["--unit", "x"], "Error parsing --unit"),
        (["--steps", "1"], "--steps is 1; expected a whole number of at least 2"),
        (["--schemes", "foo"], "scheme 'foo' is not known"),
        (["--bar"], "Unrecognized options: --bar"),
    ],
)
def test_bad_flags_get_one_line_and_exit_code_2(arguments, message, capsys):
    assert main(["bench", "engine", *arguments]) == 2
    streams = capsys.readouterr()
    assert streams.out == ""
    assert streams.err.startswith("ibp: error: ")
    assert message in streams.err
    assert streams.err.count("\n") == 1


def test_the_benchmark_has_to_be_named(capsys):
    assert main(["bench"]) == 2
    assert "ibp bench engine" in capsys.readouterr().out
    assert main(["bench", "motor"]) == 2
    assert "benchmark 'motor' is not known; expected engine" in capsys.readouterr().err
