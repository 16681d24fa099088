"""What happens if something goes wrong: in the user's code, and in the arguments."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import interlocking_backprop as ib
from tests.small_models import batch, model_of, sgd, weights
from tests.small_nets import mlp_components


class TestErrors:
    def test_the_users_exception_arrives_as_itself(self):
        class MineError(Exception):
            pass

        class Broken(nn.Module):
            def forward(self, x):
                raise MineError("in the forward pass")

        main_nets, aux_nets = mlp_components(2)
        model = ib.build_model([main_nets[0], Broken()], aux_nets, ib.local(2), sgd, F.mse_loss)
        with pytest.raises(MineError, match="in the forward pass"):
            model.training_step(*batch()).result()

        def broken(output, target):
            raise MineError("in the loss")

        model = ib.build_model(*mlp_components(2), ib.local(2), sgd, broken)
        with pytest.raises(MineError, match="in the loss"):
            model.training_step(*batch()).result()
        assert all(p.grad is None for p in model.parameters())

    def test_a_failed_step_leaves_nothing_behind(self):
        model, other = model_of(ib.e2e(2), n_microbatches=2), model_of(ib.e2e(2), n_microbatches=2)
        x, target = batch()
        failed = []
        loss = model.losses[-1].function
        model.losses[-1].function = lambda o, t: loss(o, t) if len(failed) else failed.append(1)
        with pytest.raises(ValueError, match="returned NoneType"):
            model.training_step(x, target)
        model.training_step(x, target)
        other.training_step(x, target)
        assert torch.equal(weights(model), weights(other))

    def test_a_component_that_changes_its_input_is_named(self):
        nets, heads = mlp_components(2)
        model = ib.build_model(
            [nets[0], nn.Sequential(nn.ReLU(inplace=True), nets[1])], heads, ib.local(2), sgd, F.mse_loss
        )
        with pytest.raises(ValueError, match="component 1 changes its input in place"):
            model.training_step(*batch())

    @pytest.mark.parametrize("scheme", ["e2e", "local"])
    def test_a_head_that_changes_its_input_in_place_is_named(self, scheme):
        nets, heads = mlp_components(2)
        heads = [nn.Sequential(nn.ReLU(inplace=True), heads[0])]
        model = ib.build_model(nets, heads, ib.parse_scheme(scheme, 2), sgd, F.mse_loss)
        x = torch.randn(4, 5).double()
        for call in (lambda: model.training_step(x, x), lambda: model.forward_exits(x)):
            with pytest.raises(ValueError, match="head 0 changes its input in place"):
                call()

    def test_an_output_without_gradient_is_named(self):
        class Cut(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Linear(5, 5).double()

            def forward(self, x):
                return self.layer(x).detach()

        nets, heads = mlp_components(2)
        model = ib.build_model([Cut(), nets[1]], heads, ib.local(2), sgd, F.mse_loss)
        with pytest.raises(ValueError, match=r"output of component 0 carries no gradient|does not depend"):
            model.training_step(*batch())

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"aux_nets": []}, "aux_nets has 0 entries for 3 components; expected 2"),
            ({"aux_nets": [None, None]}, "head 0 is None"),
            ({"aux_nets": ["head", None]}, "head 0 is 'head'"),
            ({"main_nets": []}, "main_nets is empty"),
            ({"scheme": ib.local(4)}, "for 4 components, the model has 3"),
            ({"scheme": [[1]]}, "expected an interlocking_backprop.Scheme"),
            (
                {"scheme": ib.Scheme(np.zeros((3, 3)))},
                "scheme 'custom' trains no main net: all of its coefficients are 0",
            ),
            ({"n_microbatches": 0}, "n_microbatches is 0"),
            ({"n_microbatches": 1.5}, "n_microbatches is 1.5"),
            ({"aux_lr_factor": -1.0}, "aux_lr_factor is -1.0"),
            ({"max_grad_norm": 0.0}, "max_grad_norm is 0.0"),
            ({"loss_function": "mse"}, "the loss function is 'mse'"),
        ],
    )
    def test_bad_arguments_are_rejected(self, change, message):
        main_nets, aux_nets = mlp_components(3)
        arguments = {
            "main_nets": main_nets,
            "aux_nets": aux_nets,
            "scheme": ib.local(3),
            "optimizer_constructor": sgd,
            "loss_function": F.mse_loss,
        }
        with pytest.raises(ValueError, match=message):
            ib.build_model(**{**arguments, **change})

    def test_shared_modules_are_rejected(self):
        main_nets, aux_nets = mlp_components(2)
        with pytest.raises(ValueError, match="module '0' of main net 1 is in main net 0 too"):
            ib.build_model([main_nets[0], main_nets[0]], aux_nets, ib.local(2), sgd, F.mse_loss)

    def test_a_bad_distance_is_rejected(self):
        with pytest.raises(ValueError, match=r"nwise_communication_distance is -1; expected N - 1"):
            ib.build_nwise_model(*mlp_components(2), sgd, None, F.mse_loss, -1)
