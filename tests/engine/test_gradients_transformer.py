"""Gradients of Transformers equal the definition: tokens that do not count, masks, activations of several tensors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import interlocking_backprop as ib
from interlocking_backprop.engine.batch import split
from interlocking_backprop.huggingface import causal_lm_loss, from_huggingface
from interlocking_backprop.nets.transformer_builder import transformer
from interlocking_backprop.text.token_loss import TokenLoss
from tests import oracle
from tests.engine.test_gradients import coefficients
from tests.huggingface.models import CAUSAL, inputs, make, targets
from tests.small_nets import Recorder, recorded

VOCABULARY, CONTEXT = 7, 6
NO_DROPOUT = {
    "gpt2": {"embd_pdrop": 0.0, "attn_pdrop": 0.0, "resid_pdrop": 0.0},
    "llama": {},
    "bert": {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
}


@st.composite
def schemes(draw) -> ib.Scheme:
    k = draw(st.integers(1, 4))
    matrix = np.array([[draw(coefficients) if j >= i else 0.0 for j in range(k)] for i in range(k)])
    assume(matrix.any())
    return ib.Scheme(matrix)


def check_step(
    main_nets: list[nn.Module], aux_nets: list[nn.Module], scheme: ib.Scheme, loss, x, target: Tensor, m: int, **close
) -> None:
    model = ib.build_model(main_nets, aux_nets, scheme, Recorder, loss, n_microbatches=m, seed=0).train()
    n = min(m, len(target))
    parts = list(zip(split(x, n, len(target)), split(target, n, len(target)), strict=True))
    expected = oracle.gradients(main_nets, aux_nets, scheme, loss, parts)
    model.training_step(x, target).result()
    for nets, of_nets in zip((main_nets, aux_nets), expected, strict=True):
        for net, grads in zip(nets, of_nets, strict=False):
            for (name, p), grad in zip(net.named_parameters(), grads, strict=True):
                torch.testing.assert_close(recorded(model, p), grad, **close, msg=lambda text, name=name: name + text)


@settings(max_examples=15, deadline=None)
@given(schemes(), st.integers(1, 4), st.lists(st.integers(0, CONTEXT), min_size=5, max_size=5), st.booleans())
def test_tokens_that_count_are_spread_unevenly_over_micro_batches(scheme, m, n_counted, chunked):
    torch.manual_seed(0)
    main_nets, aux_nets = transformer(
        VOCABULARY,
        width=8,
        depth=3,
        n_heads=2,
        context=CONTEXT,
        blocks_per_component=scheme.n_components,
        chunked_loss=chunked,
    )
    for net in (*main_nets, *aux_nets):
        net.double()
    ids = torch.randint(VOCABULARY, (len(n_counted), CONTEXT + 1))
    target = ids[:, 1:].clone()
    for row, n in zip(target, n_counted, strict=True):
        row[n:] = -100
    check_step(main_nets, aux_nets, scheme, TokenLoss(chunk_tokens=4), ids[:, :-1], target, m, rtol=0, atol=1e-10)


def test_what_no_token_counts_in_has_no_gradient():
    main_nets, aux_nets = transformer(VOCABULARY, width=8, depth=2, n_heads=2, context=CONTEXT, blocks_per_component=2)
    model = ib.build_model(main_nets, aux_nets, ib.nwise(2, 2, "sum"), Recorder, TokenLoss(), n_microbatches=2)
    ids = torch.randint(VOCABULARY, (4, CONTEXT))
    assert model.training_step(ids, torch.full_like(ids, -100)).result() == 0
    assert all(not recorded(model, p).any() for p in model.parameters())


@pytest.mark.parametrize("kind", NO_DROPOUT)
@settings(max_examples=8, deadline=None)
@given(schemes(), st.integers(1, 4), st.sampled_from(["none", "shared", "own"]))
def test_masks_and_positions_travel_with_the_hidden_states(kind, scheme, m, positions):
    """The first row is padded on its right and the second on its left: masked there, and labels do not count."""
    model = make(kind, **NO_DROPOUT[kind]).double()
    main_nets, aux_nets = from_huggingface(model, scheme.n_components, tied_weights="untie")
    batch = inputs(kind, mask=True, n=5)
    target = targets(kind, batch)
    if positions != "none":
        row = torch.arange(batch["input_ids"].size(1)).flip(0) % 5
        batch["position_ids"] = row[None] if positions == "shared" else (row + torch.arange(5)[:, None]) % 9
    loss = causal_lm_loss if kind in CAUSAL else F.cross_entropy
    # Llama's normalisations compute in float32 whatever they get.
    close = {"rtol": 1e-5, "atol": 1e-6} if kind == "llama" else {"rtol": 0, "atol": 1e-10}
    check_step(main_nets, aux_nets, scheme, loss, batch, target, m, **close)


class Mixing(nn.Module):
    """Takes and returns a nested structure: features, and a dict with a mask and positions that pass through it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, state: tuple[Tensor, dict[str, Tensor]]) -> tuple[Tensor, dict[str, Tensor]]:
        features, others = state
        mixed = torch.tanh(self.linear(features + others["positions"].cos()[..., None]))
        return features + mixed * others["mask"][..., None], {**others, "scale": others["scale"] * mixed.mean()}


class Reading(nn.Module):
    """From such a structure to scores; both of its parts that carry a gradient matter."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, VOCABULARY)

    def forward(self, state: tuple[Tensor, dict[str, Tensor]]) -> Tensor:
        features, others = state
        return self.linear(features) * others["scale"]


@settings(max_examples=15, deadline=None)
@given(schemes(), st.integers(1, 4))
def test_gradients_pass_through_every_tensor_of_a_nested_activation(scheme, m):
    torch.manual_seed(0)
    k, n, width = scheme.n_components, 5, 4
    main_nets: list[nn.Module] = [Mixing(width).double() for _ in range(k - 1)]
    main_nets.append(nn.Sequential(Mixing(width), Reading(width)).double())
    aux_nets: list[nn.Module] = [Reading(width).double() for _ in range(k - 1)]
    mask = (torch.arange(CONTEXT) < torch.arange(2, 2 + n)[:, None]).long()
    others = {"mask": mask, "positions": torch.arange(CONTEXT)[None], "scale": torch.ones((), dtype=torch.float64)}
    x = (torch.randn(n, CONTEXT, width, dtype=torch.float64), others)
    target = torch.randint(VOCABULARY, (n, CONTEXT)).where(mask == 1, -100)
    check_step(main_nets, aux_nets, scheme, TokenLoss(), x, target, m, rtol=0, atol=1e-10)
