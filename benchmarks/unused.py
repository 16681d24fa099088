"""What on_gradients, constructors that ask for names, and losses per component cost: unused, and in use.

Kernels are tiny, so a step is nearly all overhead. Two questions:

1. Unused: the same model, with none of the extras, by this code and by a commit from before they were there. Each side
   is a process of its own, and they take turns, so that a machine that drifts slows both alike.
2. In use: one process; a model with an extra against one without, step by step in turn.

    python benchmarks/unused.py --base bc339a0
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent

# What a side of the first question runs: whenever a line comes in it takes so many steps, and says how long they took.
SIDE = """
import sys, time
import torch
from torch import nn
from torch.nn import functional as F
import interlocking_backprop as ib

scheme, k, m, steps = sys.argv[1], *map(int, sys.argv[2:])
torch.set_num_threads(1)
torch.manual_seed(0)
nets, heads = [[nn.Linear(4, 4) for _ in range(n)] for n in (k, k - 1)]
sgd = lambda parameters: torch.optim.SGD(parameters, lr=0.01)
model = ib.build_model(nets, heads, ib.parse_scheme(scheme, k), sgd, F.mse_loss, n_microbatches=m)
x = torch.randn(8, 4)
for line in sys.stdin:
    begin = time.thread_time()
    for _ in range(steps):
        model.training_step(x, x)
    print(time.thread_time() - begin, flush=True)
"""


@contextmanager
def side_of(code: Path, *arguments: object) -> Iterator[Callable[[], float]]:
    """A process with the package in a folder; what is returned has it take some steps, and gives their CPU time."""
    environment = {**os.environ, "PYTHONPATH": str(code), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SIDE, *map(str, arguments)]
    with subprocess.Popen(command, env=environment, stdin=-1, stdout=-1, text=True, bufsize=1) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def seconds() -> float:
            process.stdin.write("\n")
            return float(process.stdout.readline())

        yield seconds
        process.stdin.close()


def ratios_of(sides: tuple[Callable[[], float], Callable[[], float]], rounds: int) -> tuple[list[float], float]:
    """The first side over the second, round by round, and the median of the second."""
    ratios, others = [], []
    for n in range(rounds + 3):
        # Who goes first alternates: the second finds the machine as the first has left it.
        first, second = (side() for side in (sides if n % 2 else sides[::-1]))
        own, other = (first, second) if n % 2 else (second, first)
        if n >= 3:
            ratios.append(own / other)
            others.append(other)
    return ratios, statistics.median(others)


def row_of(what: str, scheme: str, m: int, ratios: list[float], seconds: float) -> dict[str, Any]:
    return {
        "what": what,
        "scheme": scheme,
        "M": m,
        "µs a step without": 1e6 * seconds,
        "ratio": statistics.mean(ratios),
        "std": statistics.stdev(ratios),
        "median": statistics.median(ratios),
        "n": len(ratios),
    }


def unused(base: Path, scheme: str, m: int, args: argparse.Namespace) -> list[dict[str, Any]]:
    """This code against the base, and, as the error of the method, the base against itself."""
    settings = (scheme, args.components, m, args.steps)
    rows = []
    for what, code in (("none, this code / base", ROOT), ("none, base / base", base)):
        with ExitStack() as stack:
            sides = (stack.enter_context(side_of(code, *settings)), stack.enter_context(side_of(base, *settings)))
            ratios, seconds = ratios_of(sides, args.rounds)
        rows.append(row_of(what, scheme, m, ratios, seconds / args.steps))
    return rows


def in_use(scheme: str, m: int, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A model with an extra against one without."""
    import time

    import torch
    from torch import nn
    from torch.nn import functional as F

    import interlocking_backprop as ib

    torch.set_num_threads(1)
    k = args.components
    x = torch.randn(8, 4)

    def sgd(parameters):
        return torch.optim.SGD(parameters, lr=0.01)

    def by_name(named_parameters, component):
        return torch.optim.SGD([p for _, p in named_parameters], lr=0.01)

    def side(*, hook: bool = False, constructor=sgd, losses=None) -> Callable[[], float]:
        torch.manual_seed(0)
        nets, heads = ([nn.Linear(4, 4) for _ in range(n)] for n in (k, k - 1))
        parsed = ib.parse_scheme(scheme, k)
        model = ib.build_model(nets, heads, parsed, constructor, F.mse_loss, n_microbatches=m, aux_loss_function=losses)
        if hook:
            model.on_gradients(lambda component, parameters: None)

        def seconds() -> float:
            begin = time.thread_time()
            for _ in range(args.steps):
                model.training_step(x, x)
            return time.thread_time() - begin

        return seconds

    losses = [torch.nn.MSELoss() for _ in range(k - 1)]
    extras: dict[str, dict[str, Any]] = {
        "nothing, the same twice": {},
        "on_gradients": {"hook": True},
        "named parameters": {"constructor": by_name},
        "a loss per component": {"losses": losses},
        "all three": {"hook": True, "constructor": by_name, "losses": losses},
    }
    for what, extra in extras.items():
        ratios, seconds = ratios_of((side(**extra), side()), args.rounds)
        yield row_of(what, scheme, m, ratios, seconds / args.steps)


def main() -> None:
    from common import report

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", default="bc339a0", help="the commit from before")
    parser.add_argument("--schemes", default="e2e,pairwise")
    parser.add_argument("--components", type=int, default=4)
    parser.add_argument("--microbatches", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20, help="of a side before it is the other's turn")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--out", type=Path, help="JSON file")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        archive = ["git", "-C", str(ROOT), "archive", args.base, "interlocking_backprop"]
        code = subprocess.run(archive, check=True, capture_output=True).stdout
        subprocess.run(["tar", "-x", "-C", folder], input=code, check=True)
        for scheme in args.schemes.split(","):
            rows += unused(Path(folder), scheme, args.microbatches, args)
            rows += in_use(scheme, args.microbatches, args)
    report(
        "A step with the extras / without, CPU time, tiny kernels", rows, args.out, K=args.components, base=args.base
    )


if __name__ == "__main__":
    main()
