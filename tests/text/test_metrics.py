from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

import interlocking_backprop as ib
from interlocking_backprop.data import batches
from interlocking_backprop.nets.transformer_builder import transformer
from interlocking_backprop.text import (
    bits_per_byte,
    language_metrics,
    language_summary,
    load_text,
    perplexity,
)
from interlocking_backprop.text.token_loss import TokenLoss
from interlocking_backprop.training.evaluation import evaluate
from tests.text.made import write_texts


def test_sums_over_the_tokens_that_count():
    logits, target = torch.randn(2, 3, 7), torch.tensor([[1, 2, -100], [-100, 6, 0]])
    sums = language_metrics(2.5)(logits, target)
    expected = F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="sum")
    assert sums["n"].item() == 4
    torch.testing.assert_close(sums["loss"], expected)
    assert sums["bits_per_byte"].item() == pytest.approx(expected.item() / math.log(2) / 2.5)


def test_low_precision_is_summed_in_float32():
    sums = language_metrics(1.0)(torch.randn(2, 3, 7).bfloat16(), torch.zeros(2, 3, dtype=torch.int64))
    assert sums["loss"].dtype == torch.float32


def test_summary_of_an_even_guess():
    assert language_summary(math.log(256), 1.0) == pytest.approx({"bits_per_byte": 8.0, "perplexity": 256.0})
    assert bits_per_byte(math.log(256), 4.0) == pytest.approx(2.0)
    assert perplexity(1e6) == math.inf


@pytest.mark.parametrize("vocabulary", ["bytes", "bpe:300"])
def test_a_net_that_knows_nothing_guesses_evenly_at_every_exit(tmp_path, vocabulary):
    write_texts(tmp_path / "in")
    data = load_text(f"text:{tmp_path}/in", tmp_path, context=16, vocabulary=vocabulary)
    main_nets, aux_nets = transformer(
        data.vocabulary_size, width=8, depth=1, n_heads=1, context=16, blocks_per_component=2, chunked_loss=True
    )
    for head in (main_nets[-1].get_submodule("head"), aux_nets[0]):
        torch.nn.init.zeros_(head.projection.weight)
    model = ib.build_model(main_nets, aux_nets, ib.local(2), torch.optim.AdamW, TokenLoss(), seed=0)
    split = data.test
    scores = evaluate(model, batches(split, 4), language_metrics(split.bytes_per_token))
    total_bits = split.tokens.n_targets * math.log2(data.vocabulary_size)
    for exit in scores:
        assert exit["loss"] == pytest.approx(math.log(data.vocabulary_size), rel=1e-4)
        assert exit["bits_per_byte"] == pytest.approx(total_bits / split.n_bytes, rel=1e-4)
        assert perplexity(exit["loss"]) == pytest.approx(data.vocabulary_size, rel=1e-3)


def test_the_library_learns_a_text(tmp_path):
    write_texts(tmp_path / "in")
    data = load_text(f"text:{tmp_path}/in", tmp_path, context=32)
    torch.manual_seed(0)
    main_nets, aux_nets = transformer(257, width=32, depth=2, n_heads=2, context=32, blocks_per_component=4)
    model = ib.build_model(
        main_nets, aux_nets, ib.nwise(4, 3, "sum"), lambda p: torch.optim.AdamW(p, 1e-2), TokenLoss(), seed=0
    )
    before = evaluate(model, batches(data.validation, 16), language_metrics(1.0))
    for x, y in batches(data.train, 16, shuffle=True):
        model.training_step(x, y).result()
    after = evaluate(model, batches(data.validation, 16), language_metrics(1.0))
    assert before[-1]["bits_per_byte"] == pytest.approx(8.0, abs=0.2)
    assert all(scores["bits_per_byte"] < 4.5 for scores in after)
