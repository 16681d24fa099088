"""GPT-2: learned positions, added to the embedding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from interlocking_backprop.huggingface import library
from interlocking_backprop.huggingface.family import Family, token_sample


class GPT2(Family):
    embeddings = ("transformer.wte", "transformer.wpe", "transformer.drop")
    layers = "transformer.h"
    head = ("transformer.ln_f", "lm_head")
    projection = "lm_head"
    inputs = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
    passed_on = ("attention_mask", "position_ids")

    def embed(self, net: Any, inputs: dict[str, Any]) -> Tensor:
        ids, positions = inputs["input_ids"], inputs.get("position_ids")
        if positions is None:
            positions = torch.arange(ids.size(1), device=ids.device).unsqueeze(0)
        hidden = net.transformer.wte(ids) + net.transformer.wpe(positions)
        if "token_type_ids" in inputs:
            hidden = hidden + net.transformer.wte(inputs["token_type_ids"])
        result: Tensor = net.transformer.drop(hidden)
        return result

    def layer_arguments(
        self, net: Any, config: Any, hidden: Tensor, passed_on: dict[str, Any]
    ) -> Callable[[int], dict[str, Any]]:
        positions = passed_on.get("position_ids")
        mask = library.load("transformers.masking_utils").create_causal_mask(
            config=config,
            inputs_embeds=hidden,
            attention_mask=passed_on.get("attention_mask"),
            past_key_values=None,
            position_ids=positions,
        )
        return lambda layer: {"attention_mask": mask, "position_ids": positions}

    def logits(self, net: Any, hidden: Tensor) -> Tensor:
        result: Tensor = net.lm_head(net.transformer.ln_f(hidden))
        return result

    def sample(self, config: Any) -> dict[str, Tensor]:
        return token_sample(config)
