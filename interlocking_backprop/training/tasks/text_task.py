"""Language modelling with Transformers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from interlocking_backprop.nets.transformer_builder import transformer
from interlocking_backprop.scheme.coefficients import Scheme
from interlocking_backprop.text import language_metrics, load_text, perplexity
from interlocking_backprop.text.token_loss import TokenLoss
from interlocking_backprop.training.config import TrainConfig
from interlocking_backprop.training.tasks.task import Metrics, Part, Task, needed_heads

TOKENIZER_FILE = "tokenizer.json"


def text_task(config: TrainConfig, schemes: Sequence[Scheme]) -> Task:
    """Loads text and builds a Transformer; weights follow from the configuration's seed.

    Raises:
        ValueError: if data or nets cannot be had as asked for.
    """
    data = load_text(
        config.data_name,
        config.execution.data_root,
        context=config.transformer.context,
        vocabulary=config.transformer.vocabulary,
        validation_fraction=config.dataset.validation_fraction or 0.05,
    )
    torch.manual_seed(config.seed)
    main_nets, heads = transformer_of(config, data.vocabulary_size)

    def metrics(part: Part) -> Metrics:
        split = data.validation if part == "validation" else data.test
        return language_metrics(split.bytes_per_token)

    return Task(
        main_nets=main_nets,
        aux_nets=needed_heads(heads, schemes, keep_all=config.network.heads == "all"),
        loss_function=TokenLoss(),
        train=data.train,
        validation=data.validation,
        test=data.test,
        metrics=metrics,
        derived=lambda means: {"perplexity": perplexity(means["loss"])},
        score="bits_per_byte",
        maximize=False,
        sample=torch.zeros(1, data.context, dtype=torch.int64, device="meta"),
        files={TOKENIZER_FILE: data.tokenizer.to_json()},
    )


def transformer_of(config: TrainConfig, vocabulary_size: int) -> tuple[list[nn.Module], list[nn.Module]]:
    """The Transformer that a configuration describes: main nets, and a head for each but the last."""
    shape = config.transformer
    return transformer(
        vocabulary_size,
        width=shape.width,
        depth=shape.depth,
        n_heads=shape.attention_heads,
        context=shape.context,
        dropout=shape.dropout,
        positions=shape.positions,
        blocks_per_component=config.blocks,
        aux_rank=shape.aux_rank or None,
        chunked_loss=shape.chunked_loss,
        tied=shape.tied,
    )
