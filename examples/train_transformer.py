"""How to train a Transformer language model with various schemes, on one device or a process per component.

    python examples/train_transformer.py --mode 3wise-sum
    torchrun --nproc-per-node 4 examples/train_transformer.py --mode 3wise-sum

The text is the source of Python's standard library, byte by byte, unless you give another. AdamW with warm-up and
cosine decay; the auxiliary heads learn faster than the rest, as Adam would starve them otherwise.
"""

from __future__ import annotations

import itertools
import math
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Iterator

import torch
import torch.distributed as dist
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

import interlocking_backprop as ib
from interlocking_backprop.data import batches
from interlocking_backprop.nets.transformer_builder import describe, transformer
from interlocking_backprop.text import TextData, language_metrics, load_text
from interlocking_backprop.text.generation import generate
from interlocking_backprop.text.token_loss import TokenLoss
from interlocking_backprop.training.evaluation import evaluate


def main(args: Namespace) -> None:
    if args.threads:
        torch.set_num_threads(args.threads)
    scheme = ib.parse_scheme(args.mode, args.components)
    text = "stdlib" if args.text is None else f"text:{args.text}"
    data = load_text(text, args.data_root, context=args.context, vocabulary=args.vocabulary)

    torch.manual_seed(args.seed)
    main_nets, aux_nets = transformer(
        data.vocabulary_size,
        width=args.width,
        depth=args.depth,
        n_heads=args.heads,
        context=args.context,
        dropout=args.dropout,
        blocks_per_component=args.components,
    )
    description = describe(main_nets)  # before other processes take their parts

    def optimizer_constructor(params: Iterable[torch.nn.Parameter]) -> Optimizer:
        params = list(params)
        decayed = [p for p in params if p.dim() >= 2]  # biases and normalisation weights are not
        groups = [{"params": decayed}, {"params": [p for p in params if p.dim() < 2], "weight_decay": 0.0}]
        return AdamW(groups, lr=args.lr, betas=(0.9, 0.95), weight_decay=0.1)

    def lr_scheduler_constructor(optimizer: Optimizer) -> LambdaLR:
        n_warmup = max(args.steps // 20, 1)

        def factor(step: int) -> float:
            return min((step + 1) / n_warmup, (1 + math.cos(math.pi * step / args.steps)) / 2)

        return LambdaLR(optimizer, factor)

    model = ib.build_model(
        main_nets,
        aux_nets,
        scheme,
        optimizer_constructor,
        TokenLoss(),
        lr_scheduler_constructor,
        n_microbatches=args.microbatches,
        aux_lr_factor=args.aux_lr_factor,
        max_grad_norm=1.0,
        seed=args.seed,
    )
    if dist.is_torchelastic_launched():
        model.enable_model_parallel()  # this process keeps its components
    else:
        model.to("cuda" if torch.cuda.is_available() else "cpu")

    def say(what: str) -> None:
        if model.rank == 0:
            print(what, flush=True)

    def report(step: int) -> None:
        of_exits = " ".join(f"{bits:.3f}" for bits in bits_per_byte(model, data, args))
        say(f"Step {step}: validation bits per byte of every exit = {of_exits}")

    say(description)
    report(0)
    for step, (inputs, targets) in enumerate(training_batches(model, data, args), start=1):
        model.train()
        model.training_step(inputs, targets)
        model.lr_scheduler_step()
        if step % args.report_every == 0 or step == args.steps:
            report(step)

    tokens = generate(
        model,
        data.tokenizer.encode(args.prompt) or [data.tokenizer.separator],
        args.tokens,
        context=args.context,
        temperature=0.8,
        top_k=50,
        seed=args.seed,
    )
    say(f"\n{data.tokenizer.decode(tokens.tolist())}")
    model.shutdown()


def training_batches(
    model: ib.InterlockingBackpropModel, data: TextData, args: Namespace
) -> Iterator[tuple[torch.Tensor | None, torch.Tensor | None]]:
    """As many batches as there are steps, epoch after epoch. Only the first process reads them."""
    if model.rank > 0:
        return itertools.repeat((None, None), args.steps)
    epochs = (batches(data.train, args.batch_size, seed=args.seed, epoch=e, shuffle=True) for e in itertools.count())
    return itertools.islice(itertools.chain.from_iterable(epochs), args.steps)


def bits_per_byte(model: ib.InterlockingBackpropModel, data: TextData, args: Namespace) -> list[float]:
    """Of every exit, on some of the text that is held out."""
    some = min(math.ceil(len(data.validation) / args.batch_size), args.validation_batches)
    held_out = itertools.islice(batches(data.validation, args.batch_size), some)
    pairs = held_out if model.rank == 0 else itertools.repeat((None, None), some)
    scores = evaluate(model, pairs, language_metrics(data.validation.bytes_per_token))
    return [exit["bits_per_byte"] for exit in scores if exit is not None]


if __name__ == "__main__":
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mode", required=True, help="which loss trains which component: e2e, local, 3wise-sum, …")
    parser.add_argument("--components", type=int, default=4, help="into how many components the network is cut")
    parser.add_argument("--microbatches", type=int, default=2, help="parts of a batch, which processes work on at once")
    parser.add_argument("--text", default=None, help="file or folder to train on; by default the standard library")
    parser.add_argument("--data_root", default="data", help="folder for the tokens")
    parser.add_argument("--vocabulary", default="bytes", help="bytes, or bpe:N")
    parser.add_argument("--width", type=int, default=96)
    parser.add_argument("--depth", type=int, default=8)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--context", type=int, default=128)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--aux_lr_factor", type=float, default=30.0, help="the heads' learning rate, in units of --lr")
    parser.add_argument("--report_every", type=int, default=100, help="steps between two reports")
    parser.add_argument("--validation_batches", type=int, default=20, help="of the text that is held out")
    parser.add_argument("--prompt", default="def ", help="what the sample at the end begins with")
    parser.add_argument("--tokens", type=int, default=200, help="of the sample")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0, help="of PyTorch; 0 leaves its default")
    try:
        main(parser.parse_args())
    except ValueError as error:
        sys.exit(f"train_transformer.py: error: {error}")
