"""What a model is made of and keeps: its state, and its random numbers."""

from __future__ import annotations

import pytest
import torch

import interlocking_backprop as ib
from tests.small_models import batch, model_of, weights


class TestState:
    def test_the_state_dict_is_plain(self):
        model = model_of(ib.local(2))
        assert next(iter(model.state_dict())) == "components.0.main_net.0.weight"
        assert all(isinstance(v, torch.Tensor) for v in model.state_dict().values())

    def test_a_restored_model_goes_on_as_if_nothing_had_happened(self, tmp_path):
        options = {
            "aux_lr_factor": 2.0,
            "lr_scheduler_constructor": lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [1, 3], 0.5),
        }
        straight, saved, resumed = (model_of(ib.pairwise(3), **options) for _ in range(3))
        for seed in range(4):
            straight.training_step(*batch(seed=seed))
            straight.lr_scheduler_step()
        for seed in range(2):
            saved.training_step(*batch(seed=seed))
            saved.lr_scheduler_step()
        torch.save({"model": saved.state_dict(), "training": saved.training_state_dict()}, tmp_path / "c.pt")
        checkpoint = torch.load(tmp_path / "c.pt", weights_only=True)
        resumed.load_state_dict(checkpoint["model"])
        resumed.load_training_state_dict(checkpoint["training"])
        for seed in range(2, 4):
            resumed.training_step(*batch(seed=seed))
            resumed.lr_scheduler_step()
        assert torch.equal(weights(straight), weights(resumed))
        assert straight.get_lr() == resumed.get_lr()

    def test_a_state_that_does_not_fit_is_rejected(self):
        with pytest.raises(ValueError, match="state is of 3 components, the model has 2"):
            model_of(ib.local(2)).load_training_state_dict(model_of(ib.local(3)).training_state_dict())
        with pytest.raises(ValueError, match="2 optimizers for a component that has 1"):
            model_of(ib.local(2)).load_training_state_dict(
                model_of(ib.local(2), aux_lr_factor=2.0).training_state_dict()
            )


class TestRandomness:
    def test_a_step_is_deterministic_and_leaves_the_global_generator_alone(self):
        torch.manual_seed(7)
        before = torch.get_rng_state()
        runs = []
        for _ in range(2):
            model = model_of(ib.pairwise(3), n_microbatches=2)
            torch.set_rng_state(before)
            model.training_step(*batch())
            assert torch.equal(torch.get_rng_state(), before)
            runs.append(weights(model))
        assert torch.equal(*runs)

    def test_steps_draw_different_numbers(self):
        model = model_of(ib.e2e(2), optimizer=lambda p: torch.optim.SGD(p, lr=0.0))
        losses = {model.training_step(*batch()).result().item() for _ in range(5)}
        assert len(losses) == 5

    def test_the_seed_is_torchs_by_default(self):
        torch.manual_seed(11)
        assert model_of(ib.local(1), seed=None).seed == 0  # mlp_components seeds with 0
