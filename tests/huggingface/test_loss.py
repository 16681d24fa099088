from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

import interlocking_backprop as ib
from interlocking_backprop.huggingface import causal_lm_loss
from tests.huggingface.models import inputs, make, targets


def test_equals_the_loss_of_the_library():
    model, batch = make("llama"), inputs("llama", mask=True)
    labels = targets("llama", batch)
    with torch.no_grad():
        output = model(**batch, labels=labels)
    assert (labels == -100).sum() > 0
    torch.testing.assert_close(causal_lm_loss(output.logits, labels), output.loss)


def test_each_position_is_compared_with_the_next_label():
    logits, labels = torch.randn(2, 4, 5), torch.tensor([[1, 2, -100, 3], [4, -100, -100, -100]])
    expected = F.cross_entropy(torch.stack([logits[0, 0], logits[0, 2]]), torch.tensor([2, 3]))
    torch.testing.assert_close(causal_lm_loss(logits, labels), expected)
    assert causal_lm_loss.n_samples(labels) == 2
    assert causal_lm_loss.n_samples(labels[1:]) == 0


def test_weighted_by_their_counts_micro_batches_make_up_the_batch():
    logits, labels = torch.randn(4, 6, 5), torch.randint(0, 5, (4, 6))
    labels[0, 2:] = labels[1] = -100
    parts = list(zip(logits.split(1), labels.split(1), strict=True))
    total = sum(causal_lm_loss(x, y) * causal_lm_loss.n_samples(y) for x, y in parts)
    torch.testing.assert_close(total / causal_lm_loss.n_samples(labels), causal_lm_loss(logits, labels))


def test_nothing_counts():
    logits = torch.randn(1, 3, 5, requires_grad=True)
    loss = causal_lm_loss(logits, torch.full((1, 3), -100))
    loss.backward()
    assert loss == 0
    assert torch.equal(logits.grad, torch.zeros(1, 3, 5))


def test_logits_and_labels_that_do_not_fit():
    with pytest.raises(ValueError, match="one target for each position"):
        causal_lm_loss(torch.randn(2, 4, 5), torch.zeros(2, 3, dtype=torch.long))


def test_it_is_found_in_the_package():
    assert ib.huggingface.causal_lm_loss is causal_lm_loss
