"""Training the components trains the model: gradients by the definition, and the model's own loop as a yardstick."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import functional as F

import interlocking_backprop as ib
from interlocking_backprop.huggingface import causal_lm_loss, from_huggingface
from tests import oracle
from tests.huggingface.models import CAUSAL, KINDS, TIED, inputs, make, targets
from tests.small_nets import Recorder, recorded

NO_DROPOUT = {
    "gpt2": {"embd_pdrop": 0.0, "attn_pdrop": 0.0, "resid_pdrop": 0.0},
    "bert": {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
    "roberta": {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
    "distilbert": {"dropout": 0.0, "attention_dropout": 0.0, "seq_classif_dropout": 0.0},
}


def loss_of(kind: str):
    return causal_lm_loss if kind in CAUSAL else F.cross_entropy


def sgd(params):
    return torch.optim.SGD(params, lr=0.1, momentum=0.9)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_the_definition(kind):
    """With dropout, padding and a scheme in which input and weight gradients are separate passes."""
    model = make(kind, attn_pdrop=0.2) if kind == "gpt2" else make(kind)
    main_nets, aux_nets = from_huggingface(model.double(), 4, tied_weights="untie")
    batch = inputs(kind, mask=True)
    if kind == "vit":
        batch = {"pixel_values": batch["pixel_values"].double()}
    target, scheme = targets(kind, batch), ib.nwise(4, 3, "sum")
    built = ib.build_model(main_nets, aux_nets, scheme, Recorder, loss_of(kind), seed=0).train()
    built.training_step(batch, target).result()
    main, aux = oracle.gradients(main_nets, aux_nets, scheme, loss_of(kind), [(batch, target)])
    for nets, expected in ((main_nets, main), (aux_nets, aux)):
        for net, grads in zip(nets, expected, strict=False):
            for parameter, grad in zip(net.parameters(), grads, strict=True):
                # Llama's normalisations compute in float32 whatever they get.
                torch.testing.assert_close(recorded(built, parameter), grad, rtol=1e-5, atol=1e-7)
    assert any(grad.abs().max() > 0 for grads in main for grad in grads)


@pytest.mark.parametrize("kind", KINDS)
def test_end_to_end_is_the_models_own_training(kind):
    model = make(kind, **NO_DROPOUT.get(kind, {}))
    batch = inputs(kind, mask=True)
    labels = targets(kind, batch)
    if kind in TIED:
        from_huggingface(model, 1, tied_weights="untie")
    plain = copy.deepcopy(model).train()
    main_nets, _ = from_huggingface(model, 3, aux_nets=None)
    built = ib.build_e2e_model(main_nets, sgd, None, loss_of(kind)).train()
    optimizer = sgd(plain.parameters())
    for _ in range(3):
        loss = built.training_step(batch, labels).result()
        expected = plain(**batch, labels=labels).loss
        optimizer.zero_grad()
        expected.backward()
        optimizer.step()
        torch.testing.assert_close(loss, expected.detach(), rtol=1e-5, atol=1e-6)
    for (name, trained), p in zip(model.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(trained, p, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("kind", KINDS)
def test_the_trained_model_is_saved_and_loaded(kind, tmp_path):
    model, batch = make(kind), inputs(kind, mask=True)
    before = copy.deepcopy(model.state_dict())
    main_nets, aux_nets = from_huggingface(model, 3, tied_weights="untie")
    adamw = lambda params: torch.optim.AdamW(params, lr=1e-2)  # noqa: E731
    built = ib.build_pairwise_model(main_nets, aux_nets, adamw, None, loss_of(kind)).train()
    losses = [built.training_step(batch, targets(kind, batch)).result().item() for _ in range(30)]
    assert losses[-1] < 0.7 * losses[0]
    after = model.state_dict()
    assert [name for name in before if torch.equal(before[name], after[name])] == []
    keys = [key for net in main_nets for key in net.state_dict()]
    assert sorted(keys) == sorted(after)

    built.eval()
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(loaded(**batch).logits, built(batch))


@pytest.mark.parametrize("kind", CAUSAL)
def test_micro_batches_give_the_gradient_of_the_batch(kind):
    """Though by their padding they differ in how many labels count."""
    batch = inputs(kind, mask=True, n=4)
    grads = []
    for n_microbatches in (1, 2, 4):
        model = make(kind, **NO_DROPOUT.get(kind, {})).double()
        main_nets, aux_nets = from_huggingface(model, 3, tied_weights="untie")
        built = ib.build_model(
            main_nets, aux_nets, ib.pairwise(3), Recorder, causal_lm_loss, n_microbatches=n_microbatches
        ).train()
        built.training_step(batch, targets(kind, batch)).result()
        grads.append([recorded(built, p) for p in model.parameters()])
    for other in grads[1:]:
        for a, b in zip(grads[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


class TestTiedWeights:
    @pytest.mark.parametrize("kind", TIED)
    def test_keep_is_one_parameter_at_both_ends(self, kind):
        model, batch = make(kind), inputs(kind, mask=True)
        main_nets, _ = from_huggingface(model, 3)
        shared = set(main_nets[0].parameters()) & set(main_nets[-1].parameters())
        assert [p is model.lm_head.weight for p in shared] == [True]
        state = batch
        with torch.no_grad():
            for net in main_nets:
                state = net(state)
            assert torch.equal(state, model(**batch, use_cache=False).logits)
        assert model.config.tie_word_embeddings

    @pytest.mark.parametrize("kind", TIED)
    def test_untie_gives_the_head_a_copy(self, kind):
        model, batch = make(kind), inputs(kind)
        with torch.no_grad():
            before = model(**batch).logits
        main_nets, _ = from_huggingface(model, 3, tied_weights="untie")
        embedding, head = model.get_input_embeddings().weight, model.lm_head.weight
        assert embedding is not head
        assert torch.equal(embedding, head)
        assert not set(main_nets[0].parameters()) & set(main_nets[-1].parameters())
        assert not model.config.tie_word_embeddings
        with torch.no_grad():
            assert torch.equal(model(**batch).logits, before)
            head += 1
        assert not torch.equal(embedding, head)
        model.tie_weights()  # as some functions of the library do; the configuration now says that nothing is tied
        assert model.get_input_embeddings().weight is not model.lm_head.weight

    def test_untie_of_a_model_that_is_not_tied(self):
        model = make("llama")
        head = model.lm_head.weight
        from_huggingface(model, 2, tied_weights="untie")
        assert model.lm_head.weight is head

    def test_auxiliary_heads_have_weights_of_their_own(self):
        model = make("gpt2")
        _, aux_nets = from_huggingface(model, 3)
        heads = [{p.data_ptr() for p in head.parameters()} for head in aux_nets]
        assert not heads[0] & heads[1]
        assert not heads[0] & {p.data_ptr() for p in model.parameters()}


def switch_on(model, use_reentrant: bool) -> None:
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": use_reentrant})


class TestGradientCheckpointing:
    def gradients(self, checkpointing: bool) -> tuple[list[torch.Tensor], int]:
        """The gradients, and how often an attention of the middle component was run."""
        model = make("llama", attention_dropout=0.2).double()
        if checkpointing:
            switch_on(model, use_reentrant=False)
        main_nets, aux_nets = from_huggingface(model, 3)
        built = ib.build_model(main_nets, aux_nets, ib.nwise(3, 2), Recorder, causal_lm_loss, seed=0).train()
        calls = []
        model.model.layers[1].self_attn.register_forward_pre_hook(lambda *_: calls.append(1))
        batch = inputs("llama", mask=True)
        built.training_step(batch, batch["input_ids"]).result()
        return [recorded(built, p) for p in model.parameters()], len(calls)

    def test_is_honoured_and_gives_the_same_gradients(self):
        plain, n_plain = self.gradients(checkpointing=False)
        checkpointed, n_checkpointed = self.gradients(checkpointing=True)
        assert n_plain == 1
        assert n_checkpointed == 3  # forward, and for the gradients of the input and of the weights
        assert all(torch.equal(a, b) for a, b in zip(plain, checkpointed, strict=True))

    def test_reentrant_one_is_rejected(self):
        model = make("llama")
        switch_on(model, use_reentrant=True)
        with pytest.raises(ValueError, match=r"gradient checkpointing is reentrant.*{'use_reentrant': False}"):
            from_huggingface(model, 2)


def test_frozen_embeddings_stay_as_they_are():
    model, batch = make("bert"), inputs("bert")
    model.bert.embeddings.requires_grad_(False)
    before = model.bert.embeddings.word_embeddings.weight.clone()
    layer = model.bert.encoder.layer[0].output.dense.weight.clone()
    main_nets, aux_nets = from_huggingface(model, 3)
    built = ib.build_pairwise_model(main_nets, aux_nets, sgd, None, F.cross_entropy).train()
    built.training_step(batch, torch.arange(3)).result()
    assert torch.equal(model.bert.embeddings.word_embeddings.weight, before)
    assert not torch.equal(model.bert.encoder.layer[0].output.dense.weight, layer)
