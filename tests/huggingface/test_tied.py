"""Models whose head is their embedding: trained so end to end and by any scheme, and saved as they were."""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import load_file

import interlocking_backprop as ib
from interlocking_backprop.huggingface import causal_lm_loss, from_huggingface
from tests.huggingface.models import TIED, inputs, make, targets
from tests.huggingface.test_training import NO_DROPOUT


def adamw(params):
    return torch.optim.AdamW(params, lr=1e-2)


@pytest.mark.parametrize("kind", TIED)
@pytest.mark.parametrize("m", [1, 2])
def test_end_to_end_is_the_models_own_training(kind, m):
    model = make(kind, **NO_DROPOUT.get(kind, {})).double()
    batch = inputs(kind, mask=True, n=4)
    labels = targets(kind, batch)
    plain = copy.deepcopy(model).train()
    main_nets, _ = from_huggingface(model, 3, aux_nets=None)
    built = ib.build_e2e_model(main_nets, adamw, None, causal_lm_loss, n_microbatches=m).train()
    optimizer = adamw(plain.parameters())
    for _ in range(4):
        loss = built.training_step(batch, labels).result()
        expected = causal_lm_loss(plain(**batch, use_cache=False).logits, labels)
        optimizer.zero_grad()
        expected.backward()
        optimizer.step()
        torch.testing.assert_close(loss, expected.detach(), rtol=1e-6, atol=1e-8)
    for name, weight in plain.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], weight, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", TIED)
def test_the_trained_model_is_saved(kind, tmp_path):
    model, batch = make(kind), inputs(kind, mask=True)
    main_nets, aux_nets = from_huggingface(model, 3)
    built = ib.build_pairwise_model(main_nets, aux_nets, adamw, None, causal_lm_loss).train()
    before = model.lm_head.weight.detach().clone()
    for _ in range(5):
        built.training_step(batch, targets(kind, batch))
    embedding, head = model.get_input_embeddings().weight, model.lm_head.weight
    assert torch.equal(embedding, head)
    assert not torch.equal(head, before)

    built.eval()
    model.tie_weights()  # one weight again, in place of two that are equal
    model.save_pretrained(tmp_path)
    assert len(load_file(tmp_path / "model.safetensors")) == len(model.state_dict()) - 1
    loaded = type(model).from_pretrained(tmp_path).eval()
    assert loaded.lm_head.weight is loaded.get_input_embeddings().weight
    with torch.no_grad():
        assert torch.equal(loaded(**batch).logits, built(batch))
