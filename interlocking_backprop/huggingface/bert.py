"""BERT, RoBERTa and DistilBERT with a classifier on the first token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor
from torch.nn import functional as F

from interlocking_backprop.huggingface import library
from interlocking_backprop.huggingface.family import Family, token_sample


class Bert(Family):
    embeddings = ("bert.embeddings",)
    layers = "bert.encoder.layer"
    head: ClassVar[tuple[str, ...]] = ("bert.pooler", "dropout", "classifier")
    inputs: ClassVar[tuple[str, ...]] = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
    passed_on: ClassVar[tuple[str, ...]] = ("attention_mask", "position_ids")

    def embed(self, net: Any, inputs: dict[str, Any]) -> Tensor:
        hidden: Tensor = net.get_submodule(self.embeddings[0])(
            **{name: inputs.get(name) for name in self.inputs if name != "attention_mask"}
        )
        return hidden

    def layer_arguments(
        self, net: Any, config: Any, hidden: Tensor, passed_on: dict[str, Any]
    ) -> Callable[[int], dict[str, Any]]:
        masking = library.load("transformers.masking_utils")
        causal = getattr(config, "is_decoder", False)
        make = masking.create_causal_mask if causal else masking.create_bidirectional_mask
        mask = make(
            config=config,
            inputs_embeds=hidden,
            attention_mask=passed_on.get("attention_mask"),
            past_key_values=None,
        )
        return lambda layer: {"attention_mask": mask, "position_ids": passed_on.get("position_ids")}

    def logits(self, net: Any, hidden: Tensor) -> Tensor:
        logits: Tensor = net.classifier(net.dropout(net.bert.pooler(hidden)))
        return logits

    def sample(self, config: Any) -> dict[str, Tensor]:
        return token_sample(config)


class Roberta(Bert):
    embeddings = ("roberta.embeddings",)
    layers = "roberta.encoder.layer"
    head = ("classifier",)

    def logits(self, net: Any, hidden: Tensor) -> Tensor:
        logits: Tensor = net.classifier(hidden)
        return logits


class DistilBert(Bert):
    embeddings = ("distilbert.embeddings",)
    layers = "distilbert.transformer.layer"
    head = ("pre_classifier", "dropout", "classifier")
    inputs = ("input_ids", "attention_mask", "position_ids")
    passed_on = ("attention_mask",)

    def logits(self, net: Any, hidden: Tensor) -> Tensor:
        logits: Tensor = net.classifier(net.dropout(F.relu(net.pre_classifier(hidden[:, 0]))))
        return logits
