"""Whatever is wrong on a command line is said in one line, with exit code 2, before anything large is begun."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from interlocking_backprop.cli.main import main

NET = ["--components", "2", "--architecture", "4,1/8,1", "--aux-architecture", "gbpl_fc"]
SMALL = [*NET, "--batch-size", "200", "--epochs", "1", "--threads", "1", "--device", "cpu"]

FILES = {
    "file": "",
    "zero.csv": "0,0\n0,0\n",
    "ragged.csv": "# two components\n1,0\n0,1,0\n",
    "narrow.csv": "1,0\n",
    "words.csv": "1,0\n0,one\n",
    "below.csv": "1,0\n1,1\n",
    "digits.csv": "1,0\n0," + "1" * 200_000 + "\n",
    "three.csv": "1,0,0\n0,1,0\n0,0,1\n",
    "deep.json": "[" * 5000 + "]" * 5000,
    "deep_field.json": '{"lr": ' + "[" * 5000 + "]" * 5000 + "}",
    "twice.json": '{"lr": 0.1, "epochs": 3, "lr": 0.2}',
    "help.json": '{"help": true}',
    "list.json": '{"lr": [0.1]}',
    "object.json": '{"milestones": {"1": 2}}',
    "huge.json": '{"lr": 1' + "0" * 400 + "}",
    "long.json": '{"epochs": 1' + "0" * 5000 + "}",
    "nul.json": '{"out": "a\\u0000b"}',
    "empty.json": "",
    "latin.json": '{"out": "é"}',
}

# What is wrong with the value of a flag, or with flags beside one another.
FLAGS = [
    ("--tied", "--tied is True, but a ResNet has no such setting; leave it out, or choose --model transformer"),
    ("--width 96", "--width is 96, but a ResNet has no such setting"),
    # With the values that they have anyway.
    ("--no-tied", "--tied is False, but a ResNet has no such setting"),
    ("--width=128", "--width is 128, but a ResNet has no such setting"),
    ("--model transformer --block basic", "--block is basic, but a Transformer has no such setting"),
    ("--optimizer adamw --nesterov", "--nesterov is True, but AdamW has none"),
    ("--gamma 0.1", "--gamma is 0.1, but the cosine schedule has none"),
    ("--model transformer --architecture 8,1", "--architecture is 8,1, but a Transformer has no such setting"),
    ("--model transformer --image-size 8", "--image-size is 8, but a Transformer has no such setting"),
    ("--optimizer adamw --momentum 0.5", "--momentum is 0.5, but AdamW has none"),
    ("--delay-lr-power -1", "--delay-lr-power is -1.0; expected a number from 0 to 10"),
    ("--model transformer --tied --scheme e2e~", "scheme 'e2e~2.2.1.0' gives the embedding and the head, one weight"),
    ("--scheme 0*e2e~1", "trains nothing: all coefficients of 0*e2e~1 are 0"),
    ("--scheme e2e~2.1", "there are 2 delays; expected a whole number of at least 0, or 4 of them"),
    ("--optimizer muon", "--optimizer is muon, which takes matrices, and a ResNet has none but that of its head"),
    ("--model transformer --optimizer muon --momentum 0.5", "--momentum is 0.5, but it is SGD's: Muon has"),
    ("--model transformer --adamw-lr 0.1", "--adamw-lr is 0.1, but there is no AdamW beside another optimizer"),
    ("--model transformer --optimizer muon --adamw-lr 1e38", "--adamw-lr is 1e+38, with --aux-lr-factor 30"),
    ("--milestones 3 5", "--milestones is 3,5, but the cosine schedule has none"),
    ("--lr-schedule multistep --milestones", "--milestones is empty; expected ascending epochs"),
    ("--lr-schedule multistep", "--milestones is 91,136,182; expected a first one below the number of epochs, 10"),
    ("--scheme local:5,e2e --epochs 1", "changes at epoch 5, but the run ends at epoch 1"),
    ("--scheme local:10,e2e", "changes at epoch 10, but the run ends at epoch 10"),
    (
        "--scheme local:5,e2e --max-steps 50",
        "changes at epoch 5, which begins after 50 steps (10 to an epoch), but --max-steps ends the run after 50",
    ),
    ("--scheme local:9999999999,e2e", "ends at '9999999999'; expected an epoch after 0"),
    ("--scheme local:٣,e2e", "ends at '٣'; expected an epoch after 0"),
    ("--scheme 0wise", "scheme '0wise': n is 0; expected a whole number of at least 1"),
    ("--scheme decay0", "scheme 'decay0': decay is 0.0; expected a number above 0"),
    (
        "--architecture 4,1/8",
        "architecture '4,1/8': expected ',' and the number of blocks of the superblock, at its character 6",
    ),
    ("--blocks-per-component 0,rest", "a whole number of at least 1, at its character 1"),
    ("--scheme ٣wise", "scheme '٣wise' is not known"),
    ("--scheme decay٣", "scheme 'decay٣' is not known"),
    (f"--scheme {'9' * 5000}wise", "is not known; expected e2e"),
    ("--microbatches 129", "--microbatches is 129; expected at most --batch-size, which is 128"),
    ("--batch-size 5000", "--batch-size is 5000; expected at most 1197, the number of images that digits has"),
    ("--seed -1", "--seed is -1; expected a whole number of at least 0"),
    (f"--seed {2**63}", f"--seed is {2**63}; expected a whole number below 2 to the power of 63"),
    (f"--seed 1{'0' * 5000}", "Error parsing --seed"),
    (f"--epochs {2**63}", "expected a whole number below 2 to the power of 63"),
    ("--components 99", "--components is 99; expected at most 8: the 6 blocks of --architecture 8,3/16,3"),
    ("--components 100000", "--components is 100000; expected a whole number of at least 1 and at most 1000"),
    ("--model transformer --components 99", "--components is 99; expected at most 10: the 8 blocks of --depth"),
    ("--blocks-per-component 1,1,rest", "--blocks-per-component 1,1,rest makes 3 components, --components is 4"),
    ("--data text:book.txt", "--data is text:book.txt, which is text, and a ResNet learns from images"),
    ("--model transformer --data digits", "--data is digits, which are images, and a Transformer learns from text"),
    ("--lr 1e308", "--lr is 1e+308; expected a positive number, at most 1e+38"),
    ("--lr nan", "--lr is nan; expected a positive number"),
    ("--lr 1e30 --aux-lr-factor 1e30", "expected products of at most 1e+38"),
    ("--gamma 1e30 --lr-schedule plateau", "--gamma is 1e+30; expected a number above 0 and below 1"),
    ("--timeout 1e30", "--timeout is 1e+30; expected a positive number of seconds, at most 1e9"),
    ("--device meta", "--device is 'meta'; expected auto or one of cpu"),
    ("--device warp", "--device is 'warp'; expected auto or one of cpu"),
    ("--devices cpu cpu cpu meta", "--devices is 'meta'; expected auto or one of cpu"),
    ("--threads 1000000000", "--threads is 1000000000; expected a whole number of at least 0 and at most 1024"),
    ("--workers 1000000000", "--workers is 1000000000; expected a whole number of at least 0 and at most 256"),
    ("--architecture 1000000000,3", "GiB for the weights alone, and this machine has"),
    ("--aux-architecture conv1000000_conv1000000_gbpl_fc --scheme local", "GiB for the weights alone"),
    ("--architecture 64,31284", "--architecture is 64,31284, which has 31,286 blocks; expected at most 1000"),
    ("--model transformer --width 10000000", "--width 10000000, --depth 8, --context 256 and --aux-rank 0 take"),
    ("--model transformer --depth 31284", "--depth is 31284; expected a whole number of at least 1 and at most 1000"),
    ("--model transformer --context 1000000000000", "GiB for the weights alone"),
    ("--model transformer --vocabulary bpe:999999999", "--vocabulary is bpe:999999999; expected 'bytes', or 'bpe:N'"),
    ("--model transformer --vocabulary bpe:٣٠٠", "--vocabulary is bpe:٣٠٠; expected 'bytes', or 'bpe:N'"),
    ("--image-size 1000000", "--image-size is 1000000; expected a positive number of pixels"),
    ("--out", "--out has no value"),
    ("--config", "--config has no value"),
]

# {0} is the folder with the files above.
PATHS = [
    ("train --out {0}/file", "--out is {0}/file; expected a folder that can be written (Not a directory)"),
    ("train --out {0}/file/run", "expected a folder that can be written (Not a directory)"),
    ("train --out {0}/" + "n" * 300, "expected a folder that can be written (File name too long)"),
    ("train --out /proc/nowhere/run", "--out is /proc/nowhere/run; expected a folder that can be written"),
    ("train --model transformer --data-root /proc/nowhere", "--data-root is /proc/nowhere; expected a folder"),
    ("train --model transformer --data text:{0}/nowhere.txt --data-root {0}", "there is no {0}/nowhere.txt"),
    ("train --components 2 --scheme {0}/zero.csv", "trains nothing: all coefficients of zero are 0"),
    ("train --components 2 --scheme {0}/ragged.csv", "ragged.csv, line 3: 3 numbers, and 2 in the first row"),
    ("train --components 2 --scheme {0}/narrow.csv", "narrow.csv has 1 rows of 2 numbers, the model has 2"),
    ("train --components 2 --scheme {0}/words.csv", "words.csv, line 2: could not convert string to float: 'one'"),
    ("train --components 2 --scheme {0}/below.csv", "below.csv: scheme matrix entry [1, 0] is 1, below the diagonal"),
    ("train --components 2 --scheme {0}/digits.csv", "digits.csv, line 2: a line of 200,002 characters; expected"),
    ("train --components 2 --scheme {0}/three.csv", "three.csv is for 3 components, the model has 2"),
    ("train --scheme {0}/" + "n" * 300 + ".csv", "cannot be read"),
    ("train --config {0}", "{0} cannot be read as JSON"),
    ("train --config {0}/" + "n" * 300, "cannot be read as JSON"),
    ("train --config {0}/deep.json", "deep.json cannot be read as JSON (it is nested too deep)"),
    ("train --config {0}/deep_field.json", "deep_field.json cannot be read as JSON (it is nested too deep)"),
    ("train --config {0}/twice.json", "twice.json cannot be read as JSON ('lr' is there twice)"),
    ("train --config {0}/help.json", "help.json: --help is not known"),
    ("train --config {0}/list.json", "list.json: --lr is [0.1]; expected a number"),
    ("train --config {0}/object.json", "object.json: --milestones is {{'1': 2}}; expected a list"),
    ("train --config {0}/huge.json", "huge.json: --lr is 1000"),
    ("train --config {0}/long.json", "long.json cannot be read as JSON"),
    ("train --config {0}/nul.json", "expected a folder that can be written (embedded null byte)"),
    ("train --config {0}/empty.json", "empty.json cannot be read as JSON"),
    ("train --config {0}/latin.json", "latin.json cannot be read as JSON"),
    ("train --resume --out {0}/file", "{0}/file holds no run"),
    ("eval {0}/file", "{0}/file holds no run"),
    ("eval {0}/" + "n" * 300, "File name too long"),
    ("eval {0} --batch-size 0", "--batch-size is 0; expected a whole number of at least 1"),
    ("generate {0}/file", "{0}/file holds no run"),
    ("generate {0} --threads 100000", "--threads is 100000"),
    (
        "generate {0} --temperature 1e-320",
        "--temperature is 1e-320; expected a number of at least 0, and if it is not 0",
    ),
    ("bench engine --schemes", "--schemes is empty; expected at least one scheme"),
    ("compare --out {0}/file/compare", "expected a folder that can be written (Not a directory)"),
    ("compare --schemes local:5,e2e --epochs 2 --out {0}/c", "changes at epoch 5, but the run ends at epoch 2"),
    ("compare --components 99 --out {0}/c", "--components is 99; expected at most 8"),
    ("compare --components 100000 --out {0}/c", "--components is 100000; expected whole numbers of at least 1 and at"),
    ("compare --tied --out {0}/c", "--tied is True, but a ResNet has no such setting"),
    ("compare --attention_heads 4 --out {0}/c", "--attention-heads is 4, but a ResNet has no such setting"),
    ("compare --tune-lr 1e308 --out {0}/c", "--tune-lr is 1e+308; expected positive numbers, at most 1e38"),
    ("compare --jobs 1000000 --out {0}/c", "--jobs is 1000000; expected"),
    ("bench engine --out {0}/file", "--out is {0}/file; expected a folder that can be written"),
    (
        "bench engine --components 100000",
        "--components is 100000; expected whole numbers of at least 1 and at most 256",
    ),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp("wrong")
    for name, text in FILES.items():
        (made / name).write_bytes(text.encode("latin-1"))
    return made


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A finished run."""
    out = tmp_path_factory.mktemp("runs") / "run"
    assert main(["train", *SMALL, "--quiet", "--out", str(out)]) == 0
    return out


def refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(arguments) == 2
    streams = capsys.readouterr()
    assert streams.err.startswith("ibp: error: ")
    assert message in streams.err
    assert streams.err.count("\n") == 1
    assert len(streams.err) < 2500
    assert "epoch" not in streams.out


@pytest.mark.parametrize(("flags", "message"), FLAGS, ids=lambda text: text[:60])
def test_flags_that_do_not_fit(flags, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(["train", *flags.split()], message, capsys)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("line", "message"), PATHS, ids=lambda text: text[:60])
def test_files_and_folders_that_do_not_fit(line, message, folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = sorted(folder.iterdir())
    refused(line.format(folder).split(" "), message.format(folder), capsys)
    assert sorted(folder.iterdir()) == before
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "[]", "3", '{"last": 3}', '{"last": "../run"}', "[" * 5000])
def test_an_index_of_checkpoints_that_is_none(run, text, tmp_path, capsys):
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / "checkpoints/index.json").write_text(text)
    for command in (["eval", str(copy)], ["train", "--out", str(copy), "--resume"]):
        refused(command, "checkpoints/index.json", capsys)


@pytest.mark.parametrize(
    "text", ["", "[]", "null", '{"step": 1}', '{"step": "1", "loss_sum": 0, "best": 0, "state": {}}']
)
def test_progress_that_is_none(run, text, tmp_path, capsys):
    copy = shutil.copytree(run, tmp_path / "run")
    for path in copy.glob("checkpoints/*/progress.json"):
        path.write_text(text)
    refused(["train", "--out", str(copy), "--resume"], "progress.json", capsys)


@pytest.mark.parametrize("line", ["", "[]", "3", '{"step": 1}'])
def test_metrics_that_are_none(run, line, tmp_path, capsys):
    copy = shutil.copytree(run, tmp_path / "run")
    with (copy / "metrics.jsonl").open("a") as file:
        file.write(f"{line}\n")
    n_lines = (copy / "metrics.jsonl").read_text().count("\n")
    refused(["train", "--out", str(copy), "--resume"], f"metrics.jsonl, line {n_lines}, ", capsys)


def test_a_run_and_a_comparison_do_not_share_a_folder(run, tmp_path, capsys):
    refused(["compare", "--out", str(run)], f"--out is {run}, which holds a run of `ibp train`", capsys)
    (tmp_path / "comparison.json").write_text("{}")
    refused(["train", "--out", str(tmp_path)], f"{tmp_path} holds a comparison of `ibp compare`", capsys)


@pytest.mark.parametrize("text", ["", "[]", '{"settings": []}', '{"settings": {}, "matrices": {}, "facts": {}}'])
def test_a_comparison_that_is_none(text, tmp_path, capsys):
    (tmp_path / "comparison.json").write_text(text)
    refused(["compare", "--out", str(tmp_path)], "comparison.json", capsys)


def test_a_run_that_exists_is_found_out_before_its_data_is_read(run, capsys, monkeypatch):
    monkeypatch.delattr("interlocking_backprop.cli.train.Trainer")
    refused(["train", *SMALL, "--out", str(run)], "holds a run already; go on with --resume", capsys)


def test_flags_of_a_run_that_is_resumed_are_read_beside_its_own_configuration(run, capsys):
    """Three components are not what the flag is about; by default there are four."""
    flags = ["--resume", "--devices", "cpu", "cpu"]
    assert main(["train", "--out", str(run), *flags, "--quiet"]) == 0
    refused(["train", "--out", str(run), "--resume", "--devices", "cpu"], "one for each of the 2 components", capsys)


def test_what_was_run_before_is_not_checked_again(run, tmp_path, capsys):
    """As a run that was made with an earlier version."""
    copy = shutil.copytree(run, tmp_path / "run")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"width": 96, "scheme": "e2e:7,e2e"}))
    assert main(["eval", str(copy)]) == 0
    refused(["train", "--config", str(copy / "config.json"), "--out", str(tmp_path / "new")], "--width is 96", capsys)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError(13, "Permission denied", "data/train"), "data/train cannot be read or written (Permission"),
        (OSError(28, "No space left on device"), "the operating system refuses (No space left on device)"),
        (MemoryError(), "there is not enough memory (none is left); choose a smaller network or --batch-size"),
        (RuntimeError("[enforce fail] can't allocate memory: you tried\nmore"), "not enough memory ([enforce fail]"),
        (OverflowError("int too large to convert to float"), "a number is too large to compute with"),
    ],
)
def test_what_the_system_refuses_later_on(error, message, capsys, monkeypatch, tmp_path):
    def raise_it(config):
        raise error

    monkeypatch.setattr("interlocking_backprop.cli.train.Trainer", raise_it)
    refused(["train", "--out", str(tmp_path / "run")], message, capsys)


def test_a_fault_of_the_program_shows_its_traceback(monkeypatch, tmp_path):
    def raise_it(config):
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr("interlocking_backprop.cli.train.Trainer", raise_it)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        main(["train", "--out", str(tmp_path / "run")])


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_the_line_is_the_same_on_terminals_of_every_encoding(encoding):
    """The library that reads the flags draws another box where there are no lines to draw with."""
    command = [sys.executable, "-m", "interlocking_backprop", "train", "--epochs", "-1"]
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 2
    assert done.stderr == "ibp: error: --epochs is -1; expected a whole number of at least 1; see --help.\n"


SWALLOWS = """
import contextlib, signal, sys
from interlocking_backprop.cli.main import main

class Interrupts:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            sys.meta_path.remove(self)
            # As extensions do while they are initialised.
            with contextlib.suppress(BaseException):
                signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, Interrupts())
sys.exit(main(["train", "--components", "0"]))
"""


def test_ctrl_c_while_modules_are_imported_is_not_lost():
    done = subprocess.run([sys.executable, "-c", SWALLOWS], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "ibp: error: interrupted.\n")
