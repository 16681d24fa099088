"""The loss of causal language models in the form in which `transformers` takes labels."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor
from torch.nn import functional as F

from interlocking_backprop.text.token_loss import TokenLoss

IGNORED = -100


@dataclass(frozen=True)
class CausalLMLoss:
    """Mean cross-entropy of each position's logits and the next position's label; labels of -100 do not count.

    So the labels are the input ids themselves, with -100 at padding. It is 0 if nothing counts.

    Attributes:
        token_loss: takes the logits and the shifted labels.
    """

    token_loss: TokenLoss = field(default_factory=lambda: TokenLoss(IGNORED))

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss, without dimensions, of logits (B, T, V) and labels (B, T)."""
        return self.token_loss(logits, self._shifted(labels))

    def n_samples(self, labels: Tensor) -> Tensor:
        """How many labels count, which makes the share of this micro-batch in the mean."""
        return self.token_loss.n_samples(self._shifted(labels))

    def _shifted(self, labels: Tensor) -> Tensor:
        # Labels are shifted, and the last position ignored, because to cut it off would copy the logits.
        return F.pad(labels[:, 1:], (0, 1), value=self.token_loss.ignore_index)


causal_lm_loss = CausalLMLoss()
