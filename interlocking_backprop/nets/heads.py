"""Heads for components of any kind, made for the shape of what each component returns.

Shapes: N samples, T tokens, C channels (features), H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from interlocking_backprop.common.checks import is_whole
from interlocking_backprop.engine.tree import Tree, tensors
from interlocking_backprop.nets.auxiliary import build_aux_net
from interlocking_backprop.nets.undisturbed import undisturbed

Kind = Literal["auto", "image", "token", "pooled"]
Output = Literal["classes", "tokens"]
HeadFactory = Callable[[int, Tree], "nn.Module | None"]
"""From the index of a component, and its output on the sample, to its head (None for no head)."""

_KINDS: dict[int, Kind] = {2: "pooled", 3: "token", 4: "image"}
_SHAPES = {"pooled": "(N, C)", "token": "(N, T, C)", "image": "(N, C, H, W)"}
_IMAGE_HEAD_CHANNELS = 128


def auxiliary_heads(
    main_nets: Sequence[nn.Module],
    sample_input: Tree,
    output: Output = "classes",
    *,
    n_out: int | None = None,
    kind: Kind = "auto",
    head_factory: HeadFactory | None = None,
) -> list[nn.Module | None]:
    """Makes a head for each component but the last. The components are run on the sample, and left as they were.

    For images a head is a 3x3 convolution, batch normalisation, ReLU, global pooling and a linear layer; for tokens a
    layer normalisation, the mean over tokens if classes are asked for, and a linear layer; for pooled features a layer
    normalisation and a linear layer. Where a component returns several tensors, a head takes the one with the key
    "hidden_states", or else the only one of floating point.

    Args:
        main_nets: the components.
        sample_input: a batch for the first of them; one sample will do.
        output: "classes" for one row of scores per sample, (N, n_out), or "tokens" for one per token, (N, T, n_out).
        n_out: how many scores.
        kind: what the components return: "image" (N, C, H, W), "token" (N, T, C) or "pooled" (N, C); "auto" tells by
            the number of dimensions, for each component.
        head_factory: makes the heads in place of all this, e.g. ``lambda i, y: MyHead(y.shape[1], 10)``. None that it
            returns stays None.

    Raises:
        ValueError: if an argument does not fit, or a component returns what no head is known for, with the remedy.
    """
    main_nets = list(main_nets)
    if head_factory is None:
        if not is_whole(n_out):
            raise ValueError(f"n_out is {n_out!r}; expected the number of scores, a whole number of at least 1.")
        if output not in ("classes", "tokens"):
            raise ValueError(f"output is {output!r}; expected 'classes' or 'tokens'.")
        if kind != "auto" and kind not in _SHAPES:
            raise ValueError(f"kind is {kind!r}; expected 'auto', 'image', 'token' or 'pooled'.")
    heads: list[nn.Module | None] = []
    y = sample_input
    for i, net in enumerate(main_nets[:-1]):
        with undisturbed([net], y, training=False), torch.no_grad():
            y = net(y)
        if head_factory is not None:
            heads.append(head_factory(i, y))
        else:
            assert n_out is not None
            heads.append(_head(i, y, output, n_out, kind))
    return heads


class Features(nn.Module):
    """Takes the one tensor that a head works on out of what a component returns."""

    def forward(self, y: Tree) -> Tensor:
        features = features_of(y)
        if features is None:
            raise ValueError("the component's output no longer holds one tensor of floating point for its head.")
        return features


class TokenMean(nn.Module):
    """The mean over the tokens, (N, T, C) to (N, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=1)


def features_of(y: Tree) -> Tensor | None:
    """The tensor with the key "hidden_states", or the only one of floating point; None if there is no such tensor."""
    if isinstance(y, Mapping) and isinstance(y.get("hidden_states"), Tensor):
        features: Tensor = y["hidden_states"]
        return features
    found = [t for t in tensors(y) if t.is_floating_point()]
    return found[0] if len(found) == 1 else None


def _head(i: int, y: Tree, output: Output, n_out: int, kind: Kind) -> nn.Module:
    features = features_of(y)
    if features is None:
        shapes = ", ".join(f"{tuple(t.shape)} {t.dtype}" for t in tensors(y)) or "no tensor"
        raise ValueError(
            f"component {i} returns {shapes}; expected one tensor of floating point, or one with the key "
            "'hidden_states'. Make its head yourself: head_factory=lambda i, y: …"
        )
    n_dims = features.dim()
    told = _KINDS.get(n_dims) if kind == "auto" else kind
    if told is None or _KINDS.get(n_dims) != told:
        expected = _SHAPES[told] if told is not None else ", ".join(_SHAPES.values())
        raise ValueError(
            f"component {i} returns a tensor of shape {tuple(features.shape)}; expected {expected}. Choose another "
            "kind, or make its head yourself: head_factory=lambda i, y: …"
        )
    if output == "tokens" and told != "token":
        raise ValueError(
            f"output is 'tokens' and component {i} returns a tensor of shape {tuple(features.shape)}; expected "
            "(N, T, C). Choose output='classes', or make its head yourself: head_factory=lambda i, y: …"
        )
    layers: list[nn.Module]
    if told == "image":
        channels = features.size(1)
        layers = list(build_aux_net(f"conv{min(channels, _IMAGE_HEAD_CHANNELS)}_bn_gbpl_fc", channels, n_out))
    else:
        channels = features.size(-1)
        layers = [nn.LayerNorm(channels)]
        if told == "token" and output == "classes":
            layers.append(TokenMean())
        layers.append(nn.Linear(channels, n_out))
    if not isinstance(y, Tensor):
        layers.insert(0, Features())
    return nn.Sequential(*layers).to(features.device, features.dtype)
