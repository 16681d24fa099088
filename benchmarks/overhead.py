"""What the runtime itself takes: CPU time per action on several ranks, and where it goes.

Components do their few operations on eight numbers and do not sleep. So the CPU time of a rank is that of

- grad: autograd: the modules, the losses and the backward passes;
- update: the optimizers;
- wire: the transport: isend, irecv and the waits, and all that gloo's threads do (`threads`);
- own: the rest, which is the runtime's own, in the main thread.

Beside it, in turn with it, a bare loop of the same order of the same passes and messages, joint passes whole; it has no
losses, random numbers, optimizer or targets.

    python benchmarks/overhead.py
"""

from __future__ import annotations

import argparse
import cProfile
import functools
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from types import CodeType, SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from common import console, report
from torch import nn

from interlocking_backprop.bench.bare import bare_times
from interlocking_backprop.bench.engine import emulated_model
from interlocking_backprop.bench.processes import Ranks
from interlocking_backprop.engine.component import Component
from interlocking_backprop.engine.losses import Loss
from interlocking_backprop.model import InterlockingBackpropModel
from interlocking_backprop.schedule.costs import Costs
from interlocking_backprop.schedule.schedule import Schedule

SCHEMES = ("local", "pairwise", "3wise", "e2e")
PARTS = ("grad", "update", "wire")

Clocks = tuple[float, float]  # CPU seconds of the process and of its main thread


def clocks() -> Clocks:
    return time.process_time(), time.thread_time()


def difference(end: Clocks, begin: Clocks) -> Clocks:
    return end[0] - begin[0], end[1] - begin[1]


def costs(k: int) -> Costs:
    """Under which no joint pass is worth splitting, for the bare loop cannot."""
    return Costs.uniform(k, split_weight=100.0)


def steps(model: InterlockingBackpropModel, rank: int, n: int) -> None:
    batch = torch.zeros(model.n_microbatches, 8) if rank == 0 else None
    for _ in range(n):
        model.training_step(batch, batch)


def engine_clocks(model: InterlockingBackpropModel, rank: int, n: int) -> Clocks:
    begin = clocks()
    steps(model, rank, n)
    return difference(clocks(), begin)


def bare_clocks(schedule: Schedule, rank: int, n: int, warmup: int) -> Clocks:
    """Of n steps: those of a long run without those of a short one, and so without what happens once."""

    def run(n_steps: int) -> Clocks:
        begin = clocks()
        bare_times(schedule, rank, 0.0, n_steps)
        return difference(clocks(), begin)

    short = run(warmup)
    return difference(run(warmup + n), short)


class Stopwatch:
    """CPU seconds of the main thread, by part; what is called within a part belongs to it."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.n_calls = 0
        self.is_running = False
        self._within = False

    def time(self, owner: Any, name: str, part: str) -> None:
        """Counts a function or method to a part from now on."""
        function = getattr(owner, name)

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            if self._within or not self.is_running:
                return function(*args, **kwargs)
            self._within = True
            self.n_calls += 1
            begin = time.thread_time_ns()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[part] += 1e-9 * (time.thread_time_ns() - begin)
                self._within = False

        setattr(owner, name, timed)

    @classmethod
    def cost(cls, n: int = 10_000) -> float:
        """CPU seconds that it adds to a call, outside of what it counts."""
        watch, empty = cls(), SimpleNamespace(call=lambda: None)
        plain = loop_seconds(empty, n)
        watch.time(empty, "call", "grad")
        watch.is_running = True
        return (loop_seconds(empty, n) - watch.seconds["grad"] - plain) / n


def loop_seconds(owner: Any, n: int) -> float:
    begin = time.thread_time()
    for _ in range(n):
        owner.call()
    return time.thread_time() - begin


def parted(model: InterlockingBackpropModel, rank: int, n: int) -> dict[str, float]:
    """CPU seconds of n steps, by part."""
    cost, watch = Stopwatch.cost(), Stopwatch()
    for owner, name, part in (
        (dist, "isend", "wire"),
        (dist, "irecv", "wire"),
        (dist.Work, "wait", "wire"),
        (nn.Module, "__call__", "grad"),
        (Loss, "__call__", "grad"),
        (torch.autograd, "grad", "grad"),
        (torch.autograd, "backward", "grad"),
        (Component, "update", "update"),
    ):
        watch.time(owner, name, part)
    steps(model, rank, 1)
    watch.is_running = True
    process, main = engine_clocks(model, rank, n)
    watch.is_running = False
    own = main - sum(watch.seconds.values()) - watch.n_calls * cost
    threads = process - main
    return watch.seconds | {"wire": watch.seconds["wire"] + threads, "threads": threads, "own": own}


def functions(model: InterlockingBackpropModel, rank: int, n: int) -> list[tuple[str, int, float]]:
    """The functions of the main thread under a profiler: name, calls and CPU seconds of their own."""
    profile = cProfile.Profile(time.thread_time)
    profile.enable()
    steps(model, rank, n)
    profile.disable()
    return [(short_name(entry.code), entry.callcount, entry.inlinetime) for entry in profile.getstats()]


def short_name(code: CodeType | str) -> str:
    """Of a function; one in C comes as its name."""
    if isinstance(code, str):
        return code
    return f"{'/'.join(Path(code.co_filename).parts[-2:])}:{code.co_firstlineno} {code.co_name}"


def on_rank(rank: int, size: int, scheme: str, m: int, n: int, rounds: int, lists_functions: bool) -> dict[str, Any]:
    """CPU seconds of one rank for n steps, of both sides in turn."""
    warmup = 20
    model = emulated_model(scheme, size, m, unit=0.0)
    model.enable_model_parallel(costs=costs(size))
    schedule = model.schedule
    steps(model, rank, warmup)
    engine, bare = [], []
    for _ in range(rounds):
        engine.append(engine_clocks(model, rank, n))
        bare.append(bare_clocks(schedule, rank, n, warmup))
    listed = functions(model, rank, n) if lists_functions else []
    parts = parted(model, rank, n)
    model.shutdown()
    n_actions = len(schedule.actions[rank]) * n
    return {"engine": engine, "bare": bare, "parts": parts, "functions": listed, "actions": n_actions}


def row_of(scheme: str, k: int, ranks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means over all actions of all ranks, in microseconds."""
    n_actions = sum(r["actions"] for r in ranks)

    def per_action(side: str, clock: int) -> list[float]:
        """Of each round."""
        return [
            1e6 * sum(times[clock] for times in row) / n_actions for row in zip(*(r[side] for r in ranks), strict=True)
        ]

    engine, bare = per_action("engine", 0), per_action("bare", 0)
    ratios = [a / b for a, b in zip(engine, bare, strict=True)]
    row: dict[str, Any] = {
        "scheme": scheme,
        "K": k,
        "engine": statistics.mean(engine),
        "bare": statistics.mean(bare),
        "ratio": statistics.mean(ratios),
        "std": statistics.stdev(ratios) if len(ratios) > 1 else 0.0,
        "n": len(ratios),
    }
    row |= {part: 1e6 * sum(r["parts"][part] for r in ranks) / n_actions for part in (*PARTS, "threads", "own")}
    return row | {"own / wire": row["own"] / row["wire"]}


def print_functions(title: str, ranks: Sequence[dict[str, Any]], n: int) -> None:
    """The functions that take most themselves, under the profiler."""
    n_actions = sum(r["actions"] for r in ranks)
    found: dict[str, list[float]] = {}
    for r in ranks:
        for name, n_calls, seconds in r["functions"]:
            entry = found.setdefault(name, [0.0, 0.0])
            entry[0] += n_calls / n_actions
            entry[1] += 1e6 * seconds / n_actions
    console.print(f"{title}: calls and µs per action, under the profiler, which makes calls dearer")
    for name, (n_calls, us) in sorted(found.items(), key=lambda item: -item[1][1])[:n]:
        console.print(f"  {n_calls:6.2f}  {us:7.2f}  {name}", markup=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--schemes", default=",".join(SCHEMES))
    parser.add_argument("--components", default="2,4", help="each on a rank of its own")
    parser.add_argument("--microbatches", type=int, default=2)
    parser.add_argument("--steps", type=int, default=300, help="in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--functions", type=int, default=0, help="how many functions to list under a profiler")
    parser.add_argument("--out", type=Path, help="JSON file")
    args = parser.parse_args()
    rows = []
    for k in map(int, args.components.split(",")):
        for scheme in args.schemes.split(","):
            settings = (scheme, args.microbatches, args.steps, args.rounds, args.functions > 0)
            with Ranks(k, on_rank, *settings) as ranks:
                results = ranks.results(timeout=1200)
            rows.append(row_of(scheme, k, results))
            if args.functions:
                print_functions(f"{scheme}, K = {k}", results, args.functions)
    report("CPU time per action, µs", rows, args.out, M=args.microbatches, steps=args.steps)


if __name__ == "__main__":
    main()
