"""Where models are cut, which auxiliary nets they get, and what cannot be converted."""

from __future__ import annotations

import copy
import sys

import pytest
import torch
import transformers
from torch import nn

from interlocking_backprop.huggingface import from_huggingface, library
from interlocking_backprop.huggingface.convert import FAMILIES
from tests.huggingface.models import CAUSAL, KINDS, VOCABULARY, inputs, make


def layers_of(main_nets) -> list[int]:
    return [sum("mlp.down_proj" in name and "weight" in name for name in net.state_dict()) for net in main_nets]


class TestCut:
    def test_flops_weigh_the_head_and_not_the_embedding(self):
        model = make("llama", num_hidden_layers=6, vocab_size=960)
        main_nets, _ = from_huggingface(model, 3)
        assert layers_of(main_nets) == [3, 3, 0]
        assert "model.embed_tokens.weight" in main_nets[0].state_dict()
        assert list(main_nets[2].state_dict()) == ["model.norm.weight", "lm_head.weight"]

    def test_parameters_weigh_both(self):
        model = make("llama", num_hidden_layers=6, vocab_size=960)
        main_nets, _ = from_huggingface(model, 3, by="parameters")
        assert layers_of(main_nets) == [0, 6, 0]

    @pytest.mark.parametrize("by", ["time", "activations"])
    def test_measured_on_a_batch(self, by):
        model = make("gpt2")
        before = {name: t.clone() for name, t in model.state_dict().items()}
        main_nets, _ = from_huggingface(model, 2, by=by, sample_inputs=inputs("gpt2", mask=True))
        assert len(main_nets) == 2
        assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
        assert not any(module.training for module in model.modules())
        assert all(p.grad is None for p in model.parameters())

    @pytest.mark.parametrize("by", ["time", "activations"])
    def test_not_measured_without_a_batch(self, by):
        with pytest.raises(ValueError, match="sample_inputs is None; pass a batch"):
            from_huggingface(make("gpt2"), 2, by=by)

    @pytest.mark.parametrize("n_components", [0, 6])
    def test_number_of_components_that_does_not_fit(self, n_components):
        with pytest.raises(ValueError, match="expected a whole number from 1 to 5, the number of blocks"):
            from_huggingface(make("gpt2"), n_components)

    def test_components_can_be_copied(self):
        main_nets, _ = from_huggingface(make("qwen2"), 3)
        copies, batch = copy.deepcopy(main_nets), inputs("qwen2")
        state = batch
        for net, twin in zip(main_nets, copies, strict=True):
            batch, state = net(batch), twin(state)
        assert torch.equal(batch, state)
        assert {p.data_ptr() for net in main_nets for p in net.parameters()}.isdisjoint(
            p.data_ptr() for net in copies for p in net.parameters()
        )

    def test_a_model_without_storage_can_be_cut(self):
        """To plan for a model that is too large for this machine."""
        with torch.device("meta"):
            planned, _ = from_huggingface(make("llama"), 3)
        made, _ = from_huggingface(make("llama"), 3)
        assert [list(net.state_dict()) for net in planned] == [list(net.state_dict()) for net in made]

    def test_mode_is_kept(self):
        for mode in (True, False):
            main_nets, aux_nets = from_huggingface(make("bert").train(mode), 3)
            assert {part.training for net in (*main_nets, *aux_nets) for part in net.modules()} == {mode}


class TestAuxiliaryNets:
    @pytest.mark.parametrize("kind", KINDS)
    def test_are_copies_of_the_models_head(self, kind):
        model = make(kind)
        main_nets, aux_nets = from_huggingface(model, 5)  # the last component is the head alone
        state = inputs(kind, mask=True)
        with torch.no_grad():
            for net in main_nets[:-1]:
                state = net(state)
            for head in aux_nets:
                assert torch.equal(head(state), main_nets[-1](state))
        own = {p.data_ptr() for p in model.parameters()}
        for head in aux_nets:
            assert head.state_dict().keys() == main_nets[-1].state_dict().keys()
            assert own.isdisjoint(p.data_ptr() for p in head.parameters())

    def test_want_gradients_though_the_models_head_is_frozen(self):
        model = make("vit")
        model.classifier.requires_grad_(False)
        _, aux_nets = from_huggingface(model, 2)
        assert all(p.requires_grad for p in aux_nets[0].parameters())

    @pytest.mark.parametrize("kind", CAUSAL)
    def test_low_rank(self, kind):
        main_nets, aux_nets = from_huggingface(make(kind), 3, head_rank=2)
        logits = aux_nets[0](main_nets[0](inputs(kind)))
        assert logits.shape == (3, 9, VOCABULARY)
        sizes = [p.numel() for name, p in aux_nets[0].named_parameters() if "lm_head" in name]
        assert sizes == [2 * 16, 2 * VOCABULARY]

    def test_none(self):
        _, aux_nets = from_huggingface(make("gpt2"), 3, aux_nets=None)
        assert aux_nets == [None, None]

    def test_of_ones_own(self):
        seen = []

        def factory(i, state):
            seen.append((i, tuple(state["hidden_states"].shape), sorted(state)))
            return nn.Identity() if i else None

        _, aux_nets = from_huggingface(make("bert"), 3, sample_inputs=inputs("bert", mask=True), aux_nets=factory)
        assert aux_nets[0] is None
        assert isinstance(aux_nets[1], nn.Identity)
        assert seen == [(i, (3, 9, 16), ["attention_mask", "hidden_states"]) for i in (0, 1)]


class TestInputs:
    def test_labels_are_targets(self):
        main_nets, _ = from_huggingface(make("bert"), 2)
        with pytest.raises(ValueError, match=r"the inputs hold 'labels'; .*Labels are the targets: training_step"):
            main_nets[0](inputs("bert") | {"labels": torch.arange(3)})

    def test_unknown_ones(self):
        main_nets, _ = from_huggingface(make("distilbert"), 2)
        message = "the inputs hold 'token_type_ids'; expected 'input_ids', 'attention_mask', 'position_ids'"
        with pytest.raises(ValueError, match=message):
            main_nets[0](inputs("distilbert") | {"token_type_ids": torch.zeros(3, 9)})

    def test_the_indispensable_one_is_missing(self):
        main_nets, _ = from_huggingface(make("vit"), 2)
        with pytest.raises(ValueError, match="the inputs hold nothing; expected 'pixel_values' too"):
            main_nets[0]({"pixel_values": None})

    def test_a_tensor(self):
        main_nets, _ = from_huggingface(make("gpt2"), 2)
        with pytest.raises(ValueError, match=r"the inputs are a Tensor; expected a dict as the model takes it"):
            main_nets[0](torch.zeros(2, 3, dtype=torch.long))


class TestModelsThatCannotBeConverted:
    def test_unknown_architecture(self):
        config = transformers.T5Config(
            vocab_size=50, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, decoder_start_token_id=0
        )
        model = transformers.T5ForConditionalGeneration(config)
        with pytest.raises(ValueError, match=r"is a T5ForConditionalGeneration; expected one of .*GPT2LMHeadModel"):
            from_huggingface(model, 2)
        with pytest.raises(ValueError, match=r"hand over the blocks yourself: ib.partition\("):
            from_huggingface(model, 2)

    def test_a_model_without_its_head(self):
        with pytest.raises(ValueError, match="the model is a BertModel; expected one of"):
            from_huggingface(make("bert").bert, 2)

    def test_a_model_of_ones_own_with_the_same_name(self):
        kind = type("GPT2LMHeadModel", (nn.Module,), {})
        with pytest.raises(ValueError, match="the model is a GPT2LMHeadModel; expected one of"):
            from_huggingface(kind(), 2)

    def test_adapters_around_a_model(self):
        import peft

        model = peft.get_peft_model(make("llama"), peft.LoraConfig(target_modules=["q_proj"], r=2))
        with pytest.raises(ValueError, match=r"with adapters \(LoRA or other PEFT\).*merge_and_unload\(\)"):
            from_huggingface(model, 2)
        main_nets, _ = from_huggingface(model.merge_and_unload(), 2)
        assert len(main_nets) == 2

    def test_adapters_inside_a_model(self):
        import peft

        model = make("llama")
        model.add_adapter(peft.LoraConfig(target_modules=["q_proj"], r=2))
        with pytest.raises(ValueError, match="is a LlamaForCausalLM with adapters"):
            from_huggingface(model, 2)

    def test_another_structure_under_a_known_name(self):
        model = make("vit")
        del model.vit.layernorm
        with pytest.raises(ValueError, match=r"has no module 'vit.layernorm'; expected the structure"):
            from_huggingface(model, 2)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"tied_weights": "copy"}, "tied_weights is 'copy'; expected 'keep' or 'untie'"),
            ({"aux_nets": "mine"}, "aux_nets is 'mine'; expected 'copies', None, or a function"),
            ({"head_rank": 0}, "head_rank is 0; expected a whole number from 1 to 16"),
            ({"head_rank": 2, "aux_nets": None}, "head_rank is 2; expected None here"),
            ({"by": "size"}, "by is 'size'; expected one of"),
        ],
    )
    def test_options(self, options, message):
        with pytest.raises(ValueError, match=message):
            from_huggingface(make("gpt2"), 2, **options)

    def test_low_rank_without_a_vocabulary(self):
        with pytest.raises(ValueError, match="head_rank is 2; expected None here"):
            from_huggingface(make("bert"), 2, head_rank=2)


class TestLibrary:
    def test_missing(self, monkeypatch):
        model = make("gpt2")
        monkeypatch.setitem(sys.modules, "transformers", None)
        with pytest.raises(ValueError, match=r"need the transformers library .*pip install 'transformers>="):
            from_huggingface(model, 2)

    @pytest.mark.parametrize("version", ["4.57.6", "5.0.0"])
    def test_too_old(self, monkeypatch, version):
        model = make("gpt2")
        # Its module object is replaced in the course of imports, so that ours may be out of date.
        monkeypatch.setattr(sys.modules["transformers"], "__version__", version)
        with pytest.raises(ValueError, match=f"transformers is version {version}, .*expected 5.10 or newer"):
            from_huggingface(model, 2)

    @pytest.mark.parametrize("version", ["5.10.0.dev0", "6.0.0"])
    def test_new_enough(self, monkeypatch, version):
        monkeypatch.setattr(sys.modules["transformers"], "__version__", version)
        assert library.load().__version__ == version

    def test_every_supported_class_is_tested(self):
        assert {model for model, _, _ in KINDS.values()} == set(FAMILIES)
