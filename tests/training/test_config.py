"""The configuration: checks, files, and phases."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import interlocking_backprop as ib
from interlocking_backprop.cli.arguments import parse
from interlocking_backprop.cli.train import read_config
from interlocking_backprop.scheme.phases import Phases
from interlocking_backprop.training.config import TrainConfig, load_config
from interlocking_backprop.training.config_groups import Optimization
from interlocking_backprop.training.optimization import SchedulerOf
from interlocking_backprop.training.run_folder import RunFolder
from interlocking_backprop.training.trainer import Trainer


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lr", "0"], "--lr is 0.0; expected a positive number"),
        (["--components", "0"], "--components is 0; expected a whole number of at least 1"),
        (["--batch-size", "-1"], "--batch-size is -1"),
        (["--momentum", "1"], "--momentum is 1.0"),
        (["--milestones", "3", "2"], "--milestones is 3,2; expected ascending epochs"),
        (["--validation-fraction", "1"], "--validation-fraction is 1.0; expected a number between 0 and 1"),
        (["--max-steps", "-5"], "--max-steps is -5"),
        (["--epochs", "x"], "Error parsing --epochs"),
        (["--epoch", "3"], "Unrecognized options: --epoch"),
        (["--optimizer", "lion"], "invalid choice 'lion'"),
    ],
)
def test_bad_flags_get_one_line(arguments, message):
    with pytest.raises(ValueError, match=rf"^{re.escape(message)}") as error:
        parse(TrainConfig, arguments, "ibp train")
    assert "\n" not in str(error.value)


def test_a_saved_configuration_is_read_back(tmp_path):
    config = TrainConfig().replace(
        scheme="local:2,e2e", milestones=(3, 7), augment=False, out=Path("x"), image_size=32, lr=1e-5
    )
    config.save(tmp_path / "c.json")
    assert load_config(tmp_path / "c.json") == config
    assert read_config(["--config", str(tmp_path / "c.json"), "--lr", "0.5"]) == config.replace(lr=0.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "holds a list"),
        ("{", "cannot be read as JSON"),
        ('{"foo": 1}', "--foo is not known; expected the flags of `ibp train --help`"),
        ('{"lr": "a"}', "--lr is 'a'; expected a number"),
        ('{"lr": true}', "--lr is True; expected a number"),
        ('{"lr": 0}', "--lr is 0.0; expected a positive number"),
        ('{"epochs": 1.5}', "--epochs is 1.5; expected a whole number"),
        ('{"epochs": null}', "--epochs is None; expected a whole number"),
        ('{"test": 1}', "--test is 1; expected true or false"),
        ('{"data": 3}', "--data is 3; expected text"),
        ('{"out": 3}', "--out is 3; expected a path"),
        ('{"milestones": 3}', "--milestones is 3; expected a list"),
        ('{"milestones": [3, "x"]}', "--milestones is 'x'; expected a whole number"),
        ('{"optimizer": "lion"}', "--optimizer is 'lion'; expected one of auto, sgd, adamw, muon"),
    ],
)
def test_a_bad_file_is_named(tmp_path, text, message):
    path = tmp_path / "c.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        load_config(path)
    assert str(path) in str(error.value)


def test_a_file_may_hold_some_of_the_fields_and_leaves_the_others_as_they_are(tmp_path):
    """As an earlier version wrote it, whose fields were in no groups."""
    path = tmp_path / "c.json"
    path.write_text('{"lr": 1, "milestones": [2], "devices": ["cpu", "cpu"], "components": 2, "image_size": null}')
    expected = TrainConfig().replace(lr=1.0, milestones=(2,), devices=("cpu", "cpu"), components=2)
    assert load_config(path) == read_config([f"--config={path}"]) == expected
    with pytest.raises(ValueError, match=re.escape("--devices is cpu,cpu; expected one for each of the 3 components")):
        read_config(["--config", str(path), "--components", "3"])


def test_a_field_of_no_group_is_rejected():
    with pytest.raises(TypeError, match="depht"):
        TrainConfig().replace(depht=3)


def test_every_field_is_documented_in_its_group(capsys):
    with pytest.raises(SystemExit):
        parse(TrainConfig, ["--help"], "ibp train")
    text = capsys.readouterr().out
    assert re.findall(r"(\w+) options\b", text) == [
        "network",
        "resnet",
        "transformer",
        "dataset",
        "optimization",
        "execution",
        "parallelism",
        "output",
    ]
    for field in TrainConfig().flat():
        assert f"--{field.replace('_', '-')}" in text


def test_phases():
    phases = Phases.parse("local:2, 3wise:5,e2e", 4)
    assert [phases.at(epoch) for epoch in (0, 1, 2, 4, 5, 99)] == [
        ib.local(4),
        ib.local(4),
        ib.nwise(4, 3),
        ib.nwise(4, 3),
        ib.e2e(4),
        ib.e2e(4),
    ]
    assert Phases.parse("pairwise-sum", 4).schemes == [ib.nwise(4, 2, "sum")]


def test_a_saved_configuration_has_least_delays_written_out(tmp_path):
    config = TrainConfig(scheme="local:1, e2e~").replace(microbatches=2)
    assert config.phases.at(1) == ib.e2e(4).delay([1, 1, 1, 0])
    config.save(tmp_path / "config.json")
    saved = load_config(tmp_path / "config.json")
    assert saved.scheme == "local:1,e2e~1.1.1.0"
    assert saved.replace(microbatches=1).phases == config.phases
    # Going on with the run by the text with which it was begun is going on with the same.
    path = tmp_path / "run"
    path.mkdir()
    config.save(path / "config.json")
    RunFolder.resume(config.replace(out=path))
    with pytest.raises(
        ValueError, match=r"--scheme is local:1,e2e~2\.2\.1\.0, but the run .* with local:1,e2e~1\.1\.1\.0"
    ):
        RunFolder.resume(config.replace(out=path, microbatches=1, scheme="local:1,e2e~"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("local:2", "'local:2' ends"),
        ("local,e2e", "'local' has no end"),
        ("local:5,3wise:5,e2e", "expected an epoch after 5"),
        ("local:x,e2e", "ends at 'x'"),
        ("local:2,foo", "scheme 'foo' is not known"),
        ("", "scheme '' is not known"),
    ],
)
def test_bad_phases_are_rejected(text, message):
    with pytest.raises(ValueError, match=message):
        Phases.parse(text, 4)


def test_learning_rate_schedules():
    def factors(schedule: str, n: int = 10, **changes) -> list[float]:
        optimization = Optimization(lr_schedule=schedule, **changes)
        scheduler = SchedulerOf(optimization, steps_per_epoch=2, n_steps=n, maximize=True)
        return [round(scheduler.factor(step), 4) for step in range(n)]

    assert factors("constant", warmup_epochs=1.5) == [0.3333, 0.6667] + [1.0] * 8
    assert factors("multistep", warmup_epochs=0, milestones=(1, 3), gamma=0.1) == [1, 1] + [0.1] * 4 + [0.01] * 4
    cosine = factors("cosine", warmup_epochs=1)
    assert cosine[:3] == [0.5, 1.0, 1.0]
    assert cosine == sorted(cosine[:2]) + sorted(cosine[2:], reverse=True)
    assert cosine[-1] < 0.05


def test_the_own_head_has_a_learning_rate_of_its_own():
    config = TrainConfig().replace(head_lr_factor=30, lr=0.5, components=2, architecture="4,2", threads=1)
    model = Trainer(config).model
    rates = {
        name: group["initial_lr"]
        for optimizer in model.components[1].optimizers
        for group in optimizer.param_groups
        for name, p in model.components[1].main_net.named_parameters()
        if any(p is other for other in group["params"])
    }
    assert {name: rate for name, rate in rates.items() if rate == 15} == {"head.fc.weight": 15, "head.fc.bias": 15}
    assert len(rates) == len(list(model.components[1].main_net.parameters()))
    with pytest.raises(ValueError, match="--head-lr-factor is 2; expected 1 with --tied"):
        TrainConfig().replace(model="transformer", tied=True, head_lr_factor=2)
