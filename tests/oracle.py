"""The oracle: gradients of the definition (docs/design.md, section 1), by autograd on the plain undetached graph."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from interlocking_backprop import Scheme

LossFunction = Callable[[Tensor, Tensor], Tensor]


def gradients(
    main_nets: Sequence[nn.Module],
    aux_nets: Sequence[nn.Module | None],
    scheme: Scheme,
    loss_function: LossFunction,
    batches: Sequence[tuple[Tensor, Tensor]],
    key: tuple[int, int] = (0, 0),
    aux_loss_function: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
) -> tuple[list[list[Tensor]], list[list[Tensor]]]:
    """Per component the gradients of the main and of the auxiliary parameters.

    Args:
        batches: the micro-batches; losses are weighted by their shares of what the loss function counts, or else of the
            samples.
        key: (seed, step), which key the random numbers.
        aux_loss_function: that of the heads, if it is another; it gets the network's output too, detached.
    """
    k = len(main_nets)
    main = [[torch.zeros_like(p) for p in net.parameters()] for net in main_nets]
    aux = [[torch.zeros_like(p) for p in net.parameters()] if net else [] for net in aux_nets] + [[]]
    count = getattr(loss_function, "n_samples", len)
    counts = [float(count(target)) for _, target in batches]
    for m, (x, target) in enumerate(batches):
        share = counts[m] / max(sum(counts), 1)
        losses, outputs = [], [x]
        for i, net in enumerate(main_nets):
            _seed(*key, "F", i, m)
            outputs.append(net(outputs[-1]))
        for i, y in enumerate(outputs[1:]):
            head = aux_nets[i] if i < k - 1 else None
            _seed(*key, "L", i, m)
            if head is not None and aux_loss_function is not None:
                losses.append(aux_loss_function(head(y), target, outputs[-1].detach()) * share)
            elif i == k - 1 or head is not None:
                losses.append(loss_function(y if head is None else head(y), target) * share)
            else:
                losses.append(None)
        for i, net in enumerate(main_nets):
            for j in range(i, k):
                if scheme.matrix[i, j]:
                    _accumulate(main[i], losses[j], list(net.parameters()), float(scheme.matrix[i, j]))
        for i, head in enumerate(aux_nets):
            if head is not None:
                _accumulate(aux[i], losses[i], list(head.parameters()), 1.0)
    return main, aux


def _accumulate(totals: list[Tensor], loss: Tensor, parameters: list[nn.Parameter], coefficient: float) -> None:
    grads = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    for total, grad in zip(totals, grads, strict=True):
        if grad is not None:
            total += coefficient * grad


def _seed(*key: int | str) -> None:
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    torch.manual_seed(int.from_bytes(digest, "little") & 0x7FFF_FFFF)
