"""How even components come out that were cut by measured time.

Two rows of blocks, a GPT of 24 blocks and a ResNet-50, are cut into K components. The components are then measured
again, all in turn, round by round. Balance is the time of the slowest, divided by the mean: of the fastest rounds,
which other processes disturb least, of the medians, and of each round by itself, which has all the noise in it.

Images have ImageNet's size because at small ones the last three blocks, which have most of the weights and few pixels,
take so much longer than the others that no cut between blocks is even.

    python benchmarks/partition_balance.py
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from common import report
from torch import Tensor, nn

import interlocking_backprop as ib
from interlocking_backprop import resnet_builder, transformer_builder
from interlocking_backprop.nets.block_costs import row_times
from interlocking_backprop.nets.partition import partition


def gpt(args: argparse.Namespace) -> tuple[list[nn.Module], Tensor]:
    (net,), _ = transformer_builder.transformer(
        args.vocabulary,
        width=args.width,
        depth=24,
        n_heads=args.width // 32,
        context=args.context,
        blocks_per_component=1,
    )
    return list(net), torch.randint(0, args.vocabulary, (args.sequences, args.context))


def resnet50(args: argparse.Namespace) -> tuple[list[nn.Module], Tensor]:
    (net,), _ = resnet_builder.resnet("bottleneck", dataset="imagenet", blocks_per_component=1)
    return list(net), torch.randn(args.images, 3, args.size, args.size)


def measured(name: str, blocks: list[nn.Module], sample: Tensor, args: argparse.Namespace) -> dict[str, Any]:
    parts = partition(blocks, args.components, sample)
    rounds = row_times(parts, sample, args.rounds)
    columns = list(zip(*rounds, strict=True))
    fastest, medians = [min(column) for column in columns], [statistics.median(column) for column in columns]
    ratios = [balance(row) for row in rounds]
    return {
        "blocks": name,
        "sizes": " ".join(map(str, parts.sizes)),
        "ms each": " ".join(f"{1e3 * t:.0f}" for t in fastest),
        "when cut": parts.balance,
        "again, fastest": balance(fastest),
        "median": balance(medians),
        "by round": f"{statistics.mean(ratios):.3f} ± {statistics.stdev(ratios):.3f} (n = {len(ratios)})",
    }


def balance(times: Sequence[float]) -> float:
    return max(times) / statistics.fmean(times)


def main(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    ib.keep_freed_memory()
    torch.manual_seed(args.seed)
    rows = [measured("GPT, 24 blocks", *gpt(args), args), measured("ResNet-50", *resnet50(args), args)]
    settings = {name: value for name, value in vars(args).items() if name != "out"}
    report(f"Slowest / mean of {args.components} components cut by time", rows, args.out, **settings)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--components", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=8, help="how often each component is measured again")
    parser.add_argument("--width", type=int, default=128, help="of the GPT")
    parser.add_argument("--context", type=int, default=128)
    parser.add_argument("--sequences", type=int, default=4)
    parser.add_argument("--vocabulary", type=int, default=512)
    parser.add_argument("--images", type=int, default=4, help="in the ResNet's batch")
    parser.add_argument("--size", type=int, default=224, help="side of the images")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=None, help="JSON file for the figures")
    main(parser.parse_args())
