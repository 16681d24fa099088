"""A run says what it is, in about ten lines, and is none the other for it."""

from __future__ import annotations

import re

import pytest

from interlocking_backprop.cli.main import main

NET = ["--architecture", "4,2/8,1", "--aux-architecture", "gbpl_fc", "--batch-size", "200", "--device", "cpu"]
FLAGS = ["--max-steps", "2", "--threads", "1", "--no-tensorboard"]


def introduced(out, capsys, *flags: str) -> dict[str, str]:
    """What is said before the first epoch, by its names."""
    capsys.readouterr()
    assert main(["train", *FLAGS, "--out", str(out), *flags]) == 0
    lines = capsys.readouterr().out.partition("epoch   1 ")[0].splitlines()
    assert len(lines) <= 10
    return dict(re.split(" {2,}", line, maxsplit=1) for line in lines)


def test_a_resnet_on_one_device(tmp_path, capsys):
    said = introduced(tmp_path / "run", capsys, *NET, "--components", "3", "--scheme", "pairwise-sum", "--epochs", "3")
    balance = said.pop("balance")
    assert said == {
        "folder": str(tmp_path / "run"),
        "data": "digits: 1,197 samples to train on, 200 for validation, 400 for the test",
        "device": "cpu, 1 thread",
        "network": "resnet, 1,686 parameters; heads at exits 0, 1 with 100 more",
        "cut": "stem … layer1_0 | layer1_1 | layer2_0 … head",
        "scheme": "pairwise-sum; losses of the components: 0 + 1 | 1 + 2 | 2",
        "schedule": "a step takes 10 units per micro-batch on one device, the limit is 10; M = 1 "
        "(1 unit: a component's forward pass)",
        "training": "2 steps of 200 samples in 1 epoch; sgd with 0.1 (cosine); seed 0",
    }
    found = re.fullmatch(
        r"(\d+), (\d+), (\d+) % of the operations of a forward pass; the largest has (\S+) times the mean", balance
    )
    *shares, ratio = map(float, found.groups())
    assert 99 <= sum(shares) <= 101
    assert ratio == pytest.approx(3 * max(shares) / 100, abs=0.02)


def test_a_device_for_each_component(tmp_path, capsys):
    flags = ["--components", "2", "--scheme", "e2e", "--devices", "cpu", "cpu", "--microbatches", "2"]
    said = introduced(tmp_path / "run", capsys, *NET, *flags)
    assert said["device"] == "cpu, 1 thread"
    assert said["network"].endswith("no heads")
    assert said["schedule"].startswith("a step takes 3.5 units per micro-batch on 2 devices, the limit is 3; M = 2 ")


def test_a_transformer_with_phases(tmp_path, capsys):
    text = tmp_path / "text.txt"
    text.write_text("To be, or not to be, that is the question.\n" * 200)
    shape = ["--width", "8", "--depth", "2", "--attention-heads", "2", "--context", "16", "--batch-size", "8"]
    flags = ["--model", "transformer", "--data", f"text:{text}", "--data-root", str(tmp_path), *shape, "--tied"]
    said = introduced(
        tmp_path / "run", capsys, *flags, "--components", "2", "--scheme", "decay0.5:1,e2e", "--epoch-steps", "1"
    )
    assert said["cut"] == "embedding … block1 | head"
    assert said["scheme 0"] == "until epoch 1 decay0.5; losses of the components: 0 + 0.5 x 1 | 1"
    assert said["scheme 1"] == "then e2e; losses of the components: 1 | 1"
    assert "adamw with 0.001 (cosine)" in said["training"]


@pytest.mark.parametrize(
    ("scheme", "words"),
    [
        ("9wise", "9wise, which is e2e with 2 components; losses of the components: 1 | 1"),
        ("pairwise", "pairwise, which is e2e with 2 components; losses"),
        ("pairwise-sum", "pairwise-sum, which is deep-supervision with 2 components; losses"),
        ("e2e", "e2e; losses"),
        ("local", "local; losses of the components: 0 | 1"),
    ],
)
def test_a_scheme_that_has_another_name_with_so_many_components(scheme, words, tmp_path, capsys):
    said = introduced(tmp_path / "run", capsys, *NET, "--components", "2", "--scheme", scheme)
    assert said["scheme"].startswith(words)


def test_it_is_left_out_where_nothing_is_to_be_shown_and_changes_nothing(tmp_path, capsys):
    flags = [*NET, "--components", "2", "--scheme", "local", "--epochs", "1"]
    introduced(tmp_path / "shown", capsys, *flags)
    assert main(["train", *FLAGS, *flags, "--quiet", "--out", str(tmp_path / "quiet")]) == 0
    assert capsys.readouterr().out == ""
    shown, quiet = ((tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("shown", "quiet"))
    assert shown[-2:] == quiet[-2:]
