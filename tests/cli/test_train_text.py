"""Transformers on text through the command line: what a run reports, and that stopping it changes nothing."""

from __future__ import annotations

import json
import math
import signal
from pathlib import Path

import pytest

import interlocking_backprop as ib
from interlocking_backprop.cli.main import main
from tests.cli.text_runs import arguments
from tests.ranks.test_torchrun import finished, torchrun
from tests.training.traces import traced_names


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """With a corpus, and a finished run on its bytes."""
    folder = tmp_path_factory.mktemp("text")
    assert main(arguments(folder, folder / "run")) == 0
    return folder


def events(run: Path, *kinds: str) -> list[dict]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] in kinds]


def test_every_exit_has_its_bits_per_byte_and_perplexity(folder):
    validations, tests = events(folder / "run", "validation"), events(folder / "run", "test")
    assert [len(validations), len(tests)] == [2, 1]
    for line in (*validations, *tests):
        assert len(line["exits"]) == 3
        for scores in line["exits"]:
            assert scores.keys() == {"loss", "bits_per_byte", "perplexity"}
            assert scores["bits_per_byte"] == pytest.approx(scores["loss"] / math.log(2), rel=1e-5)  # a byte a token
            assert scores["perplexity"] == pytest.approx(math.exp(scores["loss"]), rel=1e-5)
    before, after = (line["exits"][-1]["bits_per_byte"] for line in validations)
    assert after < before < 8.5


def test_byte_pairs(folder, tmp_path):
    assert main(arguments(folder, tmp_path / "run", "--vocabulary", "bpe:300", "--max-steps", "4")) == 0
    (line,) = events(tmp_path / "run", "test")
    for scores in line["exits"]:
        assert scores["perplexity"] < 400
        assert scores["bits_per_byte"] < 0.9 * scores["loss"] / math.log(2)  # a token is more than a byte
    assert json.loads((tmp_path / "run" / "tokenizer.json").read_text())["model"]["type"] == "BPE"


def test_eval_gives_the_numbers_of_the_run(folder, capsys):
    assert main(["eval", str(folder / "run"), "--json", "--device", "cpu"]) == 0
    assert json.loads(capsys.readouterr().out)["test"] == events(folder / "run", "test")[0]["exits"]


def test_the_table_of_exits(folder, capsys):
    assert main(["eval", str(folder / "run"), "--device", "cpu"]) == 0
    text = capsys.readouterr().out
    assert all(word in text for word in ("bits_per_byte", "perplexity", "component 0", "component 1", "network"))


def test_a_run_that_was_stopped_goes_on_as_if_nothing_had_happened(folder, tmp_path, monkeypatch, capsys):
    straight, run = tmp_path / "straight", tmp_path / "run"
    dropout = ["--dropout", "0.1"]
    assert main(arguments(folder, straight, *dropout)) == 0
    train, calls = ib.InterlockingBackpropModel.training_step, []

    def interrupted(model, inputs, targets):
        calls.append(1)
        if len(calls) == 8:
            signal.raise_signal(signal.SIGINT)
        return train(model, inputs, targets)

    monkeypatch.setattr(ib.InterlockingBackpropModel, "training_step", interrupted)
    assert main(arguments(folder, run, *dropout)) == 130
    assert not events(run, "test")
    monkeypatch.undo()
    assert main(["train", "--out", str(run), "--resume"]) == 0
    assert events(run, "validation", "test") == events(straight, "validation", "test")


def test_two_ranks_report_what_one_device_does(folder, tmp_path):
    command = ["-m", "interlocking_backprop", *arguments(folder, tmp_path / "run", "--profile", "2")]
    code, _, errors = finished(torchrun(*command))
    assert code == 0, errors
    assert events(tmp_path / "run", "validation", "test") == events(folder / "run", "validation", "test")
    forward = [{n for n in traced_names(tmp_path / "run" / f"trace-rank{r}.json.gz") if "F" in n[1:2]} for r in (0, 1)]
    assert forward[0] == {"0F0", "0F1"}
    assert forward[1] == {"1F0", "1F1", "2F0", "2F1"}


def test_muon_goes_on_where_it_stopped_on_two_ranks(folder, tmp_path, monkeypatch):
    """With clipping and the course of the learning rates, as one device does without a stop."""
    straight, run = tmp_path / "straight", tmp_path / "run"
    muon = ["--optimizer", "muon", "--adamw-lr", "0.01", "--max-grad-norm", "0.1"]
    assert main(arguments(folder, straight, *muon)) == 0
    train, calls = ib.InterlockingBackpropModel.training_step, []

    def interrupted(model, inputs, targets):
        calls.append(1)
        if len(calls) == 7:
            signal.raise_signal(signal.SIGINT)
        return train(model, inputs, targets)

    monkeypatch.setattr(ib.InterlockingBackpropModel, "training_step", interrupted)
    assert main(arguments(folder, run, *muon)) == 130
    monkeypatch.undo()
    code, _, errors = finished(torchrun("-m", "interlocking_backprop", "train", "--out", str(run), "--resume"))
    assert code == 0, errors
    assert events(run, "validation", "test") == events(straight, "validation", "test")
    before, after = (line["exits"][-1]["bits_per_byte"] for line in events(straight, "validation"))
    assert after < before < 8.5


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--data", "text:nowhere"], "nowhere"),
        (["--data", "digits"], "--data is digits, which are images, and a Transformer learns from text"),
        (["--vocabulary", "words"], "--vocabulary is words; expected 'bytes', or 'bpe:N'"),
        (["--attention-heads", "3"], "--attention-heads is 3; expected a divisor of the width, 16"),
        (["--components", "7"], "--components is 7; expected at most 6: the 4 blocks of --depth"),
    ],
)
def test_bad_input_gets_one_line_and_exit_code_2(folder, tmp_path, more, message, capsys):
    assert main(arguments(folder, tmp_path / "run", *more)) == 2
    error = capsys.readouterr().err
    assert error.startswith("ibp: error: ")
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()
