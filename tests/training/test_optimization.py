"""Which weights get which optimizer, at which learning rate."""

from __future__ import annotations

from collections import defaultdict

import pytest

import interlocking_backprop as ib
from interlocking_backprop.training.config import TrainConfig
from interlocking_backprop.training.trainer import Trainer
from tests.text.made import write_texts


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    """Makes trainers of small Transformers in three components, the embedding in the first with a block."""
    folder = tmp_path_factory.mktemp("text")
    write_texts(folder / "corpus")

    def made(**changes) -> Trainer:
        shape = {"model": "transformer", "width": 8, "depth": 2, "attention_heads": 2, "context": 16}
        where = {"data": f"text:{folder / 'corpus'}", "data_root": folder, "device": "cpu"}
        fields = {"components": 3, "blocks_per_component": "2,1,rest", "scheme": "local", "optimizer": "muon"}
        return Trainer(TrainConfig().replace(**{**shape, **where, **fields, "batch_size": 8, **changes}))

    return made


def settings(model: ib.InterlockingBackpropModel, name: str) -> dict[str, dict[str, float]]:
    """Of every optimizer by its class, one setting of each parameter that it holds, by name."""
    names = {p: n for n, p in model.components.named_parameters()}
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for optimizer in (o for component in model.components for o in component.optimizers):
        for group in optimizer.param_groups:
            found[type(optimizer).__name__] |= {names[p]: group[name] for p in group["params"]}
    return found


@pytest.mark.parametrize("changes", [{}, {"tied": True}, {"aux_rank": 4, "aux_lr_factor": 1.0}])
def test_muon_has_the_matrices_from_layer_to_layer_and_adamw_the_rest(trainer, changes):
    model = trainer(**changes).model
    found = settings(model, "weight_decay")
    assert sorted(found["Muon"]) == [
        f"{net}.{name}.weight"
        for net in ("0.main_net.block0", "1.main_net.block1")
        for name in ("attention.projection", "attention.qkv", "mlp.expansion", "mlp.projection")
    ]
    assert {"0.main_net.embedding.tokens.weight", "0.aux_net.projection.weight"} < found["AdamW"].keys()
    assert found["Muon"].keys() | found["AdamW"].keys() == dict(model.components.named_parameters()).keys()
    assert set(found["Muon"].values()) == {0.1}
    decays = {name for name, value in found["AdamW"].items() if value == 0.1}
    assert decays == {name for name in found["AdamW"] if model.components.get_parameter(name).dim() > 1}


def test_a_component_of_the_embedding_alone_has_no_muon(trainer):
    model = trainer(blocks_per_component="1,2,rest", scheme="e2e").model
    names = [[type(o).__name__ for o in component.optimizers] for component in model.components]
    assert names == [["AdamW"], ["Muon", "AdamW"], ["AdamW"]]


def test_the_rates_of_muon_and_adamw_rise_and_fall_together(trainer):
    made = trainer(lr=0.5, adamw_lr=0.01, aux_lr_factor=3.0, head_lr_factor=7.0, epochs=1, epoch_steps=8)
    for step in range(8):
        factor = made.scheduler.factor(step)
        assert 0 < factor <= 1
        found = settings(made.model, "lr")
        assert found["Muon"] == pytest.approx(dict.fromkeys(found["Muon"], 0.5 * factor))
        for name, rate in found["AdamW"].items():
            times = 3.0 if "aux_net" in name else 7.0 if name.startswith("2.main_net.head") else 1.0
            assert rate == pytest.approx(0.01 * times * factor), name
        made.model.lr_scheduler_step()


def test_all_rates_fall_on_a_plateau(trainer):
    model = trainer(lr=0.5, adamw_lr=0.01, aux_lr_factor=1.0, lr_schedule="plateau").model
    for _ in range(7):
        model.lr_scheduler_step(1.0)
    for kind, expected in (("Muon", 0.05), ("AdamW", 0.001)):
        rates = settings(model, "lr")[kind]
        assert rates == pytest.approx(dict.fromkeys(rates, expected))
