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
        config.data_root,
        context=config.context,
        vocabulary=config.vocabulary,
        validation_fraction=config.share_held_out(0.05),
    )
    torch.manual_seed(config.seed)
    main_nets, heads = transformer_of(config, data.vocabulary_size)

    def metrics(part: Part) -> Metrics:
        split = data.validation if part == "validation" else data.test
        return language_metrics(split.bytes_per_token)

    return Task(
        main_nets=main_nets,
        aux_nets=needed_heads(heads, schemes, keep_all=config.heads == "all"),
        loss_function=TokenLoss(),
        train=data.train,
        validation=data.validation,
        test=data.test,
        metrics=metrics,
        derived=lambda means: {"perplexity": perplexity(means["loss"])},
        score="bits_per_byte",
        maximize=False,
        files={TOKENIZER_FILE: data.tokenizer.to_json()},
    )


def transformer_of(config: TrainConfig, vocabulary_size: int) -> tuple[list[nn.Module], list[nn.Module]]:
    """The Transformer that a configuration describes: main nets, and a head for each but the last."""
    return transformer(
        vocabulary_size,
        width=config.width,
        depth=config.depth,
        n_heads=config.attention_heads,
        context=config.context,
        dropout=config.dropout,
        positions=config.positions,
        blocks_per_component=(
            config.components if config.blocks_per_component == "auto" else config.blocks_per_component
        ),
        aux_rank=config.aux_rank or None,
        chunked_loss=config.chunked_loss,
        tied=config.tied,
    )
