"""Language modelling with Transformers."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from interlocking_backprop.data.text import language_metrics, load_text, perplexity
from interlocking_backprop.scheme import Scheme
from interlocking_backprop.token_loss import TokenLoss
from interlocking_backprop.trained import TOKENIZER_FILE, transformer_of
from interlocking_backprop.training.config import TrainConfig
from interlocking_backprop.training.tasks.task import Metrics, Part, Task, needed_heads


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
