"""Llama and its like (Qwen2, Qwen3): rotary positions, made anew in each component, and layers that may be windowed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from interlocking_backprop.huggingface import library
from interlocking_backprop.huggingface.family import Family, token_sample


class Llama(Family):
    embeddings = ("model.embed_tokens",)
    layers = "model.layers"
    head = ("model.norm", "lm_head")
    copied = ("model.rotary_emb",)
    projection = "lm_head"
    inputs = ("input_ids", "attention_mask", "position_ids")
    passed_on = ("attention_mask", "position_ids")

    def embed(self, net: Any, inputs: dict[str, Any]) -> Tensor:
        hidden: Tensor = net.model.embed_tokens(inputs["input_ids"])
        return hidden

    def layer_arguments(
        self, net: Any, config: Any, hidden: Tensor, passed_on: dict[str, Any]
    ) -> Callable[[int], dict[str, Any]]:
        # Given positions may start anew within a row, where sequences are packed; those made here do not.
        given = passed_on.get("position_ids")
        positions = torch.arange(hidden.size(1), device=hidden.device).unsqueeze(0) if given is None else given
        masks = self._masks(config, hidden, passed_on.get("attention_mask"), given)
        common = {"position_ids": given, "position_embeddings": net.model.rotary_emb(hidden, positions)}
        return lambda layer: {"attention_mask": masks[self._attention(config, layer)], **common}

    def logits(self, net: Any, hidden: Tensor) -> Tensor:
        logits: Tensor = net.lm_head(net.model.norm(hidden))
        return logits

    def sample(self, config: Any) -> dict[str, Tensor]:
        return token_sample(config)

    def _attention(self, config: Any, layer: int) -> str:
        """The kind of attention of a layer."""
        return "full_attention"

    def _masks(self, config: Any, hidden: Tensor, mask: Tensor | None, positions: Tensor | None) -> dict[str, Any]:
        """The mask of each kind of attention that the model has."""
        masking = library.load("transformers.masking_utils")
        makers = {
            "full_attention": masking.create_causal_mask,
            "sliding_attention": masking.create_sliding_window_causal_mask,
        }
        return {
            kind: makers[kind](
                config=config,
                inputs_embeds=hidden,
                attention_mask=mask,
                past_key_values=None,
                position_ids=positions,
            )
            for kind in {self._attention(config, layer) for layer in range(config.num_hidden_layers)}
        }


class Qwen(Llama):
    """Qwen2 and Qwen3, whose configuration says which layers see a window only."""

    def _attention(self, config: Any, layer: int) -> str:
        kind: str = config.layer_types[layer]
        return kind
