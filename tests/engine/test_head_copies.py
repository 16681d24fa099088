"""Heads that are copies of another component's weights: a plain loop with `copy.deepcopy` gives the same."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import interlocking_backprop as ib
from interlocking_backprop.bench.processes import on_ranks
from tests import oracle
from tests.small_models import batch
from tests.small_nets import mlp_components

K = 4
SOURCES = {
    "readout": lambda main_nets, aux_nets, i: main_nets[-1][-2],
    "next main net": lambda main_nets, aux_nets, i: main_nets[i + 1],
    "another head": lambda main_nets, aux_nets, i: aux_nets[-1],
}
RANDOM = ib.Scheme(np.triu(np.random.default_rng(3).normal(size=(K, K))), name="random")
FROZEN_SOURCE = ib.Scheme([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]], name="frozen source")


def sgd(params):
    return torch.optim.SGD(params, lr=0.1, momentum=0.9, weight_decay=1e-2)


def nets(k: int, source: str, copied=(0,), seed: int = 0, dropout: float = 0.0, **when):
    """Heads of some components are copies, the others trained."""
    main_nets, aux_nets = mlp_components(k, batch_norm=True, dropout=dropout, seed=seed)
    for i in copied:
        aux_nets[i] = ib.HeadCopy(SOURCES[source](main_nets, aux_nets, i), **when)
    return main_nets, aux_nets


def model_of(source="readout", scheme=None, copied=(0,), when=None, m=1, dropout=0.0, **options):
    scheme = scheme or ib.local(K)
    main_nets, aux_nets = nets(scheme.n_components, source, copied, dropout=dropout, **(when or {"every": 2}))
    return ib.build_model(main_nets, aux_nets, scheme, sgd, F.mse_loss, n_microbatches=m, **{"seed": 0, **options})


def trained(model, rank=0, steps=range(5)) -> dict[str, torch.Tensor]:
    for step in steps:
        model.training_step(*(batch(7, seed=step) if rank == 0 else (None, None)))
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(found, expected) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(value, found[name]) for name, value in expected.items())


def loop(main_nets, aux_nets, scheme, m, n_steps) -> None:
    """The definition: gradients by the oracle, one optimizer a net, and copies that are refreshed after all updates."""
    copies = {i: head for i, head in enumerate(aux_nets) if isinstance(head, ib.HeadCopy)}
    heads = [copies[i].module.requires_grad_(True) if i in copies else head for i, head in enumerate(aux_nets)]
    optimizers = [sgd(net.parameters()) for net in main_nets]
    head_optimizers = [sgd(head.parameters()) for head in heads]
    for t in range(1, n_steps + 1):
        x, target = batch(7, seed=t - 1)
        parts = list(zip(x.tensor_split(m), target.tensor_split(m), strict=True))
        main, aux = oracle.gradients(main_nets, heads, scheme, F.mse_loss, parts)
        for i, (net, gradients) in enumerate(zip([*main_nets, *heads], [*main, *aux[:-1]], strict=True)):
            is_head, i = i >= len(main_nets), i % len(main_nets)
            if (is_head and i in copies) or not (is_head or scheme.matrix[i].any()):
                continue
            for parameter, gradient in zip(net.parameters(), gradients, strict=True):
                parameter.grad = gradient
            (head_optimizers if is_head else optimizers)[i].step()
        for i, head_copy in copies.items():
            source = head_copy.source
            if head_copy.every is not None and t % head_copy.every == 0:
                heads[i].load_state_dict(source.state_dict())
            elif head_copy.momentum is not None:
                beta = head_copy.momentum
                for own, new in zip(heads[i].parameters(), source.parameters(), strict=True):
                    own.data = beta * own.data + (1 - beta) * new.data
                for own, new in zip(heads[i].buffers(), source.buffers(), strict=True):
                    own.copy_(new)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(3, 5),
    st.integers(1, 3),
    st.sampled_from(sorted(SOURCES)),
    st.sampled_from(
        [{"every": 1}, {"every": 2}, {"every": 3}, {"momentum": 0.0}, {"momentum": 0.7}, {"momentum": 0.999}]
    ),
    st.integers(0, 10_000),
    st.sampled_from(["here", "devices"]),
)
def test_the_loop_gives_the_same(k, m, source, when, seed, where):
    random = np.random.default_rng(seed)
    n_copied = k - 2 if source == "another head" else k - 1
    copied = tuple(i for i in range(n_copied) if i == 0 or random.integers(2))
    scheme = ib.Scheme(np.triu(random.normal(size=(k, k))) * random.integers(0, 2, size=(k, 1)))
    main_nets, aux_nets = nets(k, source, copied, seed, **when)
    plain = copy.deepcopy((main_nets, aux_nets))
    model = ib.build_model(main_nets, aux_nets, scheme, sgd, F.mse_loss, n_microbatches=m)
    if where == "devices":
        model.enable_model_parallel(["cpu"] * k)
    trained(model, steps=range(6))
    loop(*plain, scheme, m, 6)
    for net, expected in zip([*main_nets, *aux_nets], [*plain[0], *plain[1]], strict=True):
        for name, value in expected.state_dict().items():
            torch.testing.assert_close(net.state_dict()[name], value, rtol=1e-8, atol=1e-9)


_CASES = [
    (source, scheme, when)
    for source in SOURCES
    for scheme, when in [(ib.local(K), {"every": 2}), (RANDOM, {"momentum": 0.9}), (FROZEN_SOURCE, {"every": 1})]
]


@pytest.mark.parametrize("m", [1, 3])
def test_a_device_for_each_component(m):
    for source, scheme, when in _CASES:
        expected = trained(model_of(source, scheme, (0, 1), when, m, dropout=0.2))
        model = model_of(source, scheme, (0, 1), when, m, dropout=0.2)
        model.enable_model_parallel(["cpu"] * K)
        assert same(trained(model), expected), (source, scheme.name)


@pytest.mark.parametrize(("size", "m"), [(2, 2), (3, 1), (4, 2)])
def test_ranks(size, m):
    several = on_ranks(size, _on_rank, m)
    for n, (source, scheme, when) in enumerate(_CASES):
        model = model_of(source, scheme, (0, 1), when, m, dropout=0.2)
        expected = trained(model)
        found = {name: value for results in several for name, value in results[n][0].items()}
        assert same(found, expected), (source, scheme.name, when)
        exits = model.eval().map_exits(F.mse_loss, *batch(7))
        assert [
            next(v for v in values if v is not None) for values in zip(*(r[n][1] for r in several), strict=True)
        ] == exits


def _on_rank(rank, size, m):
    results = []
    for source, scheme, when in _CASES:
        model = model_of(source, scheme, (0, 1), when, m, dropout=0.2)
        model.enable_model_parallel()
        state = trained(model, rank)
        exits = model.eval().map_exits(F.mse_loss, *(batch(7) if rank == 0 else (None, None)))
        results.append((state, exits))
        model.shutdown()
    return results


def test_large_weights_on_ranks():
    """They travel as they are, and the next update of the source must not reach them on their way."""
    found = [name for part in on_ranks(2, _wide_on_rank) for name in part]
    assert same(dict(found), _wide_steps(_wide_model()))


def _wide_model():
    torch.manual_seed(0)
    main_nets = [nn.Sequential(nn.Linear(400, 400), nn.Tanh()) for _ in range(2)]
    heads = [ib.HeadCopy(main_nets[1], momentum=0.5)]
    return ib.build_model(main_nets, heads, ib.local(2), sgd, F.mse_loss)


def _wide_steps(model, rank=0):
    for step in range(6):
        generator = torch.Generator().manual_seed(step)
        x, target = torch.randn(4, 400, generator=generator), torch.randn(4, 400, generator=generator)
        model.training_step(*((x, target) if rank == 0 else (None, None)))
    return {name: value.clone() for name, value in model.state_dict().items()}


def _wide_on_rank(rank, size):
    model = _wide_model()
    model.enable_model_parallel()
    return list(_wide_steps(model, rank).items())


class TestWhen:
    def test_the_copy_is_used_from_the_next_update_on(self):
        model = model_of(when={"every": 2})
        head_copy, source = model.components[0].aux_net, model.components[-1].main_net[-2]
        assert torch.equal(head_copy.module.weight, source.weight)
        start, seen = source.weight.clone(), []
        for step in range(4):
            model.training_step(*batch(seed=step))
            seen.append((head_copy.module.weight.clone(), source.weight.clone()))
        assert torch.equal(seen[0][0], start)
        assert torch.equal(seen[1][0], seen[1][1])
        assert torch.equal(seen[2][0], seen[1][1])
        assert torch.equal(seen[3][0], seen[3][1])

    def test_the_schedule_is_that_of_the_next_step(self):
        model = model_of(when={"every": 2})
        for step in range(4):
            assert ("3GIVE" in str(model.schedule)) == (step % 2 == 1)
            assert ("0COPY" in str(model.schedule)) == (step % 2 == 1)
            model.training_step(*batch(seed=step))

    def test_the_weights_at_build_are_the_first_ones(self):
        main_nets, aux_nets = nets(K, "readout", every=5)
        main_nets[-1][-2].weight.data.fill_(0.25)
        model = ib.build_model(main_nets, aux_nets, ib.local(K), sgd, F.mse_loss)
        assert (model.components[0].aux_net.module.weight == 0.25).all()

    def test_accumulated_batches_count_once(self):
        model = model_of(when={"every": 1}, accumulate=3)
        head_copy, source = model.components[0].aux_net, model.components[-1].main_net[-2]
        start = source.weight.clone()
        for step in range(5):
            model.training_step(*batch(seed=step))
            assert torch.equal(head_copy.module.weight, start) == (step < 2)
        assert torch.equal(head_copy.module.weight, source.weight)

    def test_gradients_leave_the_copy_alone(self):
        model = model_of(when={"momentum": 0.5})
        trained(model)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        found = model.gradients(*batch())
        assert found[0].head == {}
        assert found[1].head
        model.alignment(*batch())
        assert same(dict(model.state_dict()), before)

    def test_a_scheme_that_changes_keeps_the_copy(self):
        model, twin = model_of(when={"momentum": 0.5}), model_of(when={"momentum": 0.5})
        trained(model, steps=range(2))
        head_copy = model.components[0].aux_net
        before = head_copy.module.weight.clone()
        model.set_scheme(ib.pairwise(K))
        assert model.components[0].aux_net is head_copy
        assert torch.equal(head_copy.module.weight, before)
        trained(model, steps=range(2, 4))
        trained(twin, steps=range(2))
        twin.set_scheme(ib.pairwise(K))
        twin.enable_model_parallel(["cpu"] * K)
        assert same(trained(twin, steps=range(2, 4)), dict(model.state_dict()))

    def test_global_clipping(self):
        """All updates wait for the last gradient, and the copies for the update of their source."""
        model = model_of(when={"every": 1}, max_grad_norm=0.1, clip_by="global")
        trained(model, steps=range(2))
        assert torch.equal(model.components[0].aux_net.module.weight, model.components[-1].main_net[-2].weight)


class TestState:
    @pytest.mark.parametrize("when", [{"every": 3}, {"momentum": 0.8}], ids=str)
    @pytest.mark.parametrize("accumulate", [1, 2])
    def test_a_resumed_run_equals_the_one_that_was_saved(self, when, accumulate):
        whole = model_of(when=when, accumulate=accumulate)
        trained(whole, steps=range(4))
        state, training_state = copy.deepcopy((whole.state_dict(), whole.training_state_dict()))
        expected = trained(whole, steps=range(4, 12))
        resumed = model_of(when=when, accumulate=accumulate)
        resumed.load_state_dict(state)
        resumed.load_training_state_dict(training_state)
        assert same(trained(resumed, steps=range(4, 12)), expected)

    def test_on_ranks_too(self):
        whole = model_of(when={"every": 3})
        trained(whole, steps=range(4))
        expected = trained(whole, steps=range(4, 8))
        found = {name: value for part in on_ranks(2, _resumed) for name, value in part.items()}
        assert same(found, expected)

    def test_a_state_from_before_updates_were_counted(self):
        whole, resumed = model_of(when={"every": 2}, accumulate=2), model_of(when={"every": 2}, accumulate=2)
        trained(whole, steps=range(2))
        counters = whole.counters()
        assert counters.pop("n_updates") == 1
        resumed.load_counters(counters)
        assert resumed.counters()["n_updates"] == 1

    def test_a_copy_of_a_component_does_without_the_source(self):
        component = model_of().components[0]
        assert component.aux_net.source is not None
        assert copy.deepcopy(component).aux_net.source is None


def _resumed(rank, size):
    saved = model_of(when={"every": 3})
    state = trained(saved, steps=range(4))
    model = model_of(when={"every": 3})
    model.enable_model_parallel()
    model.load_state_dict({n: value for n, value in state.items() if int(n.split(".")[1]) in model.local_components})
    model.load_training_state_dict(saved.training_state_dict())
    return trained(model, rank, steps=range(4, 8))


class TestHeads:
    def test_one_object_for_several_components(self):
        main_nets, _ = mlp_components(3)
        model = ib.build_model(main_nets, [ib.HeadCopy(main_nets[-1][-2], every=1)] * 2, ib.local(3), sgd, F.mse_loss)
        heads = [component.aux_net for component in model.components[:-1]]
        assert heads[0] is not heads[1]
        assert not model.ties
        trained(model, steps=range(2))
        assert all(torch.equal(head.module.weight, model.components[-1].main_net[-2].weight) for head in heads)

    def test_a_part_of_a_head_that_is_trained(self):
        main_nets, aux_nets = mlp_components(3)
        adapters = [nn.Linear(5, 5).double() for _ in range(2)]
        aux_nets = [nn.Sequential(adapter, ib.HeadCopy(main_nets[-1][-2], every=1)) for adapter in adapters]
        model = ib.build_model(main_nets, aux_nets, ib.local(3), sgd, F.mse_loss, aux_lr_factor=2.0)
        before = adapters[0].weight.clone()
        trained(model, steps=range(2))
        assert not torch.equal(adapters[0].weight, before)
        assert torch.equal(aux_nets[0][1].module.weight, main_nets[-1][-2].weight)
        held = {p for o in model.components[0].optimizers for group in o.param_groups for p in group["params"]}
        assert held == {*main_nets[0].parameters(), *adapters[0].parameters()}

    def test_a_module_of_heads_that_are_shared(self):
        main_nets, aux_nets = mlp_components(4)
        shared = aux_nets[0]
        heads = [shared, shared, ib.HeadCopy(shared, every=1)]
        model = ib.build_model(main_nets, heads, ib.local(4), sgd, F.mse_loss)
        trained(model)
        weights = [p for c in model.components for name, p in c.named_parameters() if name.endswith("aux_net.0.weight")]
        assert torch.equal(weights[0], weights[1])
        assert torch.equal(heads[2].module[0].weight, weights[0])

    def test_of_a_source_whose_weight_is_tied(self):
        main_nets, _ = mlp_components(3)
        main_nets[-1][-2].weight = main_nets[0][0].weight
        heads = [None, ib.HeadCopy(main_nets[-1][-2], every=1)]
        model = ib.build_model(main_nets, heads, ib.e2e(3), sgd, F.mse_loss)
        trained(model)
        assert torch.equal(heads[1].module.weight, main_nets[0][0].weight)

    def test_the_table_names_it(self):
        model = model_of(copied=(0, 1))
        assert repr(model).count("copy of 3, Linear") == 2
        assert "main_net.3 of component 3, every=2" in repr(model.components[0].aux_net)

    def test_costs(self):
        model = model_of()
        costs = model.measure_costs(*batch(), repeats=1)
        assert [c.copied_bytes for c in costs.components] == [0, 0, 0, (5 * 5 + 5) * 8]


class TestErrors:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({}, r"every=None and momentum=None; expected one of them"),
            ({"every": 2, "momentum": 0.5}, r"every=2 and momentum=0.5; expected one of them"),
            ({"every": 0}, r"every is 0; expected a whole number of at least 1"),
            ({"every": 1.5}, r"every is 1.5"),
            ({"momentum": 1.0}, r"momentum is 1.0; expected a number of at least 0 and below 1"),
            ({"momentum": -0.1}, r"momentum is -0.1"),
            ({"momentum": float("nan")}, r"momentum is nan"),
            ({"momentum": "much"}, r"momentum is 'much'"),
        ],
    )
    def test_when(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            ib.HeadCopy(nn.Linear(2, 2), **arguments)

    @pytest.mark.parametrize(
        ("source", "message"),
        [
            ("readout", r"the source of a HeadCopy is 'readout'; expected a torch.nn.Module"),
            (nn.ReLU(), r"HeadCopy, ReLU\(\), has neither parameters nor buffers"),
            (ib.HeadCopy(nn.Linear(2, 2), every=1), r"is a HeadCopy itself"),
            (nn.LazyLinear(2), r"LazyLinear\(.*\), is lazy, and its weights are not there yet"),
        ],
    )
    def test_no_source(self, source, message):
        with pytest.raises(ValueError, match=message):
            ib.HeadCopy(source, every=1)

    @staticmethod
    def build(change):
        main_nets, aux_nets = mlp_components(3)
        change(main_nets, aux_nets)
        return ib.build_model(main_nets, aux_nets, ib.local(3), sgd, F.mse_loss)

    def test_elsewhere(self):
        def change(main_nets, aux_nets):
            aux_nets[0] = ib.HeadCopy(copy.deepcopy(main_nets[-1]), every=1)

        with pytest.raises(
            ValueError, match=r"head 0 is a copy of a module \(Sequential\) that is in none of the main nets"
        ):
            self.build(change)

    def test_a_slice(self):
        def change(main_nets, aux_nets):
            aux_nets[0] = ib.HeadCopy(main_nets[-1][1:], every=1)

        with pytest.raises(ValueError, match=r"in none of the main nets .* nor a slice of a Sequential"):
            self.build(change)

    def test_in_the_component_itself(self):
        def change(main_nets, aux_nets):
            aux_nets[1] = ib.HeadCopy(main_nets[1][0], every=1)

        with pytest.raises(ValueError, match=r"head 1 copies main_net\.0 of component 1 itself"):
            self.build(change)

    def test_in_another_copy(self):
        def change(main_nets, aux_nets):
            aux_nets[0] = ib.HeadCopy(main_nets[2], every=1)
            aux_nets[1] = ib.HeadCopy(aux_nets[0].module, every=1)

        with pytest.raises(ValueError, match=r"head 1 copies a module of head 0 that is a copy itself"):
            self.build(change)

    def test_two_in_one_head(self):
        def change(main_nets, aux_nets):
            aux_nets[0] = nn.Sequential(ib.HeadCopy(main_nets[1][0], every=1), ib.HeadCopy(main_nets[2][0], every=1))

        with pytest.raises(ValueError, match="head 0 contains 2 HeadCopy objects; expected one at most"):
            self.build(change)

    def test_in_a_main_net(self):
        def change(main_nets, aux_nets):
            main_nets[0].append(ib.HeadCopy(main_nets[2][0], every=1))

        with pytest.raises(ValueError, match="main net 0 contains a HeadCopy; expected one in aux_nets"):
            self.build(change)

    def test_from_a_built_model(self):
        built = copy.deepcopy(model_of().components[0].aux_net)

        def change(main_nets, aux_nets):
            aux_nets[0] = built

        with pytest.raises(ValueError, match="head 0 is a copy of one in another model, and has no source"):
            self.build(change)

    def test_shapes_that_do_not_fit(self):
        main_nets, aux_nets = mlp_components(3)
        main_nets[2] = nn.Sequential(nn.Linear(5, 8), nn.Linear(8, 5)).double()
        aux_nets[0] = ib.HeadCopy(main_nets[2][1], every=1)
        model = ib.build_model(main_nets, aux_nets, ib.local(3), sgd, F.mse_loss)
        with pytest.raises(RuntimeError, match="shapes") as caught:
            model.training_step(*batch())
        assert any("head 0 got (6, 5) float64" in note for note in caught.value.__notes__)

    def test_that_would_be_trained(self):
        model = model_of()
        model.requires_grad_(True)
        with pytest.raises(ValueError, match=r"head 0 is a copy of main_net\.3 of component 3 and follows no loss"):
            model.training_step(*batch())
