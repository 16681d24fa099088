"""Exceptions of the user's nets and losses keep their type and name the component, the micro-batch and the shapes."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import interlocking_backprop as ib
from interlocking_backprop.bench.processes import Ranks
from interlocking_backprop.engine import failures
from tests.small_models import batch, sgd
from tests.small_nets import mlp_components


def model_of(nets=None, heads=None, scheme="local", loss=F.mse_loss, m: int = 1, **options):
    own_nets, own_heads = mlp_components(2)
    nets, heads = nets or own_nets, heads or own_heads
    return ib.build_model(nets, heads, ib.parse_scheme(scheme, 2), sgd, loss, n_microbatches=m, **options)


def narrow() -> nn.Module:
    return nn.Linear(4, 5).double()


def noted(call, kind=RuntimeError, match="mat1 and mat2") -> list[str]:
    with pytest.raises(kind, match=match) as caught:
        call()
    assert type(caught.value) is kind
    return caught.value.__notes__


def test_a_main_net_that_does_not_fit():
    model = model_of([mlp_components(1)[0][0], narrow()], m=3)
    expected = ["component 1 got (2, 5) float64", "in component 1, forward pass, micro-batch 0 of 3 (action 1F0)"]
    assert noted(lambda: model.training_step(*batch())) == expected
    assert noted(lambda: model(batch()[0])) == [
        "component 1 got (6, 5) float64",
        "in component 1, forward pass, micro-batch 0 of 1 (action 1F0)",
    ]


def test_a_head_that_does_not_fit():
    model = model_of(heads=[narrow()])
    expected = ["head 0 got (6, 5) float64", "in component 0, head and loss, micro-batch 0 of 1 (action 0L0)"]
    assert noted(lambda: model.training_step(*batch())) == expected
    assert noted(lambda: model.forward_exits(batch()[0]))[0] == "head 0 got (6, 5) float64"


def test_a_loss_that_does_not_fit():
    model = model_of(loss=F.cross_entropy, m=2)
    notes = noted(lambda: model.training_step(batch()[0], torch.full((6,), 7)), IndexError, "Target 7 is out of bounds")
    assert notes == [
        "loss 0 got an output and a target: (3, 5) float64, (3,) int64",
        "in component 0, head and loss, micro-batch 0 of 2 (action 0L0)",
    ]


def test_a_backward_pass_that_fails():
    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            raise KeyError("mine")

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(5, 5).double()

        def forward(self, x):
            return Broken.apply(self.layer(x))

    model = model_of([Net(), Net()], m=2)
    notes = noted(lambda: model.training_step(*batch()), KeyError, "mine")
    assert notes == ["in component 0, backward pass, micro-batch 0 of 2 (action 0W0)"]


@pytest.mark.parametrize("scheme", ["e2e", "local"])
@pytest.mark.parametrize("trains", [True, False])
def test_an_operation_in_place_at_the_beginning_of_a_component(scheme, trains):
    """Autograd itself refuses some of them, with a message that names nothing."""
    first, second = mlp_components(2)[0]
    second.requires_grad_(trains)
    model = model_of([first, nn.Sequential(nn.Flatten(), nn.ReLU(inplace=True), second)], scheme=scheme)
    with pytest.raises(ValueError, match=r"component 1 changes its input in place, which is the output of component 0"):
        model.training_step(*batch())


def test_a_weight_that_is_changed_in_place_is_not_taken_for_the_input():
    class Drifting(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(5).double())

        def forward(self, x):
            return x * self.weight.add_(1)

    model = model_of([mlp_components(1)[0][0], Drifting()], scheme="e2e")
    notes = noted(lambda: model.training_step(*batch()), match="a leaf Variable that requires grad")
    assert notes[0] == "component 1 got (6, 5) float64"


def test_before_python_3_11_the_message_says_it():
    class OldError(RuntimeError):
        add_note = property()  # what is not there

    error = OldError("shapes")
    failures.add_shapes(error, "head 0 got", {"a": torch.zeros(2), "b": 1})
    assert str(error) == "shapes\nhead 0 got (2,) float32"
    error = OldError(1, 2)
    failures.add_shapes(error, "head 0 got", None)
    assert error.args == (1, 2)


def _fails(rank: int, size: int) -> None:
    model = model_of([mlp_components(1)[0][0], narrow()], m=2)
    model.enable_model_parallel()
    model.training_step(*(batch() if rank == 0 else (None, None)))
    model.training_step(*(batch() if rank == 0 else (None, None)))


def test_all_ranks_say_it():
    with Ranks(2, _fails) as ranks:
        assert all(code != 0 for code in ranks.join())
        for stderr in ranks.errors():
            assert "mat1 and mat2" in stderr
            assert "component 1 got (3, 5) float64" in stderr
