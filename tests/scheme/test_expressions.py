"""Schemes made of others as text: what is read, least delays, phases, files, and what is rejected."""

from __future__ import annotations

import json
from functools import partial

import pytest

import interlocking_backprop as ib
from interlocking_backprop.scheme.phases import Phases, resolve_phases
from interlocking_backprop.scheme.text import resolve

LEAST = partial(ib.least_delays, n_microbatches=2)


@pytest.mark.parametrize(
    ("text", "scheme"),
    [
        ("e2e~1", ib.e2e(4).delay(1)),
        ("e2e ~ 3.2.2.0", ib.e2e(4).delay([3, 2, 2, 0])),
        ("e2e~1~2", ib.e2e(4).delay(3)),
        ("3wise-sum~2", ib.nwise(4, 3, "sum").delay(2)),
        ("decay0.5~2", ib.decaying(4, 0.5).delay(2)),
        ("2*e2e~1", 2 * ib.e2e(4).delay(1)),
        ("2 * .5*e2e", ib.e2e(4)),
        ("1e+1*(e2e+-1*local)~1", 10 * (ib.e2e(4) + -1 * ib.local(4)).delay(1)),
        ("0.5*pairwise + 0.5*e2e~2", 0.5 * ib.pairwise(4) + 0.5 * ib.e2e(4).delay(2)),
        ("0.5*pairwise+0.5*e2e~", 0.5 * ib.pairwise(4) + 0.5 * ib.e2e(4).delay([1, 1, 1, 0])),
        ("pipedream", ib.e2e(4).delay([3, 2, 1, 0])),
        ("pipedream-2bw", ib.e2e(4).delay(1)),
    ],
)
def test_text_forms(text, scheme):
    assert ib.parse_scheme(text, 4, LEAST) == scheme


def test_baselines_keep_their_names():
    assert [ib.parse_scheme(name, 3).name for name in ("pipedream", "pipedream-2bw")] == ["pipedream", "pipedream-2bw"]


@pytest.mark.parametrize(
    ("text", "resolved"),
    [
        ("e2e~", "e2e~1.1.1.0"),
        ("e2e~2", "e2e~2"),
        ("local~", "local~0"),
        (" 0.5*(pairwise + e2e~)~1 + e2e ~", "0.5*(pairwise + e2e~1.1.1.0)~1 + e2e ~1.1.1.0"),
    ],
)
def test_resolved_text_has_the_numbers_written_out(text, resolved):
    assert resolve(text, 4, LEAST) == resolved
    assert ib.parse_scheme(resolved, 4) == ib.parse_scheme(text, 4, LEAST)
    assert resolve(resolved, 4, LEAST) == resolved


def test_phases_are_resolved():
    text = "local:2, 0.5*pairwise+0.5*e2e~:5,e2e~"
    resolved = resolve_phases(text, 4, LEAST)
    assert resolved == "local:2,0.5*pairwise+0.5*e2e~1.1.1.0:5,e2e~1.1.1.0"
    assert Phases.parse(resolved, 4) == Phases.parse(text, 4, LEAST)
    assert resolve_phases(" local:2 , e2e~1", 4, LEAST) == " local:2 , e2e~1"
    assert Phases.parse("e2e:1,e2e~1", 4).at(1) == ib.e2e(4).delay(1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("e2e~", r"least delays .* number of micro-batches, which is not known here; write the delays \(~1"),
        ("~1", "a scheme is missing before '~1'"),
        ("e2e+", "a scheme is missing at the end"),
        ("2*", "a scheme is missing at the end"),
        ("", "scheme '' is not known; expected"),
        ("e2e~-1", "after ~ there is '-1'; expected a whole number"),
        ("e2e~1.5.", "after ~ there is '.'"),
        ("e2e~1e2", "after ~ there is 'e2'"),
        ("e2e~x", "after ~ there is 'x'"),
        ("e2e~1.2", r"scheme 'e2e~1.2': there are 2 delays; expected a whole number of at least 0, or 4 of them"),
        ("(e2e", r"a parenthesis is not closed at the end; expected \)"),
        ("(e2e*2", r"a parenthesis is not closed before '\*2'"),
        ("e2e)", r"'\)' is left over"),
        ("e2e*2", r"'\*2' is left over"),
        ("2*3", "scheme '3' is not known; expected"),
        ("e3e~1", "scheme 'e3e' is not known; expected"),
        ("1e999*e2e", "multiplied by inf"),
        ("(" * 99 + "e2e", "more than 50 parentheses"),
    ],
)
def test_a_text_that_is_none_is_rejected(text, message):
    with pytest.raises(ValueError, match=message):
        ib.parse_scheme(text, 4)


def test_files_have_ages_and_enter_sums(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    late = ib.Scheme([[1, 0], [0, 1]], "mine", delayed={2: [[0, 1], [0, 0]]})
    (tmp_path / "a.json").write_text(late.to_json())
    (tmp_path / "b+1.json").write_text(json.dumps({"matrix": [[1, 0], [0, 1]], "delayed": {"2": [[0, 1], [0, 0]]}}))
    (tmp_path / "c.csv").write_text("1, 0\n0, 1\n")
    assert ib.parse_scheme("a.json", 2) == ib.parse_scheme("b+1.json", 2) == late
    assert [ib.parse_scheme(name, 2).name for name in ("a.json", "b+1.json")] == ["mine", "b+1"]
    assert ib.parse_scheme("c.csv~1+a.json", 2) == ib.local(2).delay(1) + late
    assert resolve("b+1.json", 2, LEAST) == "b+1.json"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"x\.json cannot be read as JSON .*line 1"),
        ("[]", r"x\.json: there is \[\]; expected 'matrix'"),
        ('{"matrix": [[1]]}', r"x\.json is for 1 components, the model has 2; give matrices of 2 rows of 2 numbers"),
        ('{"matrix": [[1, 0], [0, 1]], "delayed": {"-1": []}}', r"x\.json: delayed has the age '-1'; expected whole"),
        (
            '{"matrix": [[1, 0], [0, 1]], "delayed": {"1": [[1, 0], [2, 0]]}}',
            r"x\.json: .*\[1, 0\] of age 1 is 2, below",
        ),
        ('{"matrix": [[1, 0], [0, 1]], "delayed": {"1": [[1]]}}', r"x\.json: .* age 1 is for 1 components"),
        ('{"matrix": [[1, 0], [0, 1]], "name": 3}', r"x\.json: the scheme's name is 3; expected text"),
        ('{"matrix": [[1, 0], [0, 1]], "matrix": []}', r"x\.json cannot be read as JSON \('matrix' is there twice\)"),
    ],
)
def test_a_bad_json_file_is_rejected(tmp_path, content, message):
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        ib.parse_scheme(str(path), 2)
