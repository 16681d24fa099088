"""The model as its users meet it: inputs, losses, evaluation, optimizers, schemes."""

from __future__ import annotations

import copy
from concurrent.futures import Future

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import interlocking_backprop as ib
from tests.small_models import batch, model_of, sgd, weights
from tests.small_nets import Recorder, mlp_components, recorded


class TestInputs:
    def test_nested_activations_with_integer_and_boolean_leaves(self):
        """A mask and token ids travel beside the activations and carry no gradient."""

        class Embed(nn.Module):
            def __init__(self):
                super().__init__()
                self.table = nn.Embedding(7, 4, dtype=torch.double)

            def forward(self, batch):
                ids, mask = batch["ids"], batch["mask"]
                return {"h": (self.table(ids), self.table(ids).sin()), "ids": ids, "mask": mask, "depth": 1}

        class Middle(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Linear(4, 4).double()

            def forward(self, state):
                a, b = state["h"]
                assert not state["mask"].requires_grad
                return state | {
                    "h": (torch.tanh(self.layer(a)) * state["mask"][..., None], b),
                    "depth": state["depth"] + 1,
                }

        class Last(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Linear(4, 2).double()

            def forward(self, state):
                assert state["depth"] == 2
                return self.layer(state["h"][0] + state["h"][1]).sum(1)

        nets = [Embed(), Middle(), Last()]
        heads = [Middle(), Middle()]  # of the same kind, so that heads see the structure too
        head_loss = lambda out, target: F.mse_loss(out["h"][0].mean((1, 2)), target[:, 0])  # noqa: E731
        inputs = {"ids": torch.randint(0, 7, (5, 3)), "mask": torch.rand(5, 3) > 0.3}
        target = torch.randn(5, 2).double()
        model = ib.build_model(
            nets, heads, ib.nwise(3, 2, "sum"), Recorder, F.mse_loss, aux_loss_function=head_loss, n_microbatches=2
        )
        model.training_step(inputs, target).result()

        y0 = nets[0](inputs)
        y1 = nets[1](y0)
        y2 = nets[2](y1)
        losses = [head_loss(heads[0](y0), target), head_loss(heads[1](y1), target), F.mse_loss(y2, target)]
        for i, net in enumerate(nets):
            wanted = sum(losses[i : i + 2])
            for p, grad in zip(
                net.parameters(), torch.autograd.grad(wanted, list(net.parameters()), retain_graph=True), strict=True
            ):
                torch.testing.assert_close(recorded(model, p), grad, rtol=0, atol=1e-10)
        assert torch.equal(model(inputs), y2)

    def test_a_component_may_pass_its_input_on(self):
        class Identity(nn.Module):
            def forward(self, x):
                return x

        main_nets, aux_nets = mlp_components(3)
        model = ib.build_model(
            [main_nets[0], Identity(), main_nets[2]], aux_nets, ib.nwise(3, 3, "sum"), Recorder, F.mse_loss
        )
        x, target = batch()
        model.training_step(x, target)
        y = main_nets[0](x)
        losses = [F.mse_loss(head(y), target) for head in aux_nets] + [F.mse_loss(main_nets[2](y), target)]
        expected = torch.autograd.grad(sum(losses), list(main_nets[0].parameters()))
        for p, grad in zip(main_nets[0].parameters(), expected, strict=True):
            torch.testing.assert_close(recorded(model, p), grad, rtol=0, atol=1e-12)

    @pytest.mark.parametrize(
        ("inputs", "message"),
        [
            (torch.zeros(0, 5), "the batch is empty"),
            (torch.tensor(1.0), "no tensor with a batch dimension"),
            ((torch.zeros(3, 5), torch.zeros(4, 5)), "different leading sizes"),
            ([1, "a"], "no tensor with a batch dimension"),
        ],
    )
    def test_bad_batches_are_rejected(self, inputs, message):
        with pytest.raises(ValueError, match=message):
            model_of(ib.local(2)).training_step(inputs, torch.zeros(3, 5))

    def test_targets_of_another_size_are_rejected(self):
        x, target = batch()
        with pytest.raises(ValueError, match=r"targets has shape \(5, 5\), the inputs have 6 samples"):
            model_of(ib.local(2), n_microbatches=2).training_step(x, target[:5])


class TestLosses:
    def test_training_step_returns_a_future_of_the_loss(self):
        model = model_of(ib.local(3), n_microbatches=2)
        x, target = batch()
        future = model.training_step(x, target)
        assert isinstance(future, Future)
        loss = future.result()
        assert loss.shape == ()
        assert not loss.requires_grad
        assert len(model.exit_losses) == 3
        assert torch.equal(model.exit_losses[2], loss)

    def test_an_auxiliary_loss_may_ask_for_the_inputs(self):
        """Reconstruction losses as in InfoPro: the component's input and the network's, detached."""
        seen = []

        def reconstruct(output, target, component_input, network_input):
            assert not component_input.requires_grad
            assert not network_input.requires_grad
            seen.append((component_input, network_input))
            return F.mse_loss(output, component_input) + F.mse_loss(output, network_input)

        reconstruct.n_samples = len  # or it would be called once more, to be compared with the batch as a whole
        main_nets, aux_nets = mlp_components(3)
        model = ib.build_model(
            main_nets, aux_nets, ib.pairwise(3), Recorder, F.mse_loss, aux_loss_function=reconstruct, n_microbatches=2
        )
        x, target = batch(4)
        model.training_step(x, target)
        y0 = main_nets[0](x)
        assert torch.equal(torch.cat([n for _, n in seen[::2]]), x)
        torch.testing.assert_close(torch.cat([c for c, _ in seen[1::2]]), y0.detach())
        y1_loss = reconstruct(aux_nets[1](main_nets[1](y0)), target, y0.detach(), x)
        for p, grad in zip(
            main_nets[0].parameters(), torch.autograd.grad(y1_loss, list(main_nets[0].parameters())), strict=True
        ):
            torch.testing.assert_close(recorded(model, p), grad, rtol=0, atol=1e-12)

    def test_a_loss_that_is_no_mean_is_rejected(self):
        model = model_of(ib.local(2))
        model.losses[-1].function = lambda o, t: (o - t) ** 2
        with pytest.raises(ValueError, match=r"returned shape \(6, 5\); expected a tensor without dimensions"):
            model.training_step(*batch())

    def test_a_loss_without_gradient_is_rejected(self):
        nets = mlp_components(2)
        model = ib.build_model(*nets, ib.local(2), sgd, lambda o, t: F.mse_loss(o.detach(), t))
        with pytest.raises(ValueError, match="does not depend on the output"):
            model.training_step(*batch())


class TestEvaluation:
    def test_forward_is_the_network(self):
        model = model_of(ib.pairwise(3)).eval()
        x, _ = batch()
        y = nn.Sequential(*(c.main_net for c in model.components))(x)
        out = model(x)
        assert torch.equal(out, y)
        assert not out.requires_grad

    def test_all_exits(self):
        nets, heads = mlp_components(3)
        model = ib.build_model(nets, [None, heads[1]], ib.nwise(3, 2), sgd, F.mse_loss).eval()
        x, _ = batch()
        exits = model.forward_exits(x)
        assert exits[0] is None
        assert torch.equal(exits[1], heads[1](nets[1](nets[0](x))))
        assert torch.equal(exits[2], model(x))

    def test_devices(self):
        model = model_of(ib.local(2))
        assert model.get_input_device() == model.get_output_device() == torch.device("cpu")


class TestOptimizers:
    def test_one_optimizer_per_component_unless_heads_have_settings_of_their_own(self):
        model = model_of(ib.local(3))
        assert [len(c.optimizers) for c in model.components] == [1, 1, 1]
        assert set(model.components[0].optimizer.param_groups[0]["params"]) == set(model.components[0].parameters())
        model = model_of(ib.local(3), aux_lr_factor=5.0)
        assert [c.aux_optimizer.param_groups[0]["lr"] for c in model.components[:2]] == [0.5, 0.5]
        assert model.components[2].aux_optimizer is None
        assert model.get_lr() == 0.1

    def test_components_without_parameters_need_no_optimizer(self):
        main_nets, aux_nets = mlp_components(3)
        model = ib.build_model([main_nets[0], nn.Tanh(), main_nets[2]], aux_nets, ib.e2e(3), sgd, F.mse_loss)
        before = weights(model.components[0].main_net)
        model.training_step(*batch())
        assert not torch.equal(before, weights(model.components[0].main_net))
        bare = ib.build_model([main_nets[0], nn.Tanh(), main_nets[2]], [None, None], ib.e2e(3), sgd, F.mse_loss)
        assert bare.components[1].optimizer is None

    def test_an_optimizer_that_needs_a_closure_is_rejected(self):
        with pytest.raises(ValueError, match="LBFGS needs a closure"):
            model_of(ib.local(2), optimizer=torch.optim.LBFGS)

    def test_a_frozen_component_keeps_its_weights_while_its_head_learns(self):
        model = model_of(ib.Scheme([[0, 0, 1], [0, 0, 0], [0, 0, 1]]))
        before = copy.deepcopy(model.state_dict())
        for _ in range(2):
            model.training_step(*batch())
        changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
        assert {name.split(".")[1] + "." + name.split(".")[2] for name in changed} == {
            "0.main_net",
            "0.aux_net",
            "1.aux_net",
            "2.main_net",
        }

    def test_lr_schedulers(self):
        model = model_of(ib.local(3), lr_scheduler_constructor=lambda o: torch.optim.lr_scheduler.StepLR(o, 1, 0.1))
        model.training_step(*batch())
        model.lr_scheduler_step()
        assert model.get_lr() == pytest.approx(0.01)

    def test_the_metric_goes_to_reduce_lr_on_plateau(self):
        plateau = lambda o: torch.optim.lr_scheduler.ReduceLROnPlateau(o, patience=0, factor=0.5)  # noqa: E731
        model = model_of(ib.local(2), lr_scheduler_constructor=plateau)
        for metric in (1.0, 2.0):
            model.lr_scheduler_step(metric)
        assert model.get_lr() == pytest.approx(0.05)
        with pytest.raises(ValueError, match="needs a metric"):
            model.lr_scheduler_step()

    @pytest.mark.filterwarnings("error")
    def test_a_frozen_component_has_a_schedule_all_the_same(self):
        model = model_of(
            ib.Scheme([[0, 0], [0, 1]]), lr_scheduler_constructor=lambda o: torch.optim.lr_scheduler.StepLR(o, 1, 0.1)
        )
        model.training_step(*batch())
        model.lr_scheduler_step()
        assert model.get_lr() == pytest.approx(0.01)


class TestSchemes:
    def test_set_scheme_takes_effect_and_keeps_the_optimizer_state(self):
        """Local for two steps, then e2e, equals doing so by hand with the same optimizers."""
        model, other = model_of(ib.local(3)), model_of(ib.local(3))
        for _ in range(2):
            model.training_step(*batch())
            other.training_step(*batch())
        momentum = [o.state_dict() for c in model.components for o in c.optimizers]
        model.set_scheme(ib.e2e(3))
        assert model.scheme == ib.e2e(3)
        assert str(model.schedule.actions[0][-2]) == "0W0"
        for now, before in zip((o.state_dict() for c in model.components for o in c.optimizers), momentum, strict=True):
            assert now["state"].keys() == before["state"].keys()
        model.training_step(*batch())
        other.training_step(*batch())
        assert not torch.equal(weights(model), weights(other))

    def test_a_scheme_that_does_not_fit_is_rejected_and_changes_nothing(self):
        nets, heads = mlp_components(3)
        model = ib.build_model(nets, [None, heads[1]], ib.nwise(3, 2), sgd, F.mse_loss)
        with pytest.raises(ValueError, match="for 2 components, the model has 3"):
            model.set_scheme(ib.local(2))
        with pytest.raises(ValueError, match="head 0 is None"):
            model.set_scheme(ib.local(3))
        with pytest.raises(ValueError, match=r"expected an interlocking_backprop\.Scheme"):
            model.set_scheme("local")
        with pytest.raises(ValueError, match="scheme 'nothing' trains no main net"):
            model.set_scheme(ib.Scheme([[0] * 3] * 3, name="nothing"))
        assert model.scheme == ib.pairwise(3)

    def test_heads_are_trained_alone_where_the_main_nets_are_frozen(self):
        """As the error of a scheme of zeros says."""
        nets, heads = mlp_components(3)
        before = [copy.deepcopy(net.state_dict()) for net in (*nets, *heads)]
        for net in nets:
            net.requires_grad_(False)
        ib.build_model(nets, heads, ib.local(3), sgd, F.mse_loss).training_step(*batch())
        changed = [
            any(not torch.equal(old[name], tensor) for name, tensor in net.state_dict().items())
            for old, net in zip(before, (*nets, *heads), strict=True)
        ]
        assert changed == [False] * 3 + [True] * 2


def test_autocast_is_the_ambient_one():
    """bf16 autocast works as in a plain loop; casts of weights that an update changes are not reused."""
    torch.manual_seed(0)
    nets = [nn.Sequential(nn.Linear(8, 8), nn.Tanh()) for _ in range(2)]
    plain = nn.Sequential(*copy.deepcopy(nets))
    model = ib.build_e2e_model(nets, sgd, None, F.mse_loss)
    optimizer = sgd(plain.parameters())
    x, target = torch.randn(4, 8), torch.randn(4, 8)
    with torch.autocast("cpu", torch.bfloat16):
        for _ in range(3):
            model.training_step(x, target)
    for _ in range(3):
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.mse_loss(plain(x), target)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    for p, q in zip(model.main_net_parameters(), plain.parameters(), strict=True):
        assert torch.equal(p, q)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("scheme", [ib.e2e(3), ib.nwise(3, 2, "sum")])
def test_on_a_gpu(scheme):
    model = model_of(scheme, n_microbatches=2).cuda()
    reference = model_of(scheme, n_microbatches=2)
    reference.eval()
    model.eval()  # dropout draws other numbers there
    for seed in range(3):
        model.training_step(*batch(seed=seed))
        reference.training_step(*batch(seed=seed))
    torch.testing.assert_close(weights(model).cpu(), weights(reference))
