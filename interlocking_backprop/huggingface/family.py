"""What has to be known of an architecture to cut its models: where its parts are, and what runs between them.

The parts are the model's own modules, run in the order and with the masks of the model's own ``forward``. Components
take from one another the hidden states and, where the user gave them, the attention mask and the position ids. Each
component makes from these the masks and rotary embeddings that its layers need: they are quick to make, and larger than
what they are made of.

Legend: B batch, T tokens, C channels, V size of the vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor


class Family(ABC):
    """How one architecture is cut.

    The methods get ``net``: an object under which the modules that they need have the names that they have under the
    original model.

    Attributes:
        embeddings: names of the modules that turn inputs into hidden states.
        layers: name of the list of layers.
        head: names of the modules that turn hidden states into logits.
        copied: names of modules without parameters that every component needs; each gets a copy, so that components
            may be on different devices.
        projection: of language models, the name of the last linear layer.
        inputs: what the model takes; the first is indispensable.
        passed_on: those of the inputs that layers need.
    """

    embeddings: ClassVar[tuple[str, ...]]
    layers: ClassVar[str]
    head: ClassVar[tuple[str, ...]]
    copied: ClassVar[tuple[str, ...]] = ()
    projection: ClassVar[str | None] = None
    inputs: ClassVar[tuple[str, ...]]
    passed_on: ClassVar[tuple[str, ...]]

    def parts(self) -> tuple[str, ...]:
        """The names of all modules that components are made of."""
        return (*self.embeddings, *self.copied, self.layers, *self.head)

    @abstractmethod
    def embed(self, net: Any, inputs: dict[str, Any]) -> Tensor:
        """The hidden states (B, T, C) before the first layer."""

    @abstractmethod
    def layer_arguments(
        self, net: Any, config: Any, hidden: Tensor, passed_on: dict[str, Any]
    ) -> Callable[[int], dict[str, Any]]:
        """From the index of a layer to what it gets by keyword beside the hidden states."""

    @abstractmethod
    def logits(self, net: Any, hidden: Tensor) -> Tensor:
        """The network's output, from the hidden states after the last layer."""

    @abstractmethod
    def sample(self, config: Any) -> dict[str, Tensor]:
        """The inputs of one sample, for shapes and costs."""


def token_sample(config: Any, n_tokens: int = 128) -> dict[str, Tensor]:
    """Ids for a model of text, as long as it allows."""
    # Half of its positions, as some families begin to count above 0.
    return {"input_ids": torch.zeros(1, min(n_tokens, config.max_position_embeddings // 2), dtype=torch.int64)}
