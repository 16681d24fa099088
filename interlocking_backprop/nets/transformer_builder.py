"""Transformer language models cut into components, with their heads, and the way back to one plain net.

main_nets, aux_nets = transformer(257, width=256, depth=12, blocks_per_component=4)
model = ib.build_model(main_nets, aux_nets, ib.nwise(4, 3), optimizer_constructor, TokenLoss())
…                                                                 # training
torch.save(to_plain(main_nets).state_dict(), "trained.pth")
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import nn

from interlocking_backprop.common.checks import check_whole
from interlocking_backprop.nets.flops import forward_flops
from interlocking_backprop.nets.row import component_sizes, describe, sequential
from interlocking_backprop.nets.token_heads import TokenHead, initialise_head
from interlocking_backprop.nets.transformer import POSITIONS, Embedding, Positions, Shape, build_blocks, initialise

__all__ = ["describe", "to_plain", "transformer"]


def transformer(
    vocabulary_size: int,
    *,
    width: int = 128,
    depth: int = 8,
    n_heads: int = 4,
    context: int = 256,
    dropout: float = 0.0,
    mlp_ratio: float = 4,
    positions: Positions = "learned",
    blocks_per_component: int | str | Sequence[int | str] = 4,
    aux_rank: int | None = None,
    chunked_loss: bool = False,
    tied: bool = False,
) -> tuple[list[nn.Module], list[nn.Module]]:
    """Builds a Transformer in components, and a head for each component but the last.

    It takes token ids (batch, tokens), int64, and returns logits (batch, tokens, vocabulary_size): at each position
    those of the next token. With the same random seed the main nets get the same weights whatever the cut and the
    heads are.

    Args:
        vocabulary_size: how many tokens there are.
        width: channels between the blocks.
        depth: number of Transformer blocks, the embedding and the head not counted.
        n_heads: heads of each attention; divides the width.
        context: how many tokens the network sees at most.
        dropout: share of values dropped in training from the embedding, the attention weights and the residuals.
        mlp_ratio: hidden channels of the MLPs, in units of the width.
        positions: "learned" vectors, or "rotary".
        blocks_per_component: the number of components, which are then cut such that the one with the most
            floating-point operations has as few as possible. Or how many blocks each component takes, the last one
            "rest": ``"3,3,rest"``. The embedding counts as the first block, the head as the last.
        aux_rank: the heads of inner components project to the vocabulary through so many channels; None for a
            projection in full.
        chunked_loss: in training mode the heads return features and weights, of which `TokenLoss` makes logits a few
            positions at a time. Saves memory where the vocabulary is larger than the width. In evaluation mode they
            return logits all the same.
        tied: the projection of the network's own head is the weight of the embedding, which `build_model` keeps so (at
            a price, see its ``tied_weights``). The heads of inner components have weights of their own.

    Returns:
        The K main nets and the K - 1 heads.

    Raises:
        ValueError: if an argument does not fit, with the remedy.
    """
    shape = Shape(
        vocabulary_size=vocabulary_size,
        width=width,
        depth=depth,
        n_heads=n_heads,
        context=context,
        dropout=dropout,
        mlp_ratio=mlp_ratio,
        positions=positions,
        chunked_loss=chunked_loss,
    )
    _check(shape, aux_rank)
    sizes = component_sizes(blocks_per_component, depth + 2, lambda: _flops(shape))
    blocks = build_blocks(shape)
    for block in blocks.values():
        initialise(block, depth)
    embedding, head = blocks["embedding"], blocks["head"]
    if tied:
        assert isinstance(embedding, Embedding)
        assert isinstance(head, TokenHead)
        head.projection.weight = embedding.tokens.weight
    row = iter(blocks.items())
    main_nets: list[nn.Module] = [sequential(itertools.islice(row, n)) for n in sizes]
    aux_nets: list[nn.Module] = []
    for _ in sizes[:-1]:
        aux_net = TokenHead(width, vocabulary_size, aux_rank, chunked_loss=chunked_loss)
        initialise_head(aux_net)
        aux_nets.append(aux_net)
    return main_nets, aux_nets


def to_plain(main_nets: Sequence[nn.Module]) -> nn.Sequential:
    """Puts components together to one plain net with the same names. The modules are shared, not copied.

    Args:
        main_nets: all that `transformer` returned, in that order, trained or not; of a model,
            ``[component.main_net for component in model.components]``.

    Raises:
        ValueError: if these are not all the components of a Transformer.
    """
    blocks = [block for net in main_nets for block in net.named_children()]
    names = [name for name, _ in blocks]
    if len(names) < 2 or names != ["embedding", *(f"block{i}" for i in range(len(names) - 2)), "head"]:
        raise ValueError(
            f"the blocks of the main nets are {', '.join(names) or 'none'}; expected embedding, block0, … and head. "
            "Give all the main nets that transformer() returned, in that order."
        )
    plain = sequential(blocks)
    plain.training = blocks[0][1].training  # the shared modules keep their mode, and the container goes with it
    return plain


def _flops(shape: Shape) -> list[int]:
    """What each block costs."""
    with torch.device("meta"):
        modules = [block.eval() for block in build_blocks(shape).values()]
        sample = torch.zeros(1, shape.context, dtype=torch.int64)
    return forward_flops(modules, sample)


def _check(shape: Shape, aux_rank: int | None) -> None:
    counts = {name: getattr(shape, name) for name in ("vocabulary_size", "width", "depth", "n_heads", "context")}
    if aux_rank is not None:
        counts["aux_rank"] = aux_rank
    for name, value in counts.items():
        check_whole(name, value)
    if shape.width % shape.n_heads:
        raise ValueError(
            f"width is {shape.width} and n_heads {shape.n_heads}; expected a width that the number of heads divides."
        )
    if shape.positions not in POSITIONS:
        raise ValueError(f"positions is {shape.positions!r}; expected one of {', '.join(map(repr, POSITIONS))}.")
    if shape.positions == "rotary" and shape.width // shape.n_heads % 2:
        raise ValueError(
            f"positions is 'rotary' with {shape.width // shape.n_heads} channels a head (width {shape.width}, n_heads "
            f"{shape.n_heads}); expected an even number, as channels are turned in pairs."
        )
    if not 0 <= shape.dropout < 1:
        raise ValueError(f"dropout is {shape.dropout!r}; expected a share from 0 to below 1.")
    if not (0 < shape.mlp_ratio < math.inf and round(shape.mlp_ratio * shape.width) >= 1):
        raise ValueError(f"mlp_ratio is {shape.mlp_ratio!r}; expected a number above 0, usually 4.")
