"""What the engine costs on one device.

1. e2e through the library against a plain PyTorch loop over the same ResNet.
2. Each scheme against what its passes cost: the sum of its actions, each measured with plain autograd calls.

Both sides run with the same allocator, by default with `keep_freed_memory`: what glibc gives back to the operating
system at the end of a step, and the next step has to fault in again, is chance, and larger than what is measured here.

    python benchmarks/single_device.py
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import torch
from common import in_turn, report, summary
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD

import interlocking_backprop as ib
from interlocking_backprop import resnet_builder
from interlocking_backprop.planning.measured_costs import measure_costs

SCHEMES = ("e2e", "local", "pairwise", "3wise", "pairwise-sum", "3wise-sum", "deep-supervision")


def sgd(params):
    return SGD(params, lr=0.01, momentum=0.9, weight_decay=5e-4, nesterov=True)


def nets(args: argparse.Namespace) -> tuple[list[nn.Module], list[nn.Module]]:
    torch.manual_seed(0)
    return resnet_builder.resnet(
        "basic", args.architecture, "conv32_bn_gbpl_fc", args.components, "cifar10", image_size=args.size
    )


def model_of(args: argparse.Namespace, scheme: str) -> ib.InterlockingBackpropModel:
    main_nets, heads = nets(args)
    parsed = ib.parse_scheme(scheme, args.components)
    used = parsed.matrix.any(axis=0)
    needed = [head if used[j] else None for j, head in enumerate(heads)]
    return ib.build_model(main_nets, needed, parsed, sgd, F.cross_entropy)


def against_plain_loop(args: argparse.Namespace, x: torch.Tensor, target: torch.Tensor) -> dict[str, object]:
    main_nets, _ = nets(args)
    plain = nn.Sequential(*copy.deepcopy(main_nets))
    optimizer = sgd(plain.parameters())
    model = ib.build_e2e_model(main_nets, sgd, None, F.cross_entropy)

    def plain_step() -> None:
        optimizer.zero_grad()
        loss = F.cross_entropy(plain(x), target)
        loss.backward()
        optimizer.step()

    times = in_turn({"plain": plain_step, "library": lambda: model.training_step(x, target)}, args.rounds)
    ratios = [a / b for a, b in zip(times["library"], times["plain"], strict=True)]
    plain_ms, library_ms = (1e3 * summary(times[side])["median"] for side in ("plain", "library"))
    return {"scheme": "e2e", "against": "plain loop", "expected ms": plain_ms, "ms": library_ms, **summary(ratios)}


def against_passes(args: argparse.Namespace, scheme: str, x: torch.Tensor, target: torch.Tensor) -> dict[str, object]:
    model = model_of(args, scheme)
    actions = model.schedule.actions[0]
    ratios, expected_ms, step_ms = [], [], []
    for _ in range(args.rounds // 4):
        costs = measure_costs(list(model.components), list(model.losses), x, target, repeats=3)
        steps = in_turn({"step": lambda: model.training_step(x, target)}, 4, warmup=1)["step"]
        expected = sum(costs.duration(action) for action in actions)
        ratios.append(summary(steps)["median"] / expected)
        expected_ms.append(1e3 * expected)
        step_ms.append(1e3 * summary(steps)["median"])
    return {
        "scheme": scheme,
        "against": "its passes",
        "expected ms": summary(expected_ms)["median"],
        "ms": summary(step_ms)["median"],
        **summary(ratios),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architecture", default="16,2/32,2/64,2")
    parser.add_argument("--components", type=int, default=4)
    parser.add_argument("--size", type=int, default=32, help="height and width of the images")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 leaves torch's default")
    parser.add_argument("--schemes", default=",".join(SCHEMES))
    parser.add_argument("--out", type=Path, help="JSON file")
    parser.add_argument("--allocator", choices=("keep", "default"), default="keep", help="for both sides")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.allocator == "keep":
        ib.keep_freed_memory()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(args.batch_size, 3, args.size, args.size, generator=generator)
    target = torch.randint(0, 10, (args.batch_size,), generator=generator)
    rows = [against_plain_loop(args, x, target)]
    rows += [against_passes(args, scheme, x, target) for scheme in args.schemes.split(",")]
    settings = {"architecture": args.architecture, "K": args.components, "batch": args.batch_size}
    report(
        "step time through the library / expected",
        rows,
        args.out,
        **settings,
        threads=torch.get_num_threads(),
        allocator=args.allocator,
    )


if __name__ == "__main__":
    main()
