"""What every block has to do: look back only, leave its input alone, and begin with weights of the right size."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from interlocking_backprop.nets.token_heads import TokenHead, initialise_head
from interlocking_backprop.nets.transformer import POSITIONS, Attention, Rotation, Shape, build_blocks, initialise


def small_shape(**options) -> Shape:
    defaults = {"vocabulary_size": 11, "width": 8, "depth": 2, "n_heads": 2, "context": 12, "dropout": 0.0}
    return Shape(**{**defaults, "mlp_ratio": 4, "positions": "learned", "chunked_loss": False, **options})


def small_net(seed=0, **options) -> nn.Sequential:
    torch.manual_seed(seed)
    shape = small_shape(**options)
    blocks = build_blocks(shape)
    for block in blocks.values():
        initialise(block, shape.depth)
        for p in block.parameters():  # larger weights, so that what depends on what can be seen
            p.data *= 10
    return nn.Sequential(*blocks.values()).double()


@pytest.mark.parametrize("positions", POSITIONS)
def test_no_output_depends_on_what_comes_after_it(positions):
    net = small_net(positions=positions)
    ids = torch.randint(0, 11, (3, 12))
    reference = net(ids)
    assert reference.shape == (3, 12, 11)
    for t in range(12):
        changed = ids.clone()
        changed[:, t] = (changed[:, t] + 1) % 11
        same = (net(changed) - reference).abs().amax(dim=(0, 2)) < 1e-12
        assert same[:t].all(), t
        assert not same[t:].any(), t


@pytest.mark.parametrize("positions", POSITIONS)
def test_order_matters(positions):
    net = small_net(positions=positions)
    ids = torch.tensor([[1, 2, 3, 4], [2, 1, 3, 4]])
    first, second = net(ids)[:, -1]
    assert not torch.allclose(first, second)


def test_a_shorter_text_has_the_same_beginning():
    net = small_net()
    ids = torch.randint(0, 11, (2, 12))
    torch.testing.assert_close(net(ids[:, :5]), net(ids)[:, :5])


def test_attention_is_that_of_the_formula():
    torch.manual_seed(0)
    attention = Attention(small_shape()).double()
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    q, k, v = (part.view(2, 5, 2, 4) for part in attention.qkv(x).split(8, dim=-1))
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / 2
    scores = scores.masked_fill(torch.ones(5, 5).triu(1).bool(), -math.inf)
    mixed = torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), v).reshape(2, 5, 8)
    torch.testing.assert_close(attention(x), attention.projection(mixed))


def test_rotation_keeps_lengths_and_makes_products_depend_on_distance():
    rotation = Rotation(20, 6)
    q, k = torch.randn(2, 1, 1, 1, 6)
    turned_q, turned_k = (rotation(x.expand(1, 1, 20, 6))[0, 0] for x in (q, k))
    torch.testing.assert_close(turned_q.norm(dim=-1), q.norm().expand(20))
    products = turned_q @ turned_k.T
    torch.testing.assert_close(products[1:, 1:], products[:-1, :-1])
    assert not torch.allclose(products[0], products[1])


@pytest.mark.parametrize("positions", POSITIONS)
def test_blocks_leave_their_input_alone(positions):
    net = small_net(positions=positions, dropout=0.5)
    x = torch.randint(0, 11, (2, 12))
    for block in net:
        before = x.clone()
        y = block(x)
        assert torch.equal(x, before)
        x = y.detach()


def test_dropout_acts_in_training_mode_alone():
    net, without = small_net(dropout=0.5), small_net()
    ids = torch.randint(0, 11, (2, 12))
    assert not torch.equal(net(ids), net(ids))
    assert torch.equal(net.eval()(ids), without(ids))


def test_weights_begin_as_those_of_gpt2():
    shape = small_shape(width=64, depth=8, vocabulary_size=300)
    blocks = build_blocks(shape)
    for block in blocks.values():
        initialise(block, shape.depth)
    parameters = dict(nn.Sequential(*blocks.values()).named_parameters())
    for name, parameter in parameters.items():
        if parameter.dim() == 1:
            expected = 1.0 if name.endswith("norm.weight") else 0.0
            assert torch.equal(parameter, torch.full_like(parameter, expected)), name
        else:
            is_added = name.endswith(("attention.projection.weight", "mlp.projection.weight"))
            expected = 0.02 / 4 if is_added else 0.02
            assert parameter.std().item() == pytest.approx(expected, rel=0.1), name


def test_longer_than_the_context_is_an_error():
    with pytest.raises(ValueError, match="has 13 tokens; expected at most the context of 12"):
        small_net()(torch.zeros(1, 13, dtype=torch.int64))


@pytest.mark.parametrize(("rank", "shapes"), [(None, [(11, 8)]), (3, [(3, 8), (11, 3)])])
def test_head_of_full_and_of_low_rank(rank, shapes):
    head = TokenHead(8, 11, rank)
    initialise_head(head)
    assert [tuple(p.shape) for p in head.parameters() if p.dim() > 1] == shapes
    assert head(torch.randn(2, 5, 8)).shape == (2, 5, 11)


def test_low_rank_keeps_the_scale_of_the_features():
    torch.manual_seed(0)
    head = TokenHead(64, 11, 32, chunked_loss=True)
    initialise_head(head)
    features, _ = head(torch.randn(4, 5, 64))
    assert features.std().item() == pytest.approx(1, rel=0.2)


@pytest.mark.parametrize("rank", [None, 3])
def test_head_hands_over_what_logits_are_made_of_in_training_mode(rank):
    head = TokenHead(8, 11, rank, chunked_loss=True)
    x = torch.randn(2, 5, 8)
    features, weight = head(x)
    assert weight is head.projection.weight
    torch.testing.assert_close(features @ weight.T, head.eval()(x))
