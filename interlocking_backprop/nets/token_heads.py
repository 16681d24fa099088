"""The head of a language model: from a component's output to a score for every token of the vocabulary.

The network ends in one, and so may every component before the last. With a large vocabulary it is a good part of a
component's cost and most of its memory, hence two forms that are leaner: a low rank r makes ``C x V`` weights ``C x r +
r x V``, and with ``chunked_loss`` the logits are left to the loss, which computes them a few positions at a time.

Legend: B batch, T tokens, C channels, V size of the vocabulary, r rank.
"""

from __future__ import annotations

from torch import Tensor, nn


class TokenHead(nn.Module):
    """Normalisation and projection to the vocabulary, in full or through r channels.

    Args:
        width: C.
        vocabulary_size: V.
        rank: r; None for a projection in full.
        chunked_loss: whether a head in training mode returns what `TokenLoss` makes logits of, in place of logits.
    """

    def __init__(
        self, width: int, vocabulary_size: int, rank: int | None = None, *, chunked_loss: bool = False
    ) -> None:
        super().__init__()
        self.chunked_loss = chunked_loss
        self.norm = nn.LayerNorm(width)
        self.reduction = None if rank is None else nn.Linear(width, rank, bias=False)
        self.projection = nn.Linear(rank or width, vocabulary_size, bias=False)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:  # (B, T, C) ->
        features: Tensor = self.norm(x)
        if self.reduction is not None:
            features = self.reduction(features)
        if self.chunked_loss and self.training:
            return features, self.projection.weight  # (B, T, C or r), (V, C or r)
        logits: Tensor = self.projection(features)  # (B, T, V)
        return logits


def initialise_head(head: TokenHead) -> None:
    """Draws the weights anew. The reduction keeps the scale of the features, so that a low rank learns as fast."""
    nn.init.normal_(head.projection.weight, std=0.02)
    if head.reduction is not None:
        nn.init.normal_(head.reduction.weight, std=head.reduction.in_features**-0.5)
