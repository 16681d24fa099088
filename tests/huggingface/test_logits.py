"""Transparency: the components, one after another, compute what the model computes, to the bit."""

from __future__ import annotations

import pytest
import torch

import interlocking_backprop as ib
from interlocking_backprop.huggingface import from_huggingface
from tests.huggingface.models import CAUSAL, KINDS, inputs, make


def run(main_nets, batch):
    with torch.no_grad():
        for net in main_nets:
            batch = net(batch)
    return batch


def original(model, batch):
    with torch.no_grad():
        return model(**batch, **({"use_cache": False} if "input_ids" in batch else {})).logits


def assert_equal_for_every_cut(model, batch):
    expected = original(model, batch)
    for k in (1, 2, 3, 4, 5):
        main_nets, _ = from_huggingface(model, k)
        assert len(main_nets) == k
        assert torch.equal(run(main_nets, batch), expected)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", KINDS)
def test_equal_to_the_bit(kind, attention):
    assert_equal_for_every_cut(make(kind, attention=attention), inputs(kind))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "vit"])
def test_with_padding(kind, attention):
    model, padded, whole = make(kind, attention=attention), inputs(kind, mask=True), inputs(kind)
    assert_equal_for_every_cut(model, padded)
    ones = torch.ones_like(whole["input_ids"])
    assert_equal_for_every_cut(model, whole | {"attention_mask": ones})
    assert not torch.equal(original(model, padded), original(model, padded | {"attention_mask": ones}))


@pytest.mark.parametrize("kind", ["gpt2", "bert", "roberta"])
def test_with_token_types(kind):
    model = make(kind, **({"type_vocab_size": 2} if kind == "roberta" else {}))
    batch = inputs(kind, mask=True)
    types = (torch.arange(9) > 4).long().expand(3, 9).contiguous()
    assert_equal_for_every_cut(model, batch | {"token_type_ids": types})
    assert not torch.equal(original(model, batch | {"token_type_ids": types}), original(model, batch))


@pytest.mark.parametrize("kind", [*CAUSAL, "bert", "roberta", "distilbert"])
def test_with_position_ids(kind):
    """They begin anew within the row, which causal models take for packed sequences."""
    model, batch = make(kind), inputs(kind)
    positions = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3, 4]).expand(3, 9).contiguous()
    assert_equal_for_every_cut(model, batch | {"position_ids": positions})
    assert not torch.equal(original(model, batch | {"position_ids": positions}), original(model, batch))


def test_windows_of_attention_are_seen():
    """Qwen2's last layers look back three tokens: its logits are not those of the same weights without a window."""
    batch = inputs("qwen2")
    windowed, full = make("qwen2"), make("qwen2", use_sliding_window=False)
    assert not torch.equal(original(windowed, batch), original(full, batch))


def test_rotary_embeddings_that_change_with_the_length():
    model = make("llama", rope_parameters={"rope_type": "dynamic", "rope_theta": 100.0, "factor": 2.0})
    twin = make("llama", rope_parameters={"rope_type": "dynamic", "rope_theta": 100.0, "factor": 2.0})
    main_nets, _ = from_huggingface(model, 3)
    for length in (9, 40, 9):
        batch = {"input_ids": torch.arange(length).expand(2, length) % 50}
        assert torch.equal(run(main_nets, batch), original(twin, batch))


def test_images_of_another_size():
    model = make("vit")
    batch = {"pixel_values": torch.randn(2, 3, 16, 16), "interpolate_pos_encoding": True}
    main_nets, _ = from_huggingface(model, 3)
    assert torch.equal(run(main_nets, batch), original(model, batch))


@pytest.mark.parametrize("kind", KINDS)
def test_a_built_model_returns_the_logits(kind):
    model = make(kind)
    main_nets, aux_nets = from_huggingface(model, 3, tied_weights="untie")
    built = ib.build_model(main_nets, aux_nets, ib.pairwise(3), torch.optim.AdamW, torch.nn.functional.cross_entropy)
    batch = inputs(kind, mask=True)
    assert torch.equal(built(batch), original(model, batch))
    assert [exit.shape for exit in built.forward_exits(batch)] == [built(batch).shape] * 3


@pytest.mark.parametrize("kind", KINDS)
def test_what_travels_is_the_hidden_states_and_what_the_user_gave(kind):
    main_nets, _ = from_huggingface(make(kind), 2)
    batch = inputs(kind, mask=True)
    state = main_nets[0](batch)
    expected = {"hidden_states", *({"attention_mask"} & batch.keys())}
    assert state.keys() == expected
    assert all(len(t) == 3 for t in state.values())
    assert [name for name, t in state.items() if t.requires_grad] == ["hidden_states"]
    if "attention_mask" in batch:
        assert state["attention_mask"] is batch["attention_mask"]


def test_none_means_not_given():
    model, batch = make("bert"), inputs("bert")
    main_nets, _ = from_huggingface(model, 2)
    padded = batch | {"attention_mask": None, "token_type_ids": None}
    assert torch.equal(run(main_nets, padded), original(model, batch))
