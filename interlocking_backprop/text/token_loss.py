"""The loss of a language model: mean cross-entropy over the tokens that count.

A head that is asked to (``chunked_loss=True``) hands over its features and weights in place of logits, which for a
context of 1,024 and a vocabulary of 50,000 are 200 MB a sample, and as much again for their gradient. They are then
computed a chunk of positions at a time, and each chunk's gradients along with its loss, so that no logits outlive their
chunk and none are computed twice. The same idea is in PyTorch's own ``linear_cross_entropy``; it is not used here
because with bfloat16 inputs it sums up and returns the loss in bfloat16: 8.375, or 8.625 with its default chunks, where
8.349 is right. That is no use for reporting.

Legend: B batch, T tokens, N = B x T positions, C channels, V size of the vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from interlocking_backprop.common.checks import check_whole


@dataclass(frozen=True)
class TokenLoss:
    """Mean cross-entropy over the positions that are not ignored; 0 if all are.

    Attributes:
        ignore_index: the target of positions that do not count.
        chunk_tokens: how many positions' logits are held at a time, where the head leaves them to the loss.

    Raises:
        ValueError: if ``chunk_tokens`` is out of its range.
    """

    ignore_index: int = -100
    chunk_tokens: int = 1024

    def __post_init__(self) -> None:
        check_whole("chunk_tokens", self.chunk_tokens)

    def __call__(self, output: Tensor | tuple[Tensor, Tensor], target: Tensor) -> Tensor:
        """The loss, without dimensions.

        Args:
            output: logits (B, T, V); or features (B, T, C) and weights (V, C), whose product they are.
            target: the token that is right at each position, int64 (B, T).

        Raises:
            ValueError: if the shapes do not fit.
        """
        values = output if isinstance(output, Tensor) else output[0]
        if values.shape[:-1] != target.shape:
            raise ValueError(
                f"the output has shape {tuple(values.shape)}, the target {tuple(target.shape)}; expected (B, T, V) "
                "and (B, T): one target for each position."
            )
        target = target.flatten()
        n = self.n_samples(target).clamp(min=1)
        if isinstance(output, Tensor):
            logits = _at_least_float32(output.flatten(0, -2))
            return F.cross_entropy(logits, target, ignore_index=self.ignore_index, reduction="sum") / n
        features, weight = output
        counts = target != self.ignore_index
        total: Tensor = _ChunkedCrossEntropy.apply(  # type: ignore[no-untyped-call]
            features.flatten(0, -2), weight, target.where(counts, 0), counts, self.chunk_tokens
        )
        return total / n

    def n_samples(self, target: Tensor) -> Tensor:
        """How many positions count, which makes the share of this micro-batch in the mean."""
        return (target != self.ignore_index).sum()


class _ChunkedCrossEntropy(torch.autograd.Function):
    """The sum of the cross-entropies of ``features @ weight.T``, never held as a whole."""

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, target: Tensor, counts: Tensor, chunk_tokens: int
    ) -> Tensor:
        device = features.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else features.dtype
        with torch.autocast(device, enabled=False):
            total, gradients = _sum_and_gradients(features.to(dtype), weight.to(dtype), target, counts, chunk_tokens)
        ctx.save_for_backward(gradients[0].to(features.dtype), gradients[1].to(weight.dtype))
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        features, weight = ctx.saved_tensors
        # Out of place, so that a graph may be gone through twice.
        return (features * gradient).to(features.dtype), (weight * gradient).to(weight.dtype), None, None, None


def _sum_and_gradients(
    features: Tensor, weight: Tensor, target: Tensor, counts: Tensor, chunk_tokens: int
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """The sum of the losses, and its gradients with respect to the features (N, C) and the weight (V, C).

    Products are taken in the dtype of the arguments. Everything else, sums over chunks above all, is in float32 at
    least.
    """
    exact = torch.promote_types(features.dtype, torch.float32)
    total = features.new_zeros((), dtype=exact)
    features_gradient = torch.empty_like(features)
    weight_gradient = torch.zeros_like(weight, dtype=exact)
    # One buffer for all chunks: fresh memory for each would cost more time than the softmax does.
    buffer = features.new_empty(min(chunk_tokens, len(features)), len(weight), dtype=exact)
    chunks = (torch.split(t, chunk_tokens) for t in (features, target, counts, features_gradient))
    for x, right, counted, gradient in zip(*chunks, strict=True):
        logits = buffer[: len(x)]
        if x.dtype == exact:
            torch.mm(x, weight.T, out=logits)
        else:
            logits.copy_(x @ weight.T)
        logits.sub_(logits.amax(1, keepdim=True))
        of_right = logits.gather(1, right[:, None]).squeeze(1)
        sums = logits.exp_().sum(1)
        total += ((sums.log() - of_right) * counted).sum()
        # From here on they are the gradient of the logits: the probabilities, less 1 at the right token.
        logits.mul_((counted / sums)[:, None])
        logits.scatter_add_(1, right[:, None], -counted.to(exact)[:, None])
        of_logits = logits.to(x.dtype)
        torch.mm(of_logits, weight, out=gradient)
        if x.dtype == exact:
            weight_gradient.addmm_(of_logits.T, x)
        else:
            weight_gradient += of_logits.T @ x
    return total, (features_gradient, weight_gradient)


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
