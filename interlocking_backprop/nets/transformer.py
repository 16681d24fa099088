"""A decoder-only Transformer (Vaswani et al., 2017) as a row of blocks to be cut anywhere: embedding, blocks, head.

As in GPT-2 (Radford et al., 2019) the normalisation comes before each sub-layer, the activation is GELU and weights
begin small. Positions are learned, or rotary (Su et al., 2021), which need no weights and enter in every block.

The names say where a block is in the network, so the keys of a state dict do not depend on the cut. No block changes
its input in place: it may be the output of another component, which is kept for backward passes.

Legend: B batch, T tokens, C channels (width), H heads, D channels of a head (C / H), V size of the vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from interlocking_backprop.nets.token_heads import TokenHead, initialise_head

Positions = Literal["learned", "rotary"]
POSITIONS: tuple[Positions, ...] = ("learned", "rotary")

_ROTARY_BASE = 10_000.0


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What the blocks of a Transformer have in common.

    Attributes:
        vocabulary_size: V.
        width: C.
        depth: number of Transformer blocks.
        n_heads: H; divides the width.
        context: the largest T.
        dropout: share of values dropped from the embedding, the attention weights and what the sub-layers add.
        mlp_ratio: hidden channels of the MLPs, in units of the width.
        positions: how blocks know the order of the tokens.
        chunked_loss: see `TokenHead`.
    """

    vocabulary_size: int
    width: int
    depth: int
    n_heads: int
    context: int
    dropout: float
    mlp_ratio: float
    positions: Positions
    chunked_loss: bool


class Embedding(nn.Module):
    """From token ids to vectors, with those of their positions added if these are learned."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.context = shape.context
        self.tokens = nn.Embedding(shape.vocabulary_size, shape.width)
        self.positions = nn.Embedding(shape.context, shape.width) if shape.positions == "learned" else None
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, ids: Tensor) -> Tensor:  # (B, T) -> (B, T, C)
        n_tokens = ids.size(1)
        if n_tokens > self.context:
            raise ValueError(
                f"the input has {n_tokens} tokens; expected at most the context of {self.context}. Crop it, or build "
                "the network with a larger context."
            )
        x: Tensor = self.tokens(ids)
        if self.positions is not None:
            x = x + self.positions.weight[:n_tokens]
        dropped: Tensor = self.dropout(x)
        return dropped


class Attention(nn.Module):
    """Every token looks at itself and those before it, H times over."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.n_heads = shape.n_heads
        self.dropout = shape.dropout
        self.qkv = nn.Linear(shape.width, 3 * shape.width)
        self.projection = nn.Linear(shape.width, shape.width)
        self.rotation: nn.Module
        if shape.positions == "rotary":
            self.rotation = Rotation(shape.context, shape.width // shape.n_heads)
        else:
            self.rotation = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C) -> (B, T, C)
        b, t, c = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.n_heads, -1).permute(2, 0, 3, 1, 4)  # each (B, H, T, D)
        q, k = self.rotation(q), self.rotation(k)
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)
        out: Tensor = self.projection(mixed.transpose(1, 2).reshape(b, t, c))
        return out


class Rotation(nn.Module):
    """Rotary positions: turns pairs of channels by angles that grow with the position.

    So the product of a query and a key depends on how far apart they are. The tables follow from their sizes, hence
    they are no part of the state dict.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, context: int, head_width: int) -> None:
        super().__init__()
        frequencies = _ROTARY_BASE ** -(torch.arange(0, head_width, 2, dtype=torch.float64) / head_width)
        angles = torch.arange(context, dtype=torch.float64).outer(frequencies)  # (context, D / 2)
        self.register_buffer("cos", angles.cos().float(), persistent=False)
        self.register_buffer("sin", angles.sin().float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:  # (B, H, T, D) -> (B, H, T, D)
        cos, sin = (table[: x.size(2)].to(x.dtype) for table in (self.cos, self.sin))
        first, second = x.chunk(2, dim=-1)
        return torch.cat((first * cos - second * sin, first * sin + second * cos), dim=-1)


class MLP(nn.Module):
    """Two linear layers with a GELU between them, on every token by itself."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        hidden = round(shape.mlp_ratio * shape.width)
        self.expansion = nn.Linear(shape.width, hidden)
        self.projection = nn.Linear(hidden, shape.width)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C) -> (B, T, C)
        out: Tensor = self.projection(F.gelu(self.expansion(x)))
        return out


class Block(nn.Module):
    """Attention and MLP, each of what is normalised, each added to what comes in."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(shape.width)
        self.attention = Attention(shape)
        self.mlp_norm = nn.LayerNorm(shape.width)
        self.mlp = MLP(shape)
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C) -> (B, T, C)
        x = x + self.dropout(self.attention(self.attention_norm(x)))
        out: Tensor = x + self.dropout(self.mlp(self.mlp_norm(x)))
        return out


def build_blocks(shape: Shape) -> dict[str, nn.Module]:
    """The network as a row of named blocks: ``embedding``, ``block0`` …, ``head``."""
    blocks: dict[str, nn.Module] = {"embedding": Embedding(shape)}
    blocks |= {f"block{i}": Block(shape) for i in range(shape.depth)}
    blocks["head"] = TokenHead(shape.width, shape.vocabulary_size, chunked_loss=shape.chunked_loss)
    return blocks


def initialise(block: nn.Module, depth: int) -> None:
    """Draws the weights of a block anew, as GPT-2 does.

    What is added to the residual stream begins smaller the deeper the network is, so that the sum of all of it does
    not grow with the depth.
    """
    if isinstance(block, TokenHead):
        initialise_head(block)
        return
    for name, part in block.named_modules():
        if isinstance(part, (nn.Linear, nn.Embedding)):
            is_added = name in ("attention.projection", "mlp.projection")
            nn.init.normal_(part.weight, std=0.02 / math.sqrt(2 * depth) if is_added else 0.02)
        if isinstance(part, nn.Linear):
            nn.init.zeros_(part.bias)
