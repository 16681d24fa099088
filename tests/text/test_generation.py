from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

import interlocking_backprop as ib
from interlocking_backprop.nets.transformer_builder import transformer
from interlocking_backprop.text.generation import Sampler, generate, generate_stream
from interlocking_backprop.text.token_loss import TokenLoss

CONTEXT = 8


def small_model(**options) -> ib.InterlockingBackpropModel:
    torch.manual_seed(0)
    main_nets, aux_nets = transformer(
        13, width=16, depth=2, n_heads=2, context=CONTEXT, blocks_per_component=3, **options
    )
    for net in (*main_nets, *aux_nets):
        for p in net.parameters():
            p.data *= 5  # so that likely tokens and exits differ
    scheme = ib.Scheme([[1, 0, 0], [0, 0, 1], [0, 0, 1]])
    return ib.build_model(main_nets, [aux_nets[0], None], scheme, torch.optim.AdamW, TokenLoss(), seed=0)


@pytest.fixture(scope="module")
def model() -> ib.InterlockingBackpropModel:
    return small_model()


def likely(model: nn.Module, ids: list[int], n: int) -> list[int]:
    for _ in range(n):
        ids = [*ids, int(model(torch.tensor([ids[-CONTEXT:]]))[0, -1].argmax())]
    return ids


def test_greedy_takes_the_most_likely_and_crops_to_the_context(model):
    out = generate(model, [1, 2, 3], 20, context=CONTEXT, temperature=0)
    assert out.dtype == torch.int64
    assert out.tolist() == likely(model, [1, 2, 3], 20)


def test_prompt_longer_than_the_context(model):
    prompt = list(range(12))
    assert generate(model, prompt, 4, context=CONTEXT, temperature=0).tolist() == likely(model, prompt, 4)
    assert generate(model, prompt, 0, context=CONTEXT).tolist() == prompt


def test_rows_are_texts_of_their_own(model):
    prompts = torch.tensor([[1, 2, 3], [4, 5, 6]])
    out = generate(model, prompts, 5, context=CONTEXT, temperature=0)
    assert out.tolist() == [likely(model, row, 5) for row in prompts.tolist()]


def test_an_inner_exit_goes_by_its_head(model):
    out = generate(model, [1, 2], 1, context=CONTEXT, exit=0, temperature=0)
    expected = model.forward_exits(torch.tensor([[1, 2]]))[0][0, -1].argmax()
    assert out[-1] == expected
    texts = [generate(model, [1, 2], 20, context=CONTEXT, exit=e, temperature=0).tolist() for e in (0, 2, None)]
    assert texts[0] != texts[1] == texts[2]


def test_seed_decides(model):
    first, again, other = (generate(model, [1], 30, context=CONTEXT, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_global_generator_is_left_alone(model):
    state = torch.get_rng_state()
    generate(model, [1], 3, context=CONTEXT)
    assert torch.equal(torch.get_rng_state(), state)


def test_stream_gives_the_same_tokens(model):
    stream = generate_stream(model, [1], context=CONTEXT, seed=3)
    tokens = [token.item() for token in itertools.islice(stream, 10)]
    assert tokens == generate(model, [1], 10, context=CONTEXT, seed=3).tolist()[1:]


@pytest.mark.parametrize("options", [{}, {"dropout": 0.5, "chunked_loss": True}])
def test_modes_come_back_between_tokens(options):
    model = small_model(**options)
    model.components[1].eval()
    modes = [module.training for module in model.modules()]
    stream = generate_stream(model, [1], context=CONTEXT, temperature=0)
    tokens = []
    for token in itertools.islice(stream, 3):
        assert [module.training for module in model.modules()] == modes
        tokens.append(token.item())
    assert tokens == likely(model.eval(), [1], 3)[1:]


def test_modes_come_back_after_an_error():
    model = small_model()
    with pytest.raises(IndexError):
        generate(model, [99], 1, context=CONTEXT)
    assert model.training


def drawn(n=2000, **options) -> list[float]:
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().expand(n, 4)
    tokens = Sampler(**options)(logits, torch.Generator().manual_seed(0))
    return (tokens.bincount(minlength=4) / n).tolist()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0.5, 0.3, 0.15, 0.05]),
        ({"temperature": 0}, [1, 0, 0, 0]),
        ({"temperature": 0.5}, [0.685, 0.247, 0.062, 0.007]),
        ({"top_k": 2}, [0.625, 0.375, 0, 0]),
        ({"top_k": 9}, [0.5, 0.3, 0.15, 0.05]),
        ({"top_p": 0.6}, [0.625, 0.375, 0, 0]),
        ({"top_p": 0.01}, [1, 0, 0, 0]),
        ({"top_k": 3, "top_p": 0.5}, [1, 0, 0, 0]),
    ],
)
def test_shares_of_the_tokens_drawn(options, expected):
    assert drawn(**options) == pytest.approx(expected, abs=0.035)
    assert [share == 0 for share in drawn(**options)] == [share == 0 for share in expected]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt_ids": []}, r"the prompt has shape \(0,\); expected token ids, at least one"),
        ({"prompt_ids": torch.zeros(1, 1, 1)}, r"the prompt has shape \(1, 1, 1\)"),
        ({"prompt_ids": [0.5]}, "the prompt has dtype torch.float32; expected whole numbers"),
        ({"n_new_tokens": -1}, "n_new_tokens is -1"),
        ({"exit": 1}, "component 1 has no head; expected one of 0, 2"),
        ({"exit": 3}, "exit is 3; expected a component from 0 to 2"),
        ({"exit": -1}, "exit is -1"),
        ({"temperature": -0.1}, "temperature is -0.1; expected a number of at least 0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_k": -1}, "top_k is -1"),
        ({"top_p": 0}, "top_p is 0; expected a probability above 0"),
        ({"context": 0}, "context is 0"),
    ],
)
def test_argument_that_does_not_fit(model, options, message):
    options = {"prompt_ids": [1], "n_new_tokens": 1, "context": CONTEXT, **options}
    with pytest.raises(ValueError, match=message):
        generate(model, **options)
    if "n_new_tokens" not in message:
        options.pop("n_new_tokens")
        with pytest.raises(ValueError, match=message):
            generate_stream(model, **options)  # not only when the first token is asked for
