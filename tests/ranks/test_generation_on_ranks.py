"""A language model writes the same text on several ranks as on one device, at any exit."""

from __future__ import annotations

import pytest
import torch

import interlocking_backprop as ib
from interlocking_backprop.bench.processes import on_ranks
from interlocking_backprop.nets.transformer_builder import transformer
from interlocking_backprop.text.generation import generate
from interlocking_backprop.text.token_loss import TokenLoss

PROMPTS = torch.tensor([[1, 2, 3], [4, 5, 6]])


def model() -> ib.InterlockingBackpropModel:
    torch.manual_seed(0)
    main_nets, aux_nets = transformer(13, width=16, depth=2, n_heads=2, context=8, blocks_per_component=3)
    return ib.build_model(main_nets, aux_nets, ib.local(3), torch.optim.SGD, TokenLoss(), seed=0)


def texts(model: ib.InterlockingBackpropModel) -> list[list[list[int]]]:
    return [generate(model, PROMPTS, 12, context=8, exit=exit, seed=3).tolist() for exit in (0, 1, None)]


def on_rank(rank: int, size: int) -> list[list[list[int]]]:
    parallel = model()
    parallel.enable_model_parallel()
    found = texts(parallel)
    with pytest.raises(ValueError, match="exit is 3"):
        generate(parallel, PROMPTS, 1, context=8, exit=3)
    parallel.shutdown()
    return found


def test_all_ranks_get_the_text_of_one_device():
    expected = texts(model())
    assert expected[0] != expected[2]
    assert on_ranks(2, on_rank) == [expected, expected]
