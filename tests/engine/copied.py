"""Models with heads that are copies, for their tests."""

from __future__ import annotations

import torch
from torch.nn import functional as F

import interlocking_backprop as ib
from tests.small_models import batch
from tests.small_nets import mlp_components

K = 4
SOURCES = {
    "readout": lambda main_nets, aux_nets, i: main_nets[-1][-2],
    "next main net": lambda main_nets, aux_nets, i: main_nets[i + 1],
    "another head": lambda main_nets, aux_nets, i: aux_nets[-1],
}


def sgd(params):
    return torch.optim.SGD(params, lr=0.1, momentum=0.9, weight_decay=1e-2)


def nets(k: int, source: str, copied=(0,), seed: int = 0, dropout: float = 0.0, **when):
    """Heads of some components are copies, the others trained."""
    main_nets, aux_nets = mlp_components(k, batch_norm=True, dropout=dropout, seed=seed)
    for i in copied:
        aux_nets[i] = ib.HeadCopy(SOURCES[source](main_nets, aux_nets, i), **when)
    return main_nets, aux_nets


def model_of(source="readout", scheme=None, copied=(0,), when=None, m=1, dropout=0.0, **options):
    scheme = scheme or ib.local(K)
    main_nets, aux_nets = nets(scheme.n_components, source, copied, dropout=dropout, **(when or {"every": 2}))
    return ib.build_model(main_nets, aux_nets, scheme, sgd, F.mse_loss, n_microbatches=m, **{"seed": 0, **options})


def trained(model, rank=0, steps=range(5)) -> dict[str, torch.Tensor]:
    for step in steps:
        model.training_step(*(batch(7, seed=step) if rank == 0 else (None, None)))
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(found, expected) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(value, found[name]) for name, value in expected.items())
