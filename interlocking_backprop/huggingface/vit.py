"""ViT with a classifier on the class token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from interlocking_backprop.huggingface import library
from interlocking_backprop.huggingface.family import Family


class ViT(Family):
    embeddings = ("vit.embeddings",)
    layers = "vit.layers"
    head = ("vit.layernorm", "classifier")
    inputs = ("pixel_values", "interpolate_pos_encoding")
    passed_on = ()

    def embed(self, net: Any, inputs: dict[str, Any]) -> Tensor:
        images = inputs["pixel_values"].to(net.vit.embeddings.patch_embeddings.projection.weight.dtype)
        interpolate = inputs.get("interpolate_pos_encoding", False)
        hidden: Tensor = net.vit.embeddings(images, interpolate_pos_encoding=interpolate)
        return hidden

    def layer_arguments(
        self, net: Any, config: Any, hidden: Tensor, passed_on: dict[str, Any]
    ) -> Callable[[int], dict[str, Any]]:
        masking = library.load("transformers.masking_utils")
        mask = masking.create_bidirectional_mask(config=config, inputs_embeds=hidden, attention_mask=None)
        return lambda layer: {"attention_mask": mask}

    def logits(self, net: Any, hidden: Tensor) -> Tensor:
        logits: Tensor = net.classifier(net.vit.layernorm(hidden)[:, 0, :])
        return logits

    def sample(self, config: Any) -> dict[str, Tensor]:
        size = config.image_size
        height, width = size if isinstance(size, (list, tuple)) else (size, size)
        return {"pixel_values": torch.zeros(1, config.num_channels, height, width)}
