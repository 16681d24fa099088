"""The settings of `same_bits.py`: small models, and what they go through in five steps.

Only public names of the package are used, so that packages that differ inside can be compared.
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import interlocking_backprop as ib
from interlocking_backprop import resnet_builder

WIDTH, VOCABULARY, CONTEXT = 6, 13, 8
SIZES = (11, 11, 8, 9, 11)  # of the batches: most are cut into uneven micro-batches

Facts = dict[str, Any]
Nets = Callable[[], Any]
Batches = Callable[[], Iterator[tuple[Any, Any]]]


def moved(name: str, module: str, older_module: str) -> Any:
    """A public name of a module, or of the module where older packages have it."""
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        return getattr(importlib.import_module(older_module), name)


TokenLoss = moved("TokenLoss", "interlocking_backprop", "interlocking_backprop.token_loss")
generate = moved("generate", "interlocking_backprop", "interlocking_backprop.generation")
transformer = moved(
    "transformer", "interlocking_backprop.nets.transformer_builder", "interlocking_backprop.transformer_builder"
)


def mlps(k: int, dropout: float = 0.2, batch_norm: bool = True, ties: Sequence[Sequence[int]] = ()) -> Any:
    """K components and K - 1 heads; the components of each tie have their first weight in common."""

    def main() -> nn.Module:
        middle = [nn.BatchNorm1d(WIDTH)] if batch_norm else []
        return nn.Sequential(
            nn.Linear(WIDTH, WIDTH), nn.Tanh(), *middle, nn.Dropout(dropout), nn.Linear(WIDTH, WIDTH), nn.Sigmoid()
        )

    def head() -> nn.Module:
        return nn.Sequential(nn.Linear(WIDTH, 9), nn.ReLU(), nn.Dropout(dropout), nn.Linear(9, WIDTH))

    main_nets = [main() for _ in range(k)]
    for first, *others in ties:
        for other in others:
            main_nets[other][0].weight = main_nets[first][0].weight  # type: ignore[index, union-attr]
    return main_nets, [head() for _ in range(k - 1)]


class Nested(nn.Module):
    """Takes and returns a dict with a tuple in it, some of it without a gradient; the ends take and return a tensor."""

    def __init__(self, begins: bool = False, ends: bool = False) -> None:
        super().__init__()
        self.begins, self.ends = begins, ends
        self.left, self.right = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Any) -> Any:
        if self.begins:
            x = {"both": (x, 0.5 * x), "mask": x > 0}
        left, right = x["both"]
        left, right = torch.tanh(self.left(left) + right), torch.sigmoid(self.right(right) * x["mask"])
        return left + right if self.ends else {"both": (left, right), "mask": x["mask"]}


def nested(k: int) -> Any:
    return [Nested(i == 0, i == k - 1) for i in range(k)], [Nested(ends=True) for _ in range(k - 1)]


def reconstruction(output: Tensor, target: Tensor, component_input: Tensor, network_input: Tensor) -> Tensor:
    return F.mse_loss(output, target) + F.mse_loss(output, component_input) + (output * network_input).mean()


class CountedLoss:
    """The mean over the samples whose first target is positive: micro-batches count by those that they have."""

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        counts = target[:, :1] > 0
        return ((output - target) ** 2 * counts).sum() / counts.sum().clamp(min=1)

    def n_samples(self, target: Tensor) -> Tensor:
        return (target[:, 0] > 0).sum()


def vectors(sizes: Sequence[int] = SIZES) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    for size in sizes:
        yield torch.randn(size, WIDTH, generator=generator), torch.randn(size, WIDTH, generator=generator)


def doubles() -> Iterator[tuple[Tensor, Tensor]]:
    return ((x.double(), target.double()) for x, target in vectors())


def images() -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(2)
    for size in SIZES:
        yield torch.randn(size, 1, 8, 8, generator=generator), torch.randint(10, (size,), generator=generator)


def tokens() -> Iterator[tuple[Tensor, Tensor]]:
    """Texts of different lengths; what is behind their ends does not count."""
    generator = torch.Generator().manual_seed(3)
    for size in SIZES:
        ids = torch.randint(VOCABULARY, (size, CONTEXT), generator=generator)
        ends = torch.randint(2, CONTEXT + 1, (size, 1), generator=generator)
        yield ids, ids.roll(-1, 1).where(torch.arange(CONTEXT) < ends, -100)


def masked_tokens() -> Iterator[tuple[dict[str, Tensor], Tensor]]:
    for ids, targets in tokens():
        yield {"input_ids": ids, "attention_mask": (targets != -100).long()}, ids.where(targets != -100, -100)


sgd = partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=1e-3, nesterov=True)
adamw = partial(torch.optim.AdamW, lr=1e-2, weight_decay=0.1)
steps = partial(torch.optim.lr_scheduler.StepLR, step_size=2, gamma=0.3)
plateau = partial(torch.optim.lr_scheduler.ReduceLROnPlateau, factor=0.3, patience=0)


def evaluate(model: Any, step: int, inputs: Any, targets: Any, facts: Facts) -> None:
    """Evaluates in the two modes, which in training mode moves the statistics of BatchNorm."""
    for mode in (False, True):
        model.train(mode)
        facts[f"outputs/{step} training={mode}"] = model(inputs)
        for i, value in enumerate(model.map_exits(F.mse_loss, inputs, targets)):
            facts[f"outputs/{step} training={mode} loss at exit {i}"] = value


def change_scheme(model: Any, step: int, inputs: Any, targets: Any, facts: Facts) -> None:
    k = len(model.components)
    model.set_scheme((ib.local(k), ib.nwise(k, 3, "sum"), ib.e2e(k))[step % 3])


def step_lr(model: Any, step: int, inputs: Any, targets: Any, facts: Facts) -> None:
    model.lr_scheduler_step(1.0 + step)


def write_text(model: Any, step: int, inputs: Any, targets: Any, facts: Facts) -> None:
    if step == 4:
        for exit in range(len(model.components)):
            text = generate(model, [1, 2, 3], 12, context=CONTEXT, exit=exit, temperature=1.5, top_k=9, seed=4)
            facts[f"outputs/text at exit {exit}"] = text if model.rank == 0 else None


def freeze(model: Any, step: int, inputs: Any, targets: Any, facts: Facts) -> None:
    """Freezes component 1 for two steps."""
    for parameter in model.components[1].main_net.parameters():
        parameter.requires_grad_(step not in (1, 2))


@dataclass(frozen=True)
class Setting:
    """How a model is built and what it goes through.

    Attributes:
        build: makes the model.
        batches: makes the batches of five steps.
        between: is called after every step, in training mode.
        is_reloaded: whether after two steps a model that has loaded the state of the first one takes its place.
        everywhere: whether the model is trained on a device per component and on several ranks too.
    """

    build: Callable[[], Any]
    batches: Batches = vectors
    between: Callable[[Any, int, Any, Any, Facts], None] = lambda *_: None
    is_reloaded: bool = False
    everywhere: bool = False


def setting(scheme: ib.Scheme, nets: Nets | None = None, loss: Any = F.mse_loss, **options: Any) -> Setting:
    """A setting; options are those of `Setting` and of `build_model`."""
    own = {name: options.pop(name) for name in Setting.__dataclass_fields__ if name in options}
    options = {"optimizer_constructor": sgd, "seed": 5, **options}

    def build() -> Any:
        main_nets, aux_nets = nets() if nets is not None else mlps(scheme.n_components)
        return ib.build_model(main_nets, aux_nets, scheme, loss_function=loss, **options)

    return Setting(build, **own)


def random_scheme(k: int, seed: int, rank: int | None = None, zero_rows: Sequence[int] = ()) -> ib.Scheme:
    """A random matrix, the upper triangle of one of a given rank."""
    random = np.random.default_rng(seed)
    matrix = random.normal(size=(k, k))
    if rank is not None:
        matrix = random.normal(size=(k, rank)) @ random.normal(size=(rank, k))
    matrix[list(zero_rows)] = 0
    return ib.Scheme(np.triu(matrix), name=f"random {seed}")


def in_float64() -> Any:
    return tuple([net.double() for net in nets] for nets in mlps(5))


def heads_only_where_needed() -> Any:
    main_nets, aux_nets = mlps(5)
    return main_nets, [None, *aux_nets[1:]]


def frozen_in_part() -> Any:
    main_nets, aux_nets = mlps(4)
    main_nets[0].requires_grad_(False)
    main_nets[2][-2].bias.requires_grad_(False)
    return main_nets, aux_nets


def huggingface(kind: str) -> Any:
    import transformers

    shape = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24}
    sizes = {"vocab_size": VOCABULARY, "max_position_embeddings": CONTEXT, "bos_token_id": 0, "eos_token_id": 0}
    if kind == "llama":
        plain = transformers.LlamaForCausalLM(transformers.LlamaConfig(**shape, **sizes))
    else:  # with its dropout, and its tied weights
        plain = transformers.GPT2LMHeadModel(transformers.GPT2Config(**shape, **sizes))
    return ib.from_huggingface(plain, 3)


def by_scheme() -> dict[str, Setting]:
    """Small perceptrons with BatchNorm and dropout, by schemes with names and by random matrices."""
    found = {}
    named = "e2e local pairwise 3wise pairwise-sum 3wise-sum 3wise-mean deep-supervision decay0.5 3wise-decay0.5"
    for n, name in enumerate(named.split()):
        for k, m in ((5, 1 + n % 4), (2 + n % 5, 4 - n % 4)):
            scheme = ib.parse_scheme(name, k)
            found[f"{name}, K = {k}, M = {m}"] = setting(scheme, n_microbatches=m, everywhere=k == 5)
    for k, m in itertools.product((1, 3, 4, 6), (1, 2, 3)):
        found[f"random, K = {k}, M = {m}"] = setting(random_scheme(k, 10 * k + m), n_microbatches=m, everywhere=k > 3)
    found["rows of low rank"] = setting(random_scheme(6, 1, rank=2), n_microbatches=2, everywhere=True)
    found["rows of zeros"] = setting(random_scheme(6, 2, zero_rows=[0, 3]), n_microbatches=3, everywhere=True)
    return found


def by_option() -> dict[str, Setting]:
    """The same perceptrons by what else can be asked for."""
    k4, k5 = ib.nwise(4, 3), ib.nwise(5, 3, "sum")
    all_places: dict[str, Any] = {"n_microbatches": 2, "everywhere": True}
    no_dropout = partial(mlps, 5, dropout=0.0)
    few = partial(vectors, (1, 5, 3, 2, 11))
    tied = {**all_places, "nets": partial(mlps, 5, ties=[(0, -1)])}
    tied_twice = {**all_places, "nets": partial(mlps, 5, ties=[(0, 2), (1, 3, -1)])}
    return {
        "float64": setting(k5, in_float64, batches=doubles, **all_places),
        "no BatchNorm": setting(k5, partial(mlps, 5, batch_norm=False), **all_places),
        "few samples": setting(k5, partial(mlps, 5, batch_norm=False), batches=few, n_microbatches=4, everywhere=True),
        "no dropout": setting(k5, no_dropout, n_microbatches=2),
        "another seed": setting(k5, seed=6),
        "torch's seed": setting(k5, seed=None),
        "no heads": setting(ib.e2e(4), lambda: (mlps(4)[0], [None] * 3), **all_places),
        "some heads": setting(ib.pairwise(5), heads_only_where_needed, **all_places),
        "frozen in part": setting(k4, frozen_in_part, **all_places),
        "frozen for some steps": setting(k4, between=freeze, n_microbatches=2),
        "AdamW": setting(k5, optimizer_constructor=adamw, **all_places),
        "plain SGD": setting(k5, optimizer_constructor=torch.optim.SGD, n_microbatches=2),
        "RMSprop": setting(k5, optimizer_constructor=torch.optim.RMSprop),
        "faster heads": setting(k4, aux_lr_factor=20.0, **all_places),
        "heads by AdamW": setting(k4, aux_optimizer_constructor=adamw, n_microbatches=2),
        "clipped": setting(k5, max_grad_norm=0.05, aux_lr_factor=3.0, **all_places),
        "StepLR": setting(k4, lr_scheduler_constructor=steps, between=step_lr, aux_lr_factor=3.0, **all_places),
        "ReduceLROnPlateau": setting(k4, lr_scheduler_constructor=plateau, between=step_lr, everywhere=True),
        "a scheme a step": setting(ib.pairwise(5), between=change_scheme, **all_places),
        "evaluated between steps": setting(ib.pairwise(5), no_dropout, between=evaluate, **all_places),
        "evaluated with dropout": setting(ib.pairwise(5), between=evaluate, n_microbatches=2),
        "saved and loaded": setting(
            k5, optimizer_constructor=adamw, lr_scheduler_constructor=steps, is_reloaded=True, **all_places
        ),
        "tied": setting(ib.e2e(5), **tied),
        "tied, sums, clipped": setting(k5, **tied, max_grad_norm=0.05),
        "tied twice, local": setting(ib.local(5), **tied_twice),
        "tied twice, random": setting(random_scheme(5, 4), **tied_twice),
        "untied": setting(k5, **tied_twice, tied_weights="untie"),
        "nested activations": setting(ib.nwise(4, 3, "mean"), partial(nested, 4), **all_places),
        "losses that see inputs": setting(k5, aux_loss_function=reconstruction, **all_places),
        "losses that count": setting(k5, loss=CountedLoss(), n_microbatches=4, everywhere=True),
    }


def by_net() -> dict[str, Setting]:
    """ResNets, Transformers and models of the `transformers` library."""

    def resnet(scheme: ib.Scheme, block: str, cut: str, m: int) -> Setting:
        nets = partial(resnet_builder.resnet, block, "4,2/8,1", "conv4_bn_gbpl_fc", cut, dataset="digits")
        return setting(scheme, nets, F.cross_entropy, batches=images, n_microbatches=m, everywhere=True)

    def own(scheme: ib.Scheme, loss: Any = TokenLoss(), m: int = 1, **options: Any) -> Setting:  # noqa: B008
        shape = {"width": 16, "depth": 3, "n_heads": 2, "context": CONTEXT, "dropout": 0.1, "blocks_per_component": 4}
        return setting(
            scheme,
            partial(transformer, VOCABULARY, **shape | options),
            loss,
            batches=tokens,
            optimizer_constructor=adamw,
            between=write_text,
            n_microbatches=m,
            everywhere=True,
        )

    causal = ib.huggingface.causal_lm_loss
    return {
        "ResNet of basic blocks": resnet(ib.pairwise(3), "basic", "2,1,rest", 2),
        "ResNet of bottlenecks": resnet(ib.nwise(4, 2, "sum"), "bottleneck", "1,1,1,rest", 1),
        "Transformer": own(ib.nwise(4, 3, "sum"), m=2),
        "Transformer, tied": own(ib.pairwise(4), m=3, tied=True),
        "Transformer, rotary": own(random_scheme(4, 3), m=4, positions="rotary", aux_rank=4),
        "Transformer, loss in chunks": own(ib.e2e(4), TokenLoss(chunk_tokens=10), chunked_loss=True),
        "GPT-2": setting(ib.pairwise(3), partial(huggingface, "gpt2"), causal, batches=masked_tokens),
        "Llama": setting(ib.local(3), partial(huggingface, "llama"), causal, batches=masked_tokens, n_microbatches=2),
    }


def settings() -> dict[str, Setting]:
    """All settings by name."""
    return by_scheme() | by_option() | by_net()
