"""How well text is predicted: loss in nats per token, and what of it does not depend on the vocabulary."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from interlocking_backprop.text.windows import IGNORED


def language_metrics(
    bytes_per_token: float, ignore_index: int = IGNORED
) -> Callable[[Tensor, Tensor], dict[str, Tensor]]:
    """Sums over the tokens of a batch, as evaluation takes them: "n", "loss" and "bits_per_byte".

    Args:
        bytes_per_token: of the split that is evaluated.
        ignore_index: the target of positions that do not count.
    """

    def metrics(output: Tensor, target: Tensor) -> dict[str, Tensor]:
        logits, target = output.flatten(0, -2), target.flatten()
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        loss = F.cross_entropy(logits, target, ignore_index=ignore_index, reduction="sum")
        n = (target != ignore_index).sum()
        return {"n": n.to(loss.dtype), "loss": loss, "bits_per_byte": loss / (math.log(2) * bytes_per_token)}

    return metrics


def language_summary(loss: float, bytes_per_token: float) -> dict[str, float]:
    """What a mean loss in nats per token amounts to."""
    return {"bits_per_byte": bits_per_byte(loss, bytes_per_token), "perplexity": perplexity(loss)}


def bits_per_byte(loss: float, bytes_per_token: float) -> float:
    """Bits per byte of text, which compare across vocabularies, from a mean loss in nats per token."""
    return loss / (math.log(2) * bytes_per_token)


def perplexity(loss: float) -> float:
    """Among how many tokens, equally likely, it would be as hard to choose; infinite where no float holds it."""
    return math.exp(loss) if loss < 700 else math.inf
