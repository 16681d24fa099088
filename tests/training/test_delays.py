"""Runs whose credit is late: delays that are saved as numbers, and learning rates that fall with them."""

from __future__ import annotations

import json
import signal

import pytest

from interlocking_backprop.cli.main import main
from interlocking_backprop.training.config import TrainConfig
from interlocking_backprop.training.interruption import Stopped
from interlocking_backprop.training.trainer import Trainer
from tests.training.test_trainer import at_step, config

LATE = "pairwise+e2e~2.1.0"


def rates(trainer: Trainer) -> list[list[float]]:
    """Of every optimizer of each component, the main net's first."""
    return [[o.param_groups[0]["lr"] for o in component.optimizers] for component in trainer.model.components]


def rates_at_every_step(trainer: Trainer) -> dict[int, list[list[float]]]:
    """Trains to the end; returns the rates with which each step was taken."""
    found = {}
    for step in range(trainer.n_steps):
        at_step(trainer, step, lambda: found.update({trainer.progress.step: rates(trainer)}))
    trainer.fit()
    return found


@pytest.mark.parametrize(
    ("scheme", "microbatches", "resolved"),
    [
        ("e2e", 2, "e2e"),
        ("local:2, e2e", 2, "local:2, e2e"),
        ("e2e~", 1, "e2e~3.2.2.1.0"),
        ("e2e~", 2, "e2e~2.1.1.1.0"),
        ("e2e:3,0.5*pairwise+0.5*e2e~", 2, "e2e:3,0.5*pairwise+0.5*e2e~2.1.1.1.0"),
        ("pipedream", 2, "pipedream"),
    ],
)
def test_least_delays_are_written_out(scheme, microbatches, resolved):
    asked = TrainConfig().replace(scheme=scheme, components=5, microbatches=microbatches)
    assert asked.resolved_scheme == resolved
    numbers = asked.replace(scheme=resolved, microbatches=7)
    assert numbers.phases == asked.phases
    assert numbers.resolved_scheme == resolved


def test_a_run_that_goes_on_has_the_delays_that_were_saved(tmp_path, monkeypatch, capsys):
    net = ["--architecture", "4,2/8,1", "--aux-architecture", "gbpl_fc", "--device", "cpu", "--threads", "1", "--quiet"]
    flags = ["train", "--scheme", "e2e~", "--components", "3", "--max-steps", "2", "--out", str(tmp_path / "run"), *net]
    assert main(flags) == 0
    saved = (tmp_path / "run" / "config.json").read_text()
    assert json.loads(saved)["scheme"] == "e2e~2.1.0"
    assert main([*flags, "--resume"]) == 0

    # As a later version might have it.
    monkeypatch.setattr("interlocking_backprop.training.config.least_delays", lambda scheme, n_microbatches: (7, 7, 7))
    assert main(["train", "--out", str(tmp_path / "run"), "--resume", "--quiet"]) == 0
    assert (tmp_path / "run" / "config.json").read_text() == saved
    capsys.readouterr()
    assert main([*flags, "--resume"]) == 2
    assert "--scheme is e2e~7, but the run in" in capsys.readouterr().err


@pytest.mark.parametrize(("power", "factors"), [({}, [3**-0.5, 2**-0.5]), ({"delay_lr_power": 1.0}, [1 / 3, 1 / 2])])
def test_rates_fall_with_the_delay_of_the_scheme_in_force(tmp_path, power, factors):
    """And those of the heads do not, with warm-up and cosine."""
    trainer = Trainer(config(tmp_path, scheme=f"pairwise:1,{LATE}:2,e2e", aux_lr_factor=3.0, lr=0.01, **power))
    found = rates_at_every_step(trainer)
    assert len(found) == 18
    for step, by_component in found.items():
        a, b = factors if 6 <= step < 12 else [1.0, 1.0]
        rate = 0.01 * trainer.scheduler.factor(step)
        expected = [[a * rate], [b * rate, 3 * rate], [rate, 3 * rate][:1]]
        assert by_component == [pytest.approx(rates) for rates in expected], step


def test_rates_fall_from_the_first_step_on_and_after_an_interruption(tmp_path):
    changes = {"scheme": f"{LATE}:1,e2e", "lr": 0.01, "epochs": 2}
    straight = rates_at_every_step(Trainer(config(tmp_path / "straight", **changes)))
    assert straight[5][0][0] == pytest.approx(3**-0.5 * straight[5][2][0])
    for step in (3, 5, 7):
        run = tmp_path / str(step)
        with pytest.raises(Stopped):
            at_step(Trainer(config(run, **changes)), step, lambda: signal.raise_signal(signal.SIGINT)).fit()
        resumed = rates_at_every_step(Trainer(config(run, resume=True, **changes)))
        assert resumed == {later: straight[later] for later in range(step + 1, 12)}


@pytest.mark.parametrize("changes", [{"scheme": "pairwise"}, {"scheme": LATE, "delay_lr_power": 0.0}])
def test_where_nothing_falls_main_net_and_head_share_an_optimizer(tmp_path, changes):
    trainer = Trainer(config(tmp_path, **changes))
    found = rates_at_every_step(trainer)
    for step, by_component in found.items():
        assert by_component == [[0.1 * trainer.scheduler.factor(step)]] * 3
    assert "rate_factor" not in trainer.model.components[0].optimizer.param_groups[0]


def test_a_run_says_its_delays_and_its_rates(tmp_path, capsys):
    net = ["--architecture", "4,2/8,1", "--aux-architecture", "gbpl_fc", "--device", "cpu", "--no-tensorboard"]
    scheme = ["--scheme", "0.5*pairwise+0.5*e2e~", "--components", "3", "--max-steps", "1"]
    assert main(["train", *scheme, *net, "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "scheme    0.5*pairwise+0.5*e2e~2.1.0; losses of the components: 0.5 x 1 + 0.5 x 2 (age 2) | " in said
    assert "rates     of the components, times 0.5*pairwise+0.5*e2e~2.1.0: 0.577 | 0.707 | 1" in said
