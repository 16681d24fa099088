"""What would never be trained, or not as meant, is said before or after the first step."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

import interlocking_backprop as ib
from interlocking_backprop.bench.processes import on_ranks
from tests.small_models import batch, model_of, sgd, weights
from tests.small_nets import mlp_components


def said(call) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [str(w.message) for w in caught]


class TestNeverTrained:
    def test_a_head_that_has_been_replaced(self):
        model = model_of(ib.local(2))
        model.components[0].aux_net = nn.Linear(5, 5).double()
        with pytest.raises(
            ValueError, match=r"component 0 has parameters .*\(aux_net.weight, aux_net.bias\).*build_model"
        ):
            model.training_step(*batch())

    def test_a_layer_that_has_been_appended_later(self):
        model = model_of(ib.local(2))
        model.training_step(*batch())
        model.components[1].main_net.append(nn.Linear(5, 5).double())
        model.train()
        with pytest.raises(ValueError, match=r"component 1 has parameters .*\(main_net.5.weight, main_net.5.bias\)"):
            model.training_step(*batch())
        for p in model.components[1].main_net[-1].parameters():
            p.requires_grad_(False)
        model.training_step(*batch())

    @pytest.mark.parametrize("calls_train", [True, False])
    def test_a_head_that_is_replaced_in_mid_run(self, calls_train):
        """The next step says so, whether train() is called between them or not; the weights stay as they are."""
        model = model_of(ib.local(2))
        model.training_step(*batch())
        model.components[0].aux_net = nn.Linear(5, 5).double()
        if calls_train:
            model.train()
        before = copy.deepcopy(model.state_dict())
        for _ in range(2):
            with pytest.raises(ValueError, match=r"component 0 has parameters .*\(aux_net.weight, aux_net.bias\)"):
                model.training_step(*batch())
        assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())

    def test_a_net_with_the_same_weights_may_replace_another(self):
        """As torch.compile makes one."""
        model, other = model_of(ib.local(2)), model_of(ib.local(2))
        for m in (model, other):
            m.training_step(*batch())
        model.components[0].main_net = nn.Sequential(model.components[0].main_net)
        model.components[0].aux_net = nn.Sequential(model.components[0].aux_net)
        for m in (model, other):
            m.training_step(*batch())
        assert torch.equal(weights(model), weights(other))

    @pytest.mark.parametrize("steps_before", [0, 1])
    def test_a_head_that_is_gone_or_new(self, steps_before):
        """Without its head the output of a component itself would have gone into the loss."""
        nets, heads = mlp_components(3)
        model = ib.build_model(nets, [heads[0], None], ib.Scheme([[1, 0, 0], [0, 0, 1], [0, 0, 1]]), sgd, F.mse_loss)
        for _ in range(steps_before):
            model.training_step(*batch())
        model.components[0].aux_net = None
        with pytest.raises(ValueError, match="component 0 had a head when the model was built, and now it has none"):
            model.training_step(*batch())
        model.components[0].aux_net = heads[0]
        for i in (1, 2):
            model.components[i].aux_net = nn.ReLU()
            with pytest.raises(ValueError, match=f"component {i} had no head when .* now it has one"):
                model.training_step(*batch())
            model.components[i].aux_net = None
        model.training_step(*batch())

    @pytest.mark.parametrize("steps_before", [0, 1])
    def test_a_parameter_that_is_unfrozen_and_in_no_optimizer(self, steps_before):
        def of_the_trainable(parameters):
            return sgd([p for p in parameters if p.requires_grad])

        nets, heads = mlp_components(2)
        nets[1][0].weight.requires_grad_(False)
        model = ib.build_model(nets, heads, ib.local(2), of_the_trainable, F.mse_loss)
        for _ in range(steps_before):
            model.training_step(*batch())
        nets[1][0].weight.requires_grad_(True)
        with pytest.raises(ValueError, match=r"parameter 'main_net.0.weight' of component 1 is in no optimizer"):
            model.training_step(*batch())
        model.components[1].optimizer.add_param_group({"params": [nets[1][0].weight]})
        before = nets[1][0].weight.detach().clone()
        model.training_step(*batch())
        assert not torch.equal(before, nets[1][0].weight)

    def test_on_ranks_too(self):
        assert all("component 1 has parameters" in message for message in on_ranks(2, _appended))
        assert all("component 1 has parameters" in message for message in on_ranks(2, _replaced))

    @pytest.mark.parametrize("when", ["before", "after"])
    def test_a_sharded_component(self, when):
        (message,) = on_ranks(1, _sharded, when)
        assert "component 0 is sharded (main_net is a FSDPSequential), and gets no gradient" in message

    def test_a_loss_with_weights(self):
        class Centers(nn.Module):
            def __init__(self):
                super().__init__()
                self.centers = nn.Parameter(torch.zeros(5).double())

            def forward(self, output, target):
                return (output - self.centers).square().mean()

            def to_centers(self, output, target):
                return self(output, target)

        centers = Centers()
        for loss in (centers, centers.to_centers):
            with pytest.raises(
                ValueError, match=r"the loss .*Centers.* has the parameters 'centers', which nothing would"
            ):
                ib.build_model(*mlp_components(2), ib.local(2), sgd, F.mse_loss, aux_loss_function=loss)
        centers.requires_grad_(False)
        ib.build_model(*mlp_components(2), ib.local(2), sgd, centers).training_step(*batch())

    def test_a_loss_may_use_the_weights_of_its_head(self):
        class Decaying(nn.Module):
            def __init__(self, head):
                super().__init__()
                self.head = head

            def forward(self, output, target):
                return output.square().mean() + self.head[0].weight.square().sum()

        nets, heads = mlp_components(2)
        before = heads[0][0].weight.detach().clone()
        model = ib.build_model(nets, heads, ib.e2e(2), sgd, F.mse_loss, aux_loss_function=[Decaying(heads[0])])
        model.training_step(*batch())
        assert not torch.equal(before, heads[0][0].weight)


class TestNotAsMeant:
    def test_a_step_in_evaluation_mode(self):
        model = model_of(ib.local(2))
        assert said(lambda: model.training_step(*batch())) == []
        model.eval()
        (message,) = said(lambda: model.training_step(*batch()))
        assert "training_step() in evaluation mode" in message
        assert "Call model.train()" in message

    def test_nets_that_come_in_evaluation_mode(self):
        nets, heads = mlp_components(3)
        nets[0].eval()
        nets[1].eval().requires_grad_(False)  # frozen, and so it may stay
        nets[2][0].eval()  # a single layer, on purpose
        model = ib.build_model(nets, heads, ib.local(3), sgd, F.mse_loss)
        (message,) = said(lambda: model.training_step(*batch()))
        assert "the main nets of components [0] are trained in evaluation mode" in message
        model.train()
        assert said(lambda: model.training_step(*batch())) == []

    def test_the_warning_points_to_the_users_line(self):
        model = model_of(ib.local(2)).eval()
        with pytest.warns(UserWarning, match="evaluation mode") as caught:
            model.training_step(*batch())
        assert caught[0].filename == __file__

    def test_clipping_after_a_step(self):
        model = model_of(ib.local(2))
        model.training_step(*batch())
        assert said(lambda: list(model.parameters())) == []
        (message,) = said(lambda: nn.utils.clip_grad_norm_(model.parameters(), 1.0))
        assert "clip_grad_norm_() finds no gradients and clips nothing" in message
        assert "build_model(max_grad_norm=" in message

    def test_clipping_gradients_that_are_there(self):
        model = model_of(ib.local(2))
        for p in model.parameters():
            p.grad = torch.ones_like(p)
        assert said(lambda: nn.utils.clip_grad_norm_(model.parameters(), 1.0)) == []
        assert torch.stack([p.grad.norm() for p in model.parameters()]).norm().item() == pytest.approx(1)

    @pytest.mark.parametrize("name", ["network_inputs", "component_inputs", "components", "networkinput"])
    def test_a_misspelt_argument_of_a_loss(self, name):
        loss = eval(f"lambda output, target, {name}=None: 0")
        (message,) = said(lambda: model_of(ib.local(2), aux_loss_function=loss))
        assert f"has a parameter {name!r}, which it never gets; '" in message

    def test_a_loss_that_cannot_be_called_so(self):
        for loss in (lambda output: 0, lambda output, target, teacher: 0, F.triplet_margin_loss):
            with pytest.raises(
                ValueError, match=r"the loss .* cannot be called as loss\(output, target\): .* Beside these"
            ):
                model_of(ib.local(2), aux_loss_function=loss)

    def test_running_averages_of_batch_norm_per_step(self):
        """A batch of equal parts moves them as far in four micro-batches as in one."""
        part = torch.randn(2, 3)
        means = []
        for m in (1, 4):
            net = nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm1d(3, momentum=None), nn.Linear(3, 3))
            ib.set_batch_norm_momentum(net, m, 0.3)
            model = ib.build_e2e_model([net], sgd, None, F.mse_loss, n_microbatches=m)
            for _ in range(2):
                model.training_step(part.repeat(4, 1), part.repeat(4, 1))
            means.append(net[0].running_mean)
            assert net[1].momentum is None
        torch.testing.assert_close(means[0], part.mean(0) * (1 - 0.7**2))
        torch.testing.assert_close(means[0], means[1])

    def test_a_momentum_out_of_range(self):
        for m, momentum, message in (
            (0, 0.1, "n_microbatches is 0"),
            (2, 1.5, "momentum is 1.5; expected a number from 0"),
        ):
            with pytest.raises(ValueError, match=message):
                ib.set_batch_norm_momentum(nn.BatchNorm1d(3), m, momentum)


def _appended(rank: int, size: int) -> str:
    model = model_of(ib.local(2))
    model.enable_model_parallel()
    model.components[1].main_net.append(nn.Linear(5, 5).double())
    try:
        model.training_step(*(batch() if rank == 0 else (None, None)))
    except Exception as error:
        return str(error)
    return "nothing was said"


def _replaced(rank: int, size: int) -> str:
    """In mid-run, without a call of train() in between."""
    model = model_of(ib.local(3))
    model.enable_model_parallel()
    model.training_step(*(batch() if rank == 0 else (None, None)))
    model.components[1].aux_net = nn.Linear(5, 5).double()
    try:
        model.training_step(*(batch() if rank == 0 else (None, None)))
    except ValueError as error:
        return str(error)
    return "nothing was said"


def _sharded(rank: int, size: int, when: str) -> str:
    from torch.distributed.fsdp import fully_shard

    mesh = dist.init_device_mesh("cpu", (1,))
    nets, heads = mlp_components(2)
    if when == "before":
        fully_shard(nets[0], mesh=mesh)
    model = ib.build_model(nets, heads, ib.local(2), sgd, F.mse_loss)
    if when == "after":
        fully_shard(nets[0], mesh=mesh)
    try:
        model.training_step(*batch())
    except ValueError as error:
        return str(error)
    return "nothing was said"
