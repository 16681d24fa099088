from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import interlocking_backprop as ib
from interlocking_backprop.nets.heads import auxiliary_heads


class Call(nn.Module):
    """A block that is a function."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def image_nets() -> list[nn.Module]:
    return [
        nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU()),
        nn.Sequential(nn.Conv2d(6, 200, 3, stride=2), nn.ReLU()),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        nn.Linear(200, 4),
    ]


def token_nets() -> list[nn.Module]:
    return [nn.Embedding(9, 8), nn.Sequential(nn.Linear(8, 12), nn.Tanh()), nn.Linear(12, 9)]


def test_heads_for_images_and_pooled_features_by_their_shape():
    nets, x = image_nets(), torch.randn(5, 3, 9, 9)
    heads = auxiliary_heads(nets, x, n_out=4)
    assert [type(layer) for layer in heads[0]] == [
        nn.Conv2d,
        nn.BatchNorm2d,
        nn.ReLU,
        nn.AdaptiveAvgPool2d,
        nn.Flatten,
        nn.Linear,
    ]
    assert (heads[0][0].out_channels, heads[1][0].out_channels) == (6, 128)
    assert [type(layer) for layer in heads[2]] == [nn.LayerNorm, nn.Linear]
    y = x
    for net, head in zip(nets[:-1], heads, strict=True):
        y = net(y)
        assert head(y).shape == (5, 4)


@pytest.mark.parametrize(("output", "shape"), [("classes", (3, 7)), ("tokens", (3, 5, 7))])
def test_heads_for_tokens(output, shape):
    nets, ids = token_nets(), torch.randint(0, 9, (3, 5))
    heads = auxiliary_heads(nets, ids, output, n_out=7)
    y = ids
    for net, head in zip(nets[:-1], heads, strict=True):
        y = net(y)
        assert head(y).shape == shape


def test_heads_take_the_hidden_states_out_of_nested_outputs():
    nets = [
        Call(lambda x: {"hidden_states": x, "scale": x[:, :1]}),
        Call(lambda s: (s["hidden_states"] * 2, torch.ones(3, dtype=torch.bool))),
        Call(lambda t: t[0]),
    ]
    x = torch.randn(3, 8)
    heads = auxiliary_heads(nets, x, n_out=2)
    first = nets[0](x)
    assert torch.equal(heads[0](first), heads[0][1:](x))
    assert torch.equal(heads[1](nets[1](first)), heads[1][1:](2 * x))


def test_heads_have_the_type_of_the_output():
    nets = [net.to(torch.bfloat16) for net in image_nets()]
    heads = auxiliary_heads(nets, torch.randn(2, 3, 9, 9, dtype=torch.bfloat16), n_out=4)
    assert {p.dtype for head in heads for p in head.parameters()} == {torch.bfloat16}


def test_factory_of_ones_own():
    nets, seen = image_nets(), []

    def factory(i, y):
        seen.append((i, tuple(y.shape)))
        return nn.Flatten() if i else None

    heads = auxiliary_heads(nets, torch.randn(5, 3, 9, 9), head_factory=factory)
    assert heads[0] is None
    assert [type(head) for head in heads[1:]] == [nn.Flatten, nn.Flatten]
    assert seen == [(0, (5, 6, 7, 7)), (1, (5, 200, 3, 3)), (2, (5, 200))]


def test_components_are_left_as_they_were():
    nets = image_nets()
    nets[0][1].eval()
    before = {name: t.clone() for name, t in nets[0].state_dict().items()}
    auxiliary_heads(nets, torch.randn(2, 3, 9, 9), head_factory=lambda i, y: None)
    assert all(torch.equal(t, before[name]) for name, t in nets[0].state_dict().items())
    assert [part.training for part in nets[0]] == [True, False, True]


def test_training_with_heads_made_so():
    torch.manual_seed(0)
    nets = image_nets()
    target = torch.arange(16) % 4
    x = torch.randn(16, 3, 9, 9) + target.view(-1, 1, 1, 1)
    heads = auxiliary_heads(nets, x[:1], n_out=4)
    sgd = lambda params: torch.optim.SGD(params, lr=0.1)  # noqa: E731
    model = ib.build_model(nets, heads, ib.pairwise(4), sgd, F.cross_entropy)
    losses = [model.training_step(x, target).result().item() for _ in range(30)]
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize(
    ("nets", "options", "message"),
    [
        (image_nets(), {"n_out": 0}, "n_out is 0; expected the number of scores"),
        (image_nets(), {}, "n_out is None; expected the number of scores"),
        (image_nets(), {"n_out": 2, "output": "class"}, "expected 'classes' or 'tokens'"),
        (image_nets(), {"n_out": 2, "kind": "images"}, "expected 'auto', 'image', 'token' or 'pooled'"),
        (image_nets(), {"n_out": 2, "output": "tokens"}, r"component 0 returns a tensor of shape \(2, 6, 7, 7\)"),
        (image_nets(), {"n_out": 2, "kind": "token"}, r"expected \(N, T, C\)"),
        ([nn.Flatten(0), nn.ReLU()], {"n_out": 2}, r"shape \(486,\); expected \(N, C\), \(N, T, C\), \(N, C, H, W\)"),
        ([Call(lambda x: (x, x)), nn.ReLU()], {"n_out": 2}, "expected one tensor of floating point"),
    ],
)
def test_what_no_head_can_be_made_for(nets, options, message):
    with pytest.raises(ValueError, match=message):
        auxiliary_heads(nets, torch.randn(2, 3, 9, 9), **options)
