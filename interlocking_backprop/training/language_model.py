"""A language model out of the folder of a run. The text that it was trained on need not be there."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch

from interlocking_backprop.build import build_model
from interlocking_backprop.model import InterlockingBackpropModel
from interlocking_backprop.scheme.coefficients import e2e
from interlocking_backprop.text.token_loss import TokenLoss
from interlocking_backprop.text.tokenizer import Tokenizer, tokenizer_from_json
from interlocking_backprop.training.checkpoints import Which
from interlocking_backprop.training.run_folder import RunFolder
from interlocking_backprop.training.tasks.task import needed_heads
from interlocking_backprop.training.tasks.text_task import TOKENIZER_FILE, transformer_of


class LanguageModel(NamedTuple):
    """What a run on text has left.

    Attributes:
        model: with the weights of a checkpoint, in evaluation mode, and the heads that the run had.
        tokenizer: turns text into the model's tokens and back.
        context: the most tokens that the model sees at once.
    """

    model: InterlockingBackpropModel
    tokenizer: Tokenizer
    context: int


def language_model(run: str | Path, checkpoint: Which = "best", device: torch.device | str = "cpu") -> LanguageModel:
    """Loads a Transformer that ``ibp train --model transformer`` has trained.

    Args:
        run: the folder of the run.
        checkpoint: "best" or "last".
        device: where the model goes.

    Raises:
        ValueError: if the folder holds no such run, or files of it are missing or cannot be read.
    """
    folder = RunFolder(Path(run))
    config = folder.config()
    network = config.network
    if network.model != "transformer":
        raise ValueError(f"{run} is the run of a {network.model}; expected one of `ibp train --model transformer`.")
    if not folder.checkpoints.has(checkpoint):
        raise ValueError(f"{run} holds no {checkpoint} checkpoint; the run has not come to its first one.")
    tokenizer = _tokenizer(folder.path / TOKENIZER_FILE)
    main_nets, heads = transformer_of(config, tokenizer.vocabulary_size)
    aux_nets = needed_heads(heads, config.phases.schemes, keep_all=network.heads == "all")
    # A model wants a scheme and optimizers; neither is used.
    model = build_model(main_nets, aux_nets, e2e(len(main_nets)), torch.optim.SGD, TokenLoss())
    model.to(device)
    folder.checkpoints.load(model, checkpoint, weights_only=True)
    return LanguageModel(model.eval(), tokenizer, config.transformer.context)


def _tokenizer(path: Path) -> Tokenizer:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ValueError(f"the tokenizer of the run cannot be read ({error}).") from None
    try:
        return tokenizer_from_json(text)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
