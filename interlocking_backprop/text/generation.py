"""Text out of a language model: one token after another, from the network or from any exit before it.

Each token takes a forward pass over all that is in the context; nothing is kept between them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from interlocking_backprop.common.checks import check_whole, is_whole
from interlocking_backprop.model import InterlockingBackpropModel

PromptIds = Tensor | Sequence[int]


def generate(
    model: InterlockingBackpropModel,
    prompt_ids: PromptIds,
    n_new_tokens: int,
    *,
    context: int,
    exit: int | None = None,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
) -> Tensor:
    """Goes on with a text.

    Args:
        model: its components in a row take token ids (B, T) and return logits (B, T, V). On several ranks all call
            this, with the same arguments, and all get the text.
        prompt_ids: one text, or as many as there are rows, which are then of one length.
        n_new_tokens: how many to add.
        context: how many tokens the network sees at most; of a longer text it sees the end.
        exit: from which component's head, 0 to K - 1; None is the last one, the network itself.
        temperature: logits are divided by it. 0 takes the most likely token, always.
        top_k: draws from so many of the most likely tokens; 0 from all.
        top_p: draws from the most likely tokens that together have this probability.
        seed: of the random numbers. They are drawn on the CPU, the same for every device.

    Returns:
        The prompt and what follows, int64, of as many dimensions as the prompt, on the CPU.

    Raises:
        ValueError: if an argument does not fit.
    """
    prompt = _checked_prompt(prompt_ids)
    new = generate_stream(
        model,
        prompt,
        context=context,
        exit=exit,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
    )
    check_whole("n_new_tokens", n_new_tokens, 0)
    tokens = [token[..., None] for token in itertools.islice(new, n_new_tokens)]
    return torch.cat([prompt, *tokens], dim=-1)


def generate_stream(
    model: InterlockingBackpropModel,
    prompt_ids: PromptIds,
    *,
    context: int,
    exit: int | None = None,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
) -> Iterator[Tensor]:
    """Goes on with a text without end, token by token; the arguments are those of `generate`.

    Between tokens the model is in the mode that it was in before. No argument waits to be checked until the first
    token is asked for.

    Returns:
        An iterator of token ids, int64: without dimensions, or (B,) if the prompt has rows.
    """
    prompt = _checked_prompt(prompt_ids)
    check_whole("context", context)
    sampler = Sampler(temperature, top_k, top_p)
    return _tokens(model, prompt, _checked_exit(model, exit), context, sampler, seed)


@dataclass(frozen=True)
class Sampler:
    """How the next token is chosen; see `generate`.

    Raises:
        ValueError: if a number is out of its range.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise ValueError(
                f"temperature is {self.temperature!r}; expected a number of at least 0 (0 takes the most likely token)."
            )
        if not is_whole(self.top_k, 0):
            raise ValueError(f"top_k is {self.top_k!r}; expected a number of tokens, or 0 for all.")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p!r}; expected a probability above 0, at most 1 (1 leaves none out).")

    def __call__(self, logits: Tensor, generator: torch.Generator) -> Tensor:
        """Draws a token for each row of logits, (B, V) on the CPU."""
        if self.temperature == 0:
            return logits.argmax(dim=-1)
        logits = logits.double() / self.temperature
        if 0 < self.top_k < logits.size(-1):
            least = logits.topk(self.top_k).values[:, -1:]
            logits = logits.masked_fill(logits < least, -math.inf)
        probabilities = logits.softmax(dim=-1)
        if self.top_p < 1:
            ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
            # A token stays if those before it fall short of top_p; so the most likely one always does.
            left_out = ordered.cumsum(dim=-1) - ordered >= self.top_p
            probabilities = probabilities.scatter(-1, order, ordered.masked_fill(left_out, 0.0))
        return torch.multinomial(probabilities, 1, generator=generator).squeeze(-1)


def _tokens(
    model: InterlockingBackpropModel, prompt: Tensor, last: int, context: int, sampler: Sampler, seed: int
) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids = prompt.reshape(-1, prompt.size(-1))[:, -context:]
    while True:
        token = sampler(_next_logits(model, ids, last), generator)
        ids = torch.cat([ids, token[:, None]], dim=1)[:, -context:]
        yield token if prompt.dim() == 2 else token[0]


@torch.no_grad()
def _next_logits(model: InterlockingBackpropModel, ids: Tensor, exit: int) -> Tensor:
    """The logits behind the last token, (B, V), at an exit; on the CPU, and on all ranks the same."""
    with _evaluating(model):
        here = model.map_exits(lambda logits, _: logits[:, -1].cpu(), ids, exits=[exit])[exit]
        found: Tensor = next(logits for logits in model.gather(here) if logits is not None)
        return found


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode meanwhile; every module then gets its own mode back."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _checked_prompt(prompt_ids: PromptIds) -> Tensor:
    prompt = torch.as_tensor(prompt_ids)
    if prompt.dim() not in (1, 2) or prompt.numel() == 0:
        raise ValueError(
            f"the prompt has shape {tuple(prompt.shape)}; expected token ids, at least one of them: (T,), or (B, T) "
            "for several texts. To begin with nothing, give the separator of documents."
        )
    if prompt.is_floating_point() or prompt.is_complex() or prompt.dtype == torch.bool:
        raise ValueError(f"the prompt has dtype {prompt.dtype}; expected whole numbers, the ids of tokens.")
    return prompt.detach().to("cpu", torch.int64)


def _checked_exit(model: InterlockingBackpropModel, exit: int | None) -> int:
    k = len(model.components)
    if exit is None:
        return k - 1
    if not is_whole(exit, 0, k - 1):
        raise ValueError(f"exit is {exit!r}; expected a component from 0 to {k - 1}, or None for the network's own.")
    if exit < k - 1 and model.components[exit].aux_net is None:
        exits = [i for i, component in enumerate(model.components) if component.aux_net is not None] + [k - 1]
        raise ValueError(
            f"exit is {exit}, and component {exit} has no head; expected one of {', '.join(map(str, exits))}. Train "
            "with a head at every exit to have them all."
        )
    return exit
