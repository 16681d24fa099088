"""What a loss is a mean over, which says how much each micro-batch counts in it.

Most losses are means over the samples. One with a method ``n_samples(target)`` says what else it counts. PyTorch's own
are recognised, as functions, as modules, and as a `functools.partial` of a function with further keywords: the mean of
`cross_entropy` and `nll_loss` is over the targets that are not ignored, each weighted by its class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from interlocking_backprop.engine.tree import Tree

Count = Callable[[Tree], "Tensor | float"]

_FUNCTIONS = frozenset(
    f for n, f in vars(F).items() if n.endswith(("_loss", "cross_entropy", "_with_logits", "kl_div"))
)
_OVER_TARGETS = (F.cross_entropy, F.nll_loss, nn.CrossEntropyLoss, nn.NLLLoss)


class Counting(NamedTuple):
    """What is known of a loss.

    Attributes:
        n_samples: of a target: how many of whatever the loss is a mean over are in it; None if samples count.
        is_known: whether that is certain, because the loss is PyTorch's own or says so itself.
    """

    n_samples: Count | None
    is_known: bool


def counting(function: Callable[..., Tensor]) -> Counting:
    """Finds out what a loss is a mean over.

    Raises:
        ValueError: if it is a loss of PyTorch's that is told to return something else than a mean.
    """
    inner: Any = function.func if isinstance(function, partial) else function
    said = getattr(function, "n_samples", None) or getattr(inner, "n_samples", None)
    if said is not None:
        return Counting(said, is_known=True)
    options = _torch_options(function)
    if options is None:
        return Counting(None, is_known=False)
    reduction = options.get("reduction", "mean")
    if reduction in ("sum", "none") or options.get("reduce") is False or options.get("size_average") is False:
        reduction = reduction if reduction != "mean" else "sum" if options.get("reduce") is not False else "none"
        raise ValueError(
            f"the loss {loss_name(function)} has reduction={reduction!r}; expected reduction='mean', for the losses of "
            "micro-batches are put together as means."
        )
    if not any(inner is known or type(inner) is known for known in _OVER_TARGETS):
        return Counting(None, is_known=True)
    return Counting(partial(_n_targets, options.get("ignore_index", -100), options.get("weight")), is_known=True)


def loss_name(function: object) -> str:
    """What a loss is called in messages."""
    inner: object = function.func if isinstance(function, partial) else function
    return str(getattr(inner, "__qualname__", type(inner).__name__)).replace("<locals>.", "")


def refuse_parameters(functions: Iterable[Callable[..., Tensor]], trained: Iterable[nn.Parameter]) -> None:
    """A loss with weights of its own is refused: nothing would train them.

    Args:
        functions: the losses.
        trained: the parameters of the components, which a loss may use too.

    Raises:
        ValueError: if a parameter of a loss wants a gradient and no component holds it.
    """
    held = set(trained)
    for function in functions:
        inner: Any = function.func if isinstance(function, partial) else function
        inner = getattr(inner, "__self__", inner)  # a method of a module
        names = (
            [n for n, p in inner.named_parameters() if p.requires_grad and p not in held] if _is_module(inner) else []
        )
        if names:
            raise ValueError(
                f"the loss {loss_name(function)} has the parameters {', '.join(map(repr, names))}, which nothing would "
                "train; put them into a head, whose output the loss gets, or freeze them (requires_grad_(False))."
            )


def _is_module(value: object) -> bool:
    return isinstance(value, nn.Module)


def _torch_options(function: Callable[..., Tensor]) -> Mapping[str, Any] | None:
    """The options of a loss of PyTorch's; None if it is another's."""
    if isinstance(function, nn.Module):
        is_own = type(function).forward.__module__ == "torch.nn.modules.loss"
        names = ("reduction", "ignore_index", "weight")
        return {n: getattr(function, n) for n in names if hasattr(function, n)} if is_own else None
    if isinstance(function, partial):
        return function.keywords if function.func in _FUNCTIONS and not function.args else None
    return {} if function in _FUNCTIONS else None


def _n_targets(ignore_index: int, weight: Tensor | None, target: Tensor) -> Tensor | float:
    """The targets that are not ignored, weighted by class; for probabilities of classes the samples."""
    if target.is_floating_point():
        return len(target)
    if weight is None:
        return (target != ignore_index).sum()
    target = target.to(weight.device)
    # A class that is not there is left to the loss to report.
    weights = weight.detach()[target.clamp(0, len(weight) - 1)]
    return weights.where(target != ignore_index, 0).sum()
