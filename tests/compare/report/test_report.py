import csv
import dataclasses
import json
import re
import statistics

import pytest

from interlocking_backprop.compare.report import write_report
from tests.compare.report import made
from tests.compare.report.parsed import Page

NASTY = "<script>alert('1 & 2')</script>"


def read(folder):
    with (folder / "results.csv").open(newline="", encoding="utf-8") as file:
        rows = {(row["scheme"], int(row["components"])): row for row in csv.DictReader(file)}
    runs = [json.loads(line) for line in (folder / "runs.jsonl").read_text().splitlines()]
    return Page(folder / "report.html"), rows, runs


def number(text):
    return float(text.replace("\u2212", "-").replace(",", ""))


@pytest.fixture(scope="module", params=[False, True], ids=["accuracy", "bits_per_byte"])
def full(request, tmp_path_factory):
    """A comparison of which some runs were lost, its folder, and what was read from there."""
    schemes = ("e2e", "local", "3wise", "pairwise-sum")
    comparison = made.comparison(schemes, (4,) if request.param else (2, 4), epochs=4, bits=request.param)
    runs = list(comparison.runs)
    for i, run in enumerate(runs):
        if run.scheme == "3wise" and run.components == 4 and run.seed == 1:
            runs[i] = made.lost(run)
        if run.scheme == "local" and run.components == 4:
            runs[i] = made.lost(run, "failed", "it ran out of memory & <b>died</b>")
    comparison = dataclasses.replace(comparison, runs=tuple(runs))
    folder = tmp_path_factory.mktemp("report")
    assert write_report(comparison, folder) == folder / "report.html"
    return comparison, folder, *read(folder)


def test_the_csv_has_a_row_for_each_scheme_and_k_and_says_what_the_runs_say(full):
    comparison, _, _, rows, _ = full
    assert list(rows) == [(s, k) for k in comparison.components for s in comparison.schemes]
    for (scheme, k), row in rows.items():
        scores = [r.score for r in comparison.runs if (r.scheme, r.components) == (scheme, k) and r.score is not None]
        assert int(row["n_runs"]) == 3
        assert int(row["n_finished"]) == len(scores)
        if not scores:
            assert row["mean"] == row["std"] == row["gap_to_e2e"] == ""
            continue
        assert float(row["mean"]) == statistics.fmean(scores)
        assert float(row["std"]) == statistics.stdev(scores)


def test_runs_jsonl_has_every_run_as_it_was(full):
    comparison, _, _, _, runs = full
    assert len(runs) == len(comparison.runs)
    for run in comparison.runs:
        key = (run.scheme, run.components, run.seed)
        line = next(r for r in runs if (r["scheme"], r["components"], r["seed"]) == key)
        assert line["score"] == run.score
        assert line["exits"] == list(run.exits)
        assert [(p["epoch"], p["step"], p["score"]) for p in line["curve"]] == [tuple(p) for p in run.curve]
        assert (line["status"], line["reason"]) == (run.status, run.reason)


def test_scores_and_gaps_of_the_page_are_those_of_the_csv(full):
    comparison, _, page, rows, _ = full
    factor, digits = (1, 3) if comparison.metric == "bits_per_byte" else (100, 2)
    heading = "Bits per byte" if factor == 1 else "Accuracy (%)"
    for (scheme, k), row in rows.items():
        cells = page.tables[f"results-k{k}"].row(scheme)
        text, value, note = cells[heading]
        if not row["mean"]:
            assert (text, value, note) == ("no score", None, "3 failed")
            assert cells["Gap to e2e"][0] == "\u2013"
            continue
        mean, std, n = re.fullmatch(r"(\S+) ± (\S+) \((\d)\)", text).groups()
        assert float(value) == float(row["mean"])
        assert number(mean) == pytest.approx(factor * float(row["mean"]), abs=0.51 * 10**-digits)
        assert number(std) == pytest.approx(factor * float(row["std"]), abs=0.51 * 10**-digits)
        assert n == row["n_finished"]
        if scheme == "e2e":
            assert cells["Gap to e2e"][0] == "reference"
            continue
        gap, low, high = re.fullmatch(r"(\S+) \[(\S+), (\S+)\]", cells["Gap to e2e"][0]).groups()
        for shown, column in ((gap, "gap_to_e2e"), (low, "gap_low"), (high, "gap_high")):
            assert number(shown) == pytest.approx(factor * float(row[column]), abs=0.51 * 10**-digits)


def test_costs_of_the_page_are_those_of_the_csv(full):
    _, _, page, rows, _ = full
    units = {"µs": 1e-6, "ms": 1e-3, "s": 1.0, "KiB": 2**10, "MiB": 2**20, "/s": 1.0}
    for (scheme, k), row in rows.items():
        cells = page.tables[f"results-k{k}"].row(scheme)
        expected = {
            "Step": "measured_step_seconds",
            "Peak memory": "measured_peak_bytes",
            "Step 2": "modelled_step_seconds",
            "Throughput": "modelled_samples_per_second",
            "Memory": "modelled_peak_bytes_of_fullest_device",
            "Sent": "modelled_sent_bytes",
        }
        for heading, column in expected.items():
            text, value, _ = cells[heading]
            assert float(value) == float(row[column])
            shown, unit = re.fullmatch(r"([\d.,]+)(?: ± [\d.]+)? ?(\S+)", text).groups()
            assert number(shown) * units[unit] == pytest.approx(float(row[column]), rel=0.006)
        assert cells["M"][0] == row["modelled_microbatches"]
        assert cells["Step 2"][2] == f"{float(row['modelled_units']):.2f} units"
        busy = number(cells["Busy"][0].rstrip(" %"))
        assert busy == pytest.approx(100 * float(row["modelled_utilization"]), abs=0.51)
        assert cells["Passes"][0].replace("\u00a0", ":") == row["passes"]
        assert cells["Step"][2] == f"{float(row['measured_step_relative_to_e2e']):.2f} \u00d7 e2e"
        assert cells["Throughput"][2] == f"{float(row['modelled_speedup_over_fastest_e2e']):.2f} \u00d7 e2e"


def test_exits_of_the_page_are_those_of_the_csv(full):
    comparison, _, page, rows, _ = full
    factor, digits = (1, 3) if comparison.metric == "bits_per_byte" else (100, 2)
    for (scheme, k), row in rows.items():
        cells = page.tables[f"exits-k{k}"].row(scheme)
        for i in range(k):
            shown = cells[f"{i} (network)" if i == k - 1 else str(i)][0]
            if not row[f"exit_{i}_mean"]:
                assert shown == "\u2013"
                continue
            mean = number(shown.split(" ± ")[0])
            assert mean == pytest.approx(factor * float(row[f"exit_{i}_mean"]), abs=0.51 * 10**-digits)


def test_speedup_is_over_the_fastest_pipeline_of_e2e(full):
    comparison, _, _, rows, _ = full
    for (scheme, k), row in rows.items():
        e2e = min(e.step_seconds for e in comparison.estimates if e.components == k and e.scheme == "e2e")
        own = min(e.step_seconds for e in comparison.estimates if e.components == k and e.name == scheme)
        assert float(row["modelled_speedup_over_fastest_e2e"]) == e2e / own
        assert float(row["modelled_samples_per_second"]) == comparison.batch_size / own


def test_pipelines_of_e2e_are_shown_with_the_micro_batches_that_suit_them(full):
    comparison, _, page, _, _ = full
    for k in comparison.components:
        tried = [e for e in comparison.estimates if e.components == k and e.scheme == "e2e"]
        best = {
            name: min((e.step_seconds, str(e.microbatches)) for e in tried if e.name == name)
            for name in {e.name for e in tried}
        }
        table = page.tables[f"pipelines-k{k}"]
        shown = {row[0][0]: (float(row[1][1]), row[table.heads.index("M")][0]) for row in table.rows}
        assert shown == best


def test_lost_runs_are_listed_with_their_reasons_and_counted_nowhere(full):
    comparison, _, page, rows, _ = full
    lost = [[cell[0] for cell in row] for row in page.tables["unfinished"].rows]
    assert ["3wise", "4", "1", "diverged", "the loss is nan at step 83"] in lost
    assert ["local", "4", "2", "failed", "it ran out of memory & <b>died</b>"] in lost
    assert len(lost) == 4
    assert rows["3wise", 4]["gap_n"] == "2"
    assert page.tables["results-k4"].row("3wise")[page.tables["results-k4"].heads[1]][2] == "1 diverged"
    assert f"4 of {len(comparison.runs)} runs did not finish" in page.text


def test_the_page_needs_nothing_from_elsewhere(full):
    _, folder, page, _, _ = full
    assert not re.search(r"https?://", page.source)
    for name, value in page.attributes:
        if name in ("src", "href", "action", "data", "poster", "srcset"):
            assert value.startswith(("#", "data:")), (name, value)
        assert "url(" not in value.replace("url(#", "")
    assert "@import" not in page.source
    assert not {"iframe", "object", "embed"} & set(page.tags)
    assert page.tags.count("script") == 1
    assert (folder / "report.html").stat().st_size < 5e6


def test_names_on_the_page_are_there_once(full):
    _, _, page, _, _ = full
    assert len(page.ids) == len(set(page.ids))


def test_pictures_need_nothing_from_elsewhere_and_no_background(full):
    _, _, page, _, _ = full
    for picture in page.pictures:
        ids = {element.get("id") for element in picture.iter()}
        values = [value for element in picture.iter() for value in element.attrib.values()]
        hrefs = [v for element in picture.iter() for name, v in element.attrib.items() if name.endswith("href")]
        used = [match for value in values for match in re.findall(r"url\(([^)]+)\)", value)] + hrefs
        assert used
        assert {name.removeprefix("#") for name in used} <= ids
        # The first patch is the figure's background; what is drawn on it is inverted where the page is dark.
        patch = next(element for element in picture.iter() if element.get("id") == "patch_1")
        assert all("fill: none" in path.get("style", "") for path in patch)
    assert re.search(r"@media \(prefers-color-scheme: dark\) \{[^@]*\.figure[^}]*filter: invert\(1\)", page.source)


def test_there_is_a_png_for_each_picture(full):
    comparison, folder, page, _, _ = full
    kinds = ("frontier", "exits", "curves-epochs", "curves-time", "micro-batches")
    expected = {f"{kind}-k{k}.png" for kind in kinds for k in comparison.components}
    assert {path.name for path in folder.glob("*.png")} == expected
    assert all((folder / name).read_bytes().startswith(b"\x89PNG") for name in expected)
    assert len(page.pictures) == len(expected)


def test_the_same_comparison_gives_the_same_files(tmp_path):
    comparison = made.comparison(("e2e", "local"), (2,), (0, 1), epochs=3)
    contents = []
    for _ in range(2):
        write_report(comparison, tmp_path)
        contents.append({path.name: path.read_bytes() for path in tmp_path.iterdir()})
    assert contents[0] == contents[1]
    assert {"report.html", "results.csv", "runs.jsonl", "frontier-k2.png"} <= contents[0].keys()


def test_curves_are_the_means_of_the_validations(tmp_path):
    # What a picture shows is read from its axes: the points of the one line there is.
    from interlocking_backprop.compare.report.figures import pictures
    from interlocking_backprop.compare.report.summary import summarize

    comparison = made.comparison(("e2e",), (2,), (0, 1), epochs=5)
    means = [100 * statistics.fmean(run.curve[i].score for run in comparison.runs) for i in range(5)]
    fastest = min(e.step_seconds for e in comparison.estimates)
    drawn = {picture.kind: picture.figure for picture in pictures(summarize(comparison))}
    for kind, xs in (("curves-epochs", [1, 2, 3, 4, 5]), ("curves-time", [40 * (i + 1) * fastest for i in range(5)])):
        x, y = drawn[kind].axes[0].lines[0].get_data()
        unit = 1e3 if kind == "curves-time" and xs[-1] <= 1 else 1
        assert list(x) == pytest.approx([unit * value for value in xs])
        assert list(y) == pytest.approx(means)


def test_a_point_of_a_curve_is_a_mean_of_all_runs():
    from interlocking_backprop.compare.report.figures import pictures
    from interlocking_backprop.compare.report.summary import summarize

    comparison = made.comparison(("e2e",), (2,), (0, 1), epochs=5)
    first, second = comparison.runs
    short = dataclasses.replace(second, curve=second.curve[1:4])
    drawn = pictures(summarize(dataclasses.replace(comparison, runs=(first, short))))
    (figure,) = (picture.figure for picture in drawn if picture.kind == "curves-epochs")
    assert list(figure.axes[0].lines[0].get_xdata()) == [2, 3, 4]


def test_names_are_escaped_wherever_they_stand(tmp_path):
    comparison = made.comparison(("e2e", NASTY), (2,), (0, 1), epochs=3)
    runs = list(comparison.runs)
    runs[-1] = made.lost(runs[-1], "failed", NASTY)
    estimates = tuple(dataclasses.replace(e, name=NASTY) if e.name == "e2e 1F1B" else e for e in comparison.estimates)
    profiles = tuple(dataclasses.replace(p, name=f"{p.name}{NASTY}") for p in comparison.profiles)
    comparison = dataclasses.replace(
        comparison,
        runs=tuple(runs),
        estimates=estimates,
        profiles=profiles,
        settings={NASTY: NASTY},
        environment={"command": f"ibp {NASTY}", NASTY: [NASTY]},
    )
    write_report(comparison, tmp_path)
    page = Page(tmp_path / "report.html")
    assert page.tags.count("script") == 1
    assert page.tables["results-k2"].row(NASTY)
    texts = [element.text or "" for picture in page.pictures for element in picture.iter() if "text" in element.tag]
    assert any("script" in text for text in texts)
    assert page.text.count(NASTY) > 8


def test_settings_that_differ_are_shown(tmp_path):
    comparison = made.comparison(("e2e", "local"), (2,), epochs=3, estimates=())
    tuned = [dataclasses.replace(r, lr=0.2, aux_lr_factor=5.0) if r.scheme == "local" else r for r in comparison.runs]
    write_report(dataclasses.replace(comparison, runs=tuple(tuned)), tmp_path)
    page, rows, _ = read(tmp_path)
    assert [cell[0] for cell in page.tables["tuned"].rows[1]] == ["local", "2", "0.2", "5"]
    assert (rows["local", 2]["lr"], rows["local", 2]["aux_lr_factor"]) == ("0.2", "5.0")


def test_many_schemes_with_long_names_and_long_curves_stay_small(tmp_path):
    names = ("e2e", *(f"a/long/folder/with/a/matrix-number-{i}-of-decaying-coefficients.csv" for i in range(14)))
    write_report(made.comparison(names, (4,), (0, 1), epochs=300), tmp_path)
    assert (tmp_path / "report.html").stat().st_size < 5e6 / 4
    assert names[-1] in Page(tmp_path / "report.html").text
