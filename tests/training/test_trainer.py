"""Runs: what they write, and that stopping and going on changes nothing."""

from __future__ import annotations

import json
import signal

import pytest
import torch

import interlocking_backprop as ib
from interlocking_backprop.training.config import TrainConfig
from interlocking_backprop.training.interruption import Stopped
from interlocking_backprop.training.metrics_log import read_metrics
from interlocking_backprop.training.run_folder import RunFolder
from interlocking_backprop.training.trainer import Trainer
from tests.training.traces import traced_names


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def config(out, **changes) -> TrainConfig:
    fields = {
        "scheme": "pairwise:2,e2e",
        "components": 3,
        "architecture": "4,2/8,1",
        "aux_architecture": "gbpl_fc",
        "epochs": 3,
        "batch_size": 200,
        "microbatches": 2,
        "log_every": 2,
        "device": "cpu",
        "quiet": True,
        "out": out,
    }
    return TrainConfig().replace(**{**fields, **changes})


def at_step(trainer: Trainer, step: int, action) -> Trainer:
    """Calls ``action`` before a step."""
    train = trainer.model.training_step

    def step_with_action(inputs, targets):
        if trainer.progress.step == step:
            action()
        return train(inputs, targets)

    trainer.model.training_step = step_with_action
    return trainer


def results(out) -> list[dict]:
    """The metrics without what the clock says."""
    return [
        {k: v for k, v in line.items() if k != "samples_per_second"} for line in read_metrics(out / "metrics.jsonl")
    ]


def states(run, which="last") -> tuple[dict, dict]:
    """The progress of a checkpoint, and the weights of all components."""
    folder = run / "checkpoints"
    folder /= json.loads((folder / "index.json").read_text())[which]
    files = [torch.load(path, weights_only=True) for path in sorted(folder.glob("component-*.pt"))]
    weights = {f"{i}.{name}": value for i, state in enumerate(files) for name, value in state["model"].items()}
    return json.loads((folder / "progress.json").read_text()), weights


def assert_equal_states(a, b, which="last") -> None:
    (progress_a, weights_a), (progress_b, weights_b) = states(a, which), states(b, which)
    assert progress_a == progress_b
    for name, value in weights_a.items():
        assert torch.equal(value, weights_b[name]), name


def assert_equal_runs(a, b) -> None:
    assert results(a) == results(b)
    for which in ("last", "best"):
        assert_equal_states(a, b, which)


def test_what_a_run_leaves(tmp_path):
    scores = Trainer(config(tmp_path / "run")).fit()
    run = RunFolder(tmp_path / "run")
    assert run.config() == config(tmp_path / "run")
    assert {"torch", "command", "python", "processor"} <= json.loads((run.path / "environment.json").read_text()).keys()
    lines = read_metrics(run.metrics)
    assert [line["event"] for line in lines].count("validation") == 3
    assert lines[-1]["event"] == "test"
    assert lines[-1]["exits"] == scores
    assert scores[0] is None  # no head is needed there by pairwise or e2e
    assert 0 <= scores[-1]["accuracy"] <= 1
    assert lines[0]["exit_losses"][1] is not None
    assert list(run.tensorboard.glob("events.*"))
    assert sorted(path.name for path in run.path.iterdir()) == [
        "checkpoints",
        "config.json",
        "environment.json",
        "metrics.jsonl",
        "tensorboard",
    ]


def test_training_learns_something(tmp_path):
    scores = Trainer(config(tmp_path, scheme="e2e", epochs=8, batch_size=50, lr=0.05, microbatches=1)).fit()
    assert scores[-1]["accuracy"] > 0.8


def test_runs_are_deterministic(tmp_path):
    for name in ("a", "b"):
        Trainer(config(tmp_path / name)).fit()
    assert_equal_runs(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize("step", [0, 3, 5, 6, 17])
def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(tmp_path, step):
    """In the middle of an epoch, at its ends, and in the last step of all."""
    Trainer(config(tmp_path / "straight")).fit()
    trainer = at_step(Trainer(config(tmp_path / "run")), step, lambda: signal.raise_signal(signal.SIGINT))
    if step < 17:
        with pytest.raises(Stopped, match=f"stopped at step {step + 1} of 18"):
            trainer.fit()
        assert not any(line["event"] == "test" for line in read_metrics(tmp_path / "run" / "metrics.jsonl"))
        Trainer(config(tmp_path / "run", resume=True)).fit()
    else:
        trainer.fit()
    straight, run = results(tmp_path / "straight"), results(tmp_path / "run")
    # An interruption adds a line of training metrics, with the loss since the last one.
    assert [line for line in run if line["event"] != "train"] == [line for line in straight if line["event"] != "train"]
    assert_equal_states(tmp_path / "straight", tmp_path / "run")


def test_a_crashed_run_goes_on_from_its_last_checkpoint(tmp_path):
    Trainer(config(tmp_path / "straight")).fit()

    def crash():
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        at_step(Trainer(config(tmp_path / "run")), 9, crash).fit()
    assert [line["step"] for line in read_metrics(tmp_path / "run" / "metrics.jsonl")][-1] == 8
    Trainer(config(tmp_path / "run", resume=True)).fit()
    assert_equal_runs(tmp_path / "straight", tmp_path / "run")


def test_a_finished_run_can_be_resumed_to_the_same_end(tmp_path):
    first = Trainer(config(tmp_path)).fit()
    assert Trainer(config(tmp_path, resume=True)).fit() == first


def test_max_steps_ends_a_run_with_an_evaluation(tmp_path):
    Trainer(config(tmp_path, scheme="pairwise", max_steps=4)).fit()
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl") if line["event"] != "train"] == [4, 4]


def test_the_scheme_changes_between_epochs(tmp_path):
    trainer = Trainer(config(tmp_path))
    seen = []
    for step in (0, 11, 12):
        at_step(trainer, step, lambda: seen.append(trainer.model.scheme))
    trainer.fit()
    assert seen == [ib.pairwise(3), ib.pairwise(3), ib.e2e(3)]


@pytest.mark.parametrize("schedule", ["plateau", "multistep", "constant"])
def test_learning_rate_schedules_survive_a_checkpoint(tmp_path, schedule):
    changes = {"lr_schedule": schedule, "optimizer": "adamw", "lr": 1e-3, "aux_lr_factor": 5.0, "max_grad_norm": 1.0}
    Trainer(config(tmp_path / "straight", **changes)).fit()
    with pytest.raises(Stopped):
        at_step(Trainer(config(tmp_path / "run", **changes)), 7, lambda: signal.raise_signal(signal.SIGTERM)).fit()
    Trainer(config(tmp_path / "run", resume=True, **changes)).fit()
    assert_equal_states(tmp_path / "straight", tmp_path / "run")


def test_autocast_trains(tmp_path):
    scores = Trainer(config(tmp_path, scheme="pairwise", autocast="bfloat16", max_steps=3)).fit()
    assert scores[-1]["loss"] > 0


@pytest.mark.parametrize(("max_steps", "n_traced"), [(0, 3), (2, 2)])
def test_a_trace_holds_the_actions_of_so_many_steps(tmp_path, max_steps, n_traced):
    """All that there are, in a run that is shorter."""
    trainer = Trainer(config(tmp_path, scheme="pairwise", epochs=1, max_steps=max_steps, profile=3))
    trainer.fit()
    names = traced_names(tmp_path / "trace-rank0.json.gz")
    assert sum(name.startswith("ProfilerStep#") for name in names) == n_traced
    actions = [str(action) for order in trainer.model.schedule.actions for action in order]
    assert {"0F0", "2L1", "0U"} < set(actions)
    assert {name: names.count(name) for name in actions} == dict.fromkeys(actions, n_traced)
    assert "profile" not in json.loads((tmp_path / "config.json").read_text())  # a run that goes on is not traced again


def test_all_heads_can_be_trained_as_probes(tmp_path):
    scores = Trainer(config(tmp_path, scheme="e2e", heads="all", max_steps=2)).fit()
    assert all(values is not None for values in scores)


class TestRejected:
    def test_a_folder_that_holds_a_run(self, tmp_path):
        Trainer(config(tmp_path, scheme="pairwise", max_steps=1)).fit()
        with pytest.raises(ValueError, match="holds a run already; go on with --resume"):
            Trainer(config(tmp_path, scheme="pairwise", max_steps=1)).fit()

    def test_resuming_nothing(self, tmp_path):
        with pytest.raises(ValueError, match=r"holds no run"):
            Trainer(config(tmp_path, resume=True)).fit()

    def test_resuming_something_else(self, tmp_path):
        Trainer(config(tmp_path, scheme="pairwise", max_steps=1)).fit()
        with pytest.raises(ValueError, match=r"--lr is 0.2, but the run .* was begun with None"):
            Trainer(config(tmp_path, scheme="pairwise", max_steps=1, resume=True, lr=0.2)).fit()

    def test_a_broken_checkpoint(self, tmp_path):
        Trainer(config(tmp_path, scheme="pairwise", max_steps=1)).fit()
        next(tmp_path.glob("checkpoints/*/component-0001.pt")).write_bytes(b"not a checkpoint")
        with pytest.raises(ValueError, match=r"component-0001\.pt cannot be read as a checkpoint of component 1"):
            Trainer(config(tmp_path, scheme="pairwise", max_steps=1, resume=True)).fit()

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"data": "mnist"}, "data set 'mnist' is not known"),
            ({"scheme": "4way"}, "scheme '4way' is not known"),
            ({"device": "warp"}, "--device is 'warp'"),
            ({"device": "cuda:99"}, "--device is 'cuda:99'"),
            ({"components": 30}, "blocks_per_component is 30"),
            ({"blocks_per_component": "1,rest"}, "is for 3 components, the model has 2"),
            ({"architecture": "4;2"}, "architecture '4;2'"),
        ],
    )
    def test_what_cannot_be_had(self, tmp_path, changes, message):
        with pytest.raises(ValueError, match=message):
            Trainer(config(tmp_path, **changes))
        assert not list(tmp_path.iterdir())


def test_a_run_folder_is_named_after_what_it_is():
    assert str(TrainConfig().replace(scheme="local:2,e2e").run_folder) == "runs/digits-resnet-local_2_e2e-k4-s0"
    assert TrainConfig().replace(data="hub:a/b").run_folder.name == "hub_a_b-resnet-e2e-k4-s0"
