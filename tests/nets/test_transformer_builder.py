from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor, nn

import interlocking_backprop as ib
from interlocking_backprop.nets.transformer_builder import to_plain, transformer
from interlocking_backprop.resnet_builder import describe
from interlocking_backprop.text.token_loss import TokenLoss
from tests import oracle
from tests.small_nets import Recorder, recorded

SMALL = {"width": 16, "depth": 4, "n_heads": 2, "context": 12}  # with embedding and head 6 blocks
CUTS = ["rest", "1,1,rest", ["2", "3", "rest"], (5, "rest"), 1, 4, 6]
IDS = torch.randint(0, 13, (4, 13), generator=torch.Generator().manual_seed(0))
X, Y = IDS[:, :-1], IDS[:, 1:]


def small(cut=3, seed=0, **options) -> tuple[list[nn.Module], list[nn.Module]]:
    torch.manual_seed(seed)
    return transformer(13, **{**SMALL, "blocks_per_component": cut, **options})


def in_a_row(nets: list[nn.Module], x: Tensor) -> Tensor:
    return functools.reduce(lambda y, net: net(y), nets, x)


def n_blocks(nets: list[nn.Module]) -> list[int]:
    return [len(list(net.children())) for net in nets]


@pytest.mark.parametrize("positions", ["learned", "rotary"])
@pytest.mark.parametrize("cut", CUTS)
def test_every_cut_is_the_same_network(cut, positions):
    main_nets, aux_nets = small(cut, positions=positions)
    reference = small("rest", positions=positions)[0][0]
    assert sum(n_blocks(main_nets)) == 6
    assert len(aux_nets) == len(main_nets) - 1
    state = {key: value for net in main_nets for key, value in net.state_dict().items()}
    assert state.keys() == reference.state_dict().keys() == to_plain(main_nets).state_dict().keys()
    assert torch.equal(in_a_row(main_nets, X), reference(X))
    assert torch.equal(to_plain(main_nets)(X), reference(X))


def test_names_do_not_depend_on_the_cut():
    main_nets, aux_nets = small("1,3,rest")
    assert "embedding.tokens.weight" in main_nets[0].state_dict()
    assert "embedding.positions.weight" in main_nets[0].state_dict()
    assert "block2.attention.qkv.weight" in main_nets[1].state_dict()
    assert {"block3.mlp.expansion.bias", "head.norm.weight", "head.projection.weight"} <= main_nets[
        2
    ].state_dict().keys()
    assert list(aux_nets[0].state_dict()) == ["norm.weight", "norm.bias", "projection.weight"]


def test_rotary_positions_have_no_entry_in_the_state_dict():
    entries = to_plain(small(positions="rotary")[0]).state_dict()
    assert entries.keys() < to_plain(small()[0]).state_dict().keys()


def test_main_weights_do_not_depend_on_the_auxiliary_nets():
    states = [to_plain(small(2, aux_rank=rank)[0]).state_dict() for rank in (None, 3)]
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


@pytest.mark.parametrize("rank", [None, 3])
def test_auxiliary_nets_give_logits(rank):
    main_nets, aux_nets = small(aux_rank=rank)
    assert aux_nets[0](main_nets[0](X)).shape == (4, 12, 13)


def test_number_of_components_cuts_them_evenly():
    with torch.device("meta"):
        main_nets, _ = transformer(257, depth=12, blocks_per_component=4)
        large, _ = transformer(50_000, width=128, depth=12, blocks_per_component=4)
    assert n_blocks(main_nets) == [4, 3, 3, 4]
    assert n_blocks(large)[-1] == 1  # the head costs more than all blocks together


def test_plain_net_shares_its_modules_and_their_mode():
    main_nets, _ = small()
    for net in main_nets:
        net.eval()
    plain = to_plain(main_nets)
    assert {id(p) for p in plain.parameters()} == {id(p) for net in main_nets for p in net.parameters()}
    assert not any(module.training for module in plain.modules())


def test_plain_net_of_components_that_are_not_all_there():
    main_nets, _ = small()
    for nets in ([], main_nets[1:], main_nets[:-1], main_nets[::-1], [nn.Linear(1, 1)]):
        with pytest.raises(ValueError, match="all the main nets that transformer\\(\\) returned"):
            to_plain(nets)


def test_description():
    assert describe(small("1,4,rest")[0]) == (
        "component 0: embedding, 400 parameters\n"
        "component 1: block0 … block3 (4 blocks), 13,120 parameters\n"
        "component 2: head, 240 parameters"
    )


def test_tied_weights_are_one_parameter():
    main_nets, aux_nets = small(tied=True)
    plain = to_plain(main_nets)
    assert plain.head.projection.weight is plain.embedding.tokens.weight
    assert len(list(plain.parameters())) == len(list(to_plain(small()[0]).parameters())) - 1
    assert all(aux_net.projection.weight is not plain.embedding.tokens.weight for aux_net in aux_nets)
    logits = plain.get_submodule("head.norm")(in_a_row(list(plain)[:-1], X)) @ plain.embedding.tokens.weight.T
    torch.testing.assert_close(plain(X), logits)


@pytest.mark.parametrize("chunked", [False, True])
def test_tied_weights_get_the_gradients_of_both_ends(chunked):
    plain = to_plain(small(1, tied=True, chunked_loss=chunked)[0]).double()
    loose = to_plain(small(1)[0]).double()
    loose.load_state_dict(plain.state_dict())
    for net in (plain, loose):
        TokenLoss(chunk_tokens=10)(net(X), Y).backward()
    expected = loose.embedding.tokens.weight.grad + loose.head.projection.weight.grad
    torch.testing.assert_close(plain.embedding.tokens.weight.grad, expected)


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(
    "scheme", [ib.e2e(3), ib.local(3), ib.nwise(3, 2), ib.nwise(3, 3, "sum")], ids=lambda s: s.name
)
def test_gradients_are_those_of_the_definition(scheme, chunked):
    main_nets, aux_nets = small(chunked_loss=chunked)
    for net in (*main_nets, *aux_nets):
        net.double()
    loss = TokenLoss(chunk_tokens=10)
    model = ib.build_model(main_nets, aux_nets, scheme, Recorder, loss, n_microbatches=2, seed=0)
    model.training_step(X, Y).result()
    halves = list(zip(X.split(2), Y.split(2), strict=True))
    main, aux = oracle.gradients(main_nets, aux_nets, scheme, loss, halves)
    for i, component in enumerate(model.components):
        for parameter, expected in zip(component.main_net.parameters(), main[i], strict=True):
            torch.testing.assert_close(recorded(model, parameter), expected)
        if component.aux_net is not None:
            for parameter, expected in zip(component.aux_net.parameters(), aux[i], strict=True):
                torch.testing.assert_close(recorded(model, parameter), expected)


@pytest.mark.parametrize("options", [{}, {"positions": "rotary", "dropout": 0.1, "aux_rank": 4, "chunked_loss": True}])
def test_a_few_steps_lower_every_loss(options):
    main_nets, aux_nets = small(4, **options)
    model = ib.build_model(
        main_nets, aux_nets, ib.nwise(4, 3), lambda p: torch.optim.AdamW(p, 1e-2), TokenLoss(), n_microbatches=2, seed=0
    )
    losses = []
    for _ in range(30):
        model.training_step(X, Y).result()
        losses.append([loss.item() for loss in model.exit_losses])
    assert all(last < first - 0.5 for first, last in zip(losses[0], losses[-1], strict=True))
    exits = model.eval().forward_exits(X)
    assert [tuple(exit.shape) for exit in exits] == [(4, 12, 13)] * 4


def test_end_to_end_training_is_that_of_the_plain_net():
    main_nets, _ = small(3, chunked_loss=True)
    plain = to_plain(small("rest")[0])
    model = ib.build_e2e_model(main_nets, lambda p: torch.optim.SGD(p, lr=0.5), None, TokenLoss(), seed=0)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.5)
    for _ in range(3):
        model.training_step(X, Y).result()
        optimizer.zero_grad()
        TokenLoss()(plain(X), Y).backward()
        optimizer.step()
    for (key, value), trained in zip(plain.named_parameters(), to_plain(main_nets).parameters(), strict=True):
        torch.testing.assert_close(trained, value, rtol=1e-4, atol=1e-6, msg=key)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width is 0; expected a whole number of at least 1"),
        ({"depth": True}, "depth is True"),
        ({"context": 1.5}, "context is 1.5"),
        ({"aux_rank": 0}, "aux_rank is 0"),
        ({"n_heads": 3}, "width is 16 and n_heads 3; expected a width that the number of heads divides"),
        ({"n_heads": 16, "positions": "rotary"}, "1 channels a head .* expected an even number"),
        ({"positions": "sine"}, "positions is 'sine'; expected one of 'learned', 'rotary'"),
        ({"dropout": 1.0}, "dropout is 1.0; expected a share from 0 to below 1"),
        ({"mlp_ratio": 0}, "mlp_ratio is 0; expected a number above 0"),
        ({"cut": 7}, "blocks_per_component is 7; expected a number of components from 1 to 6"),
        ({"cut": None}, "blocks_per_component is None"),
        ({"cut": "1,6,rest"}, "at most 5, which is what is left of the 6 blocks"),
    ],
)
def test_argument_that_does_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        small(**options)


def test_empty_vocabulary_is_an_error():
    with pytest.raises(ValueError, match="vocabulary_size is 0"):
        transformer(0)
