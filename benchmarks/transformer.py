"""What end-to-end training of a Transformer costs through the library, against a plain PyTorch loop over its blocks.

Both sides have the same weights, batch, loss and AdamW, in turn, round by round: once with the cross-entropy of logits,
once with the loss that makes logits a few positions at a time. The plain loop has one optimizer for all parameters, as
is usual; the library has one for each component.

Both sides run with the same allocator, by default with `keep_freed_memory`: what glibc gives back to the operating
system at the end of a step, and the next step has to fault in again, is chance, and larger than what is measured here.

    python benchmarks/transformer.py
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from pathlib import Path

import torch
from common import in_turn, report, summary
from torch import Tensor
from torch.nn import functional as F
from torch.optim import AdamW

import interlocking_backprop as ib
from interlocking_backprop.nets.transformer_builder import to_plain, transformer
from interlocking_backprop.text.token_loss import TokenLoss


def adamw(params):
    return AdamW(params, lr=1e-4, weight_decay=0.1)


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(logits.flatten(0, 1), target.flatten())


def against_plain_loop(
    name: str, loss_function: Callable, chunked: bool, args: argparse.Namespace
) -> dict[str, object]:
    torch.manual_seed(args.seed)
    main_nets, _ = transformer(
        args.vocabulary,
        width=args.width,
        depth=args.depth,
        n_heads=args.heads,
        context=args.context,
        blocks_per_component=args.components,
        chunked_loss=chunked,
    )
    ids = torch.randint(args.vocabulary, (args.batch_size, args.context + 1))
    x, target = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
    plain = to_plain(copy.deepcopy(main_nets))
    optimizer = adamw(plain.parameters())
    model = ib.build_e2e_model(main_nets, adamw, None, loss_function)

    def plain_step() -> None:
        optimizer.zero_grad()
        loss_function(plain(x), target).backward()
        optimizer.step()

    def library_step() -> None:
        model.training_step(x, target).result()

    times = in_turn({"plain": plain_step, "library": library_step}, args.rounds)
    ratios = [a / b for a, b in zip(times["library"], times["plain"], strict=True)]
    plain_ms, library_ms = (1e3 * summary(times[side])["median"] for side in ("plain", "library"))
    return {"loss": name, "plain ms": plain_ms, "library ms": library_ms, **summary(ratios)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--depth", type=int, default=8)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--context", type=int, default=128)
    parser.add_argument("--vocabulary", type=int, default=257)
    parser.add_argument("--components", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 leaves torch's default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--allocator", choices=("keep", "default"), default="keep", help="for both sides")
    parser.add_argument("--out", type=Path, help="JSON file")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.allocator == "keep":
        ib.keep_freed_memory()
    rows = [
        against_plain_loop("cross-entropy of logits", cross_entropy, False, args),
        against_plain_loop("chunked TokenLoss", TokenLoss(), True, args),
    ]
    settings = {name: value for name, value in vars(args).items() if name not in ("out", "threads")}
    report(
        "step time through the library / of a plain loop, e2e",
        rows,
        args.out,
        **settings,
        threads=torch.get_num_threads(),
    )


if __name__ == "__main__":
    main()
