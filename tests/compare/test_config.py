"""The flags of a comparison."""

from __future__ import annotations

import re

import pytest

from interlocking_backprop.cli.compare import read_config
from interlocking_backprop.cli.main import main
from interlocking_backprop.compare.config import TUNE_SEED
from interlocking_backprop.compare.runs import grid, slug
from interlocking_backprop.training.config import TrainConfig


def test_lists_are_written_with_commas_or_spaces():
    for words in (["e2e,local,3wise"], ["e2e", "local", "3wise"], ["e2e,local", "3wise"]):
        config = read_config(["--schemes", *words, "--components", "4,8", "--tune-lr", "0.1", "0.2,0.3"])
        assert config.schemes == ("e2e", "local", "3wise")
        assert config.components == (4, 8)
        assert config.tune_lr == (0.1, 0.2, 0.3)


def test_a_word_with_a_colon_is_one_scheme():
    config = read_config(["--schemes", "e2e,local", "local:3,3wise:5,e2e", "pairwise"])
    assert config.schemes == ("e2e", "local", "local:3,3wise:5,e2e", "pairwise")


def test_every_flag_of_training_is_there_but_those_of_the_grid(capsys):
    with pytest.raises(SystemExit):
        read_config(["--help"])
    text = capsys.readouterr().out
    of_the_grid = {"scheme", "components", "seed", "test", "devices", "timeout", "out", "resume", "quiet", "profile"}
    for name in TrainConfig().flat().keys() - of_the_grid:
        assert re.search(rf"--{name.replace('_', '-')}[ ,]", text), name
    for name in of_the_grid - {"components", "out"}:
        assert not re.search(rf"--{name}[ ,]", text), name


def test_the_grid(tmp_path):
    config = read_config(
        ["--schemes", "e2e,local", "--components", "2,3", "--seeds", "2", "--lr", "0.3", "--out", str(tmp_path)]
    )
    runs = grid(config, 1, {("local", 3): {"lr": 0.1}}, config.resolved)
    assert [(r.config.seed, r.config.components, r.config.scheme) for r in runs] == [
        (seed, k, scheme) for seed in (0, 1) for k in (2, 3) for scheme in ("e2e", "local")
    ]
    assert [r.config.optimization.lr for r in runs] == [0.3, 0.3, 0.3, 0.1] * 2
    assert len({r.folder for r in runs}) == 8
    assert all(type(r.config) is TrainConfig and r.config.seed != TUNE_SEED for r in runs)


def test_different_schemes_have_different_folders():
    assert slug("3wise-sum") == "3wise-sum"
    assert (
        len({slug(text) for text in ("a/b.csv", "a_b.csv", "a:b.csv", "local:1,e2e", "local:1_e2e", "e2e~", "e2e*")})
        == 7
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--schemes"], "--schemes is empty; expected at least one value"),
        (["--schemes", "e2e,foo"], "--schemes: scheme 'foo' is not known; expected e2e, local"),
        (["--schemes", "e2e,e2e"], "e2e is there twice"),
        (["--schemes", "e2e,local:2,e2e"], "A word with a colon is one scheme; separate further schemes"),
        (["--schemes", "none.csv"], "none.csv cannot be read"),
        (["--components", "2,x"], "invalid literal for int() with base 10: 'x'"),
        (["--components", "0"], "--components is 0; expected whole numbers of at least 1"),
        (["--components", "99"], "--components is 99; expected at most 4: the 2 blocks of --architecture 4,2"),
        (["--seeds", "0"], "--seeds is 0; expected a whole number of at least 1"),
        (["--jobs", "-1"], "--jobs is -1"),
        (["--seed", "1"], "Unrecognized options: --seed"),
        (["--lr", "0"], "--lr is 0.0; expected a positive number"),
        (["--data", "mnist"], "data set 'mnist' is not known; expected digits"),
        (["--device", "warp"], "--device is 'warp'"),
        (["--tune-epochs", "2"], "--tune-epochs is 2; expected --tune-lr or --tune-aux-lr-factor beside it"),
        (["--tune-lr", "-1"], "--tune-lr is -1.0; expected positive numbers"),
        (
            ["--schemes", "local:3,e2e", "--tune-lr", "0.1", "--tune-epochs", "3"],
            "changes at epoch 3; expected trials that come to its last scheme",
        ),
        (["--link-bandwidth", "0"], "--link-bandwidth is 0.0; expected a positive number of GB/s"),
        (["--pipeline-microbatches", "0"], "--pipeline-microbatches is 0"),
    ],
)
def test_bad_input_gets_one_line_and_exit_code_2(flags, message, capsys, tmp_path):
    assert main(["compare", "--out", str(tmp_path / "out"), "--architecture", "4,2", *flags]) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "out" / "runs").exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["compare", "--out", str(tmp_path / "file")]) == 2
    assert "expected a folder that can be written" in capsys.readouterr().err
