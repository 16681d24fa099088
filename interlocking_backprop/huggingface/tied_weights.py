"""A language model's last projection may be the very weight of its embedding: one Parameter at both ends of the row."""

from __future__ import annotations

from typing import Any

from torch import nn


def is_tied(model: Any) -> bool:
    """Whether the model's output projection is its input embedding."""
    output = model.get_output_embeddings()
    return output is not None and output.weight is model.get_input_embeddings().weight


def untie(model: Any) -> None:
    """Gives the output projection a copy of the weight, and has the model's configuration say so.

    So `save_pretrained` keeps both weights, and `from_pretrained` does not tie them again.
    """
    output = model.get_output_embeddings()
    output.weight = nn.Parameter(output.weight.detach().clone(), requires_grad=output.weight.requires_grad)
    model.config.tie_word_embeddings = False
    model.all_tied_weights_keys = model.get_expanded_tied_weights_keys(all_submodels=True)
