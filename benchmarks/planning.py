"""What a new scheme costs: from ``set_scheme`` to a program that is ready to run, for schemes drawn at random.

Of each kind so many schemes, each on a model that has not seen it:

- furthest: each component follows one loss, drawn among those from its own on;
- 0 or 1: every loss from its own on with probability 1/2;
- any: coefficients between 0 and 1, which owes the most passes there can be.

Figures are CPU time. The parts are timed on their own, for other schemes. ``again`` is a scheme that has been set
before. With ``--parallel`` every component is on a device of its own (the CPU, K times), for which orders are searched
for.

With ``--search`` it is the search for the order of known schemes, a device for each component, of equal costs: its
seconds, and what it finds, the units of a step for each micro-batch beside those that no order can do with less than
(the work of the fullest rank, and the way up to the loss and back).

    python benchmarks/planning.py
    python benchmarks/planning.py --search --components 64 --microbatches 1,8,64,128
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import report
from torch import nn
from torch.nn import functional as F

import interlocking_backprop as ib
from interlocking_backprop.schedule.bounds import least_step_time
from interlocking_backprop.schedule.dependencies import Dependencies
from interlocking_backprop.schedule.order import depth_first
from interlocking_backprop.schedule.validate import validate
from interlocking_backprop.scheme.streams import Workload


def cpu_time(action: Callable[[], object]) -> float:
    """Seconds of this thread, which does all the planning; what else runs on the machine does not count."""
    begin = time.thread_time()
    action()
    return time.thread_time() - begin


def drawn(kind: str, k: int, rng: np.random.Generator) -> ib.Scheme:
    if kind == "furthest":
        matrix = np.zeros((k, k))
        for i in range(k):
            matrix[i, rng.integers(i, k)] = 1.0
    elif kind == "0 or 1":
        matrix = rng.integers(0, 2, (k, k))
    else:
        matrix = rng.random((k, k))
    return ib.Scheme(np.triu(matrix))


def model_of(k: int, m: int) -> ib.InterlockingBackpropModel:
    nets, heads = [[nn.Linear(4, 4) for _ in range(n)] for n in (k, k - 1)]
    return ib.build_model(nets, heads, ib.e2e(k), torch.optim.SGD, F.mse_loss, n_microbatches=m)


def use(model: ib.InterlockingBackpropModel, scheme: ib.Scheme) -> ib.Schedule:
    """Makes the program for a scheme, unless it is there."""
    model.set_scheme(scheme)
    return model.schedule


def order_of(workload: Workload, m: int, *, is_parallel: bool) -> ib.Schedule:
    return ib.list_schedule(workload, m, range(workload.n_components)) if is_parallel else depth_first(workload, m)


def row_of(kind: str, k: int, m: int, n: int, rng: np.random.Generator, *, is_parallel: bool) -> dict[str, Any]:
    """Milliseconds."""
    new, again, streams, order, validation = [], [], [], [], []
    for _ in range(n + 2):
        scheme, model = drawn(kind, k, rng), model_of(k, m)
        if is_parallel:
            model.enable_model_parallel(["cpu"] * k)
        new.append(1e3 * cpu_time(lambda: use(model, scheme)))  # noqa: B023
        again.append(1e3 * cpu_time(lambda: use(model, scheme)))  # noqa: B023
        workload = Workload(drawn(kind, k, rng), (True,) * k, (True,) * k)
        streams.append(1e3 * cpu_time(lambda: workload.components))  # noqa: B023
        order.append(1e3 * cpu_time(lambda: order_of(workload, m, is_parallel=is_parallel)))  # noqa: B023
        schedule = order_of(workload, m, is_parallel=is_parallel)
        validation.append(1e3 * cpu_time(lambda: validate(schedule)))  # noqa: B023
    new = new[2:]  # the first are a warm-up
    return {
        "scheme": kind,
        "K": k,
        "M": m,
        "median": statistics.median(new),
        "mean": statistics.mean(new),
        "std": statistics.stdev(new),
        "n": len(new),
        "streams": statistics.median(streams),
        "order": statistics.median(order),
        "validation": statistics.median(validation),
        "again": statistics.median(again),
    }


SEARCHED = ("local", "pairwise", "3wise", "8wise", "pairwise-sum", "3wise-sum", "8wise-sum", "deep-supervision", "e2e")


def search(name: str, k: int, m: int) -> dict[str, Any]:
    """Seconds of a search, and the units that it reaches."""
    workload, costs = Workload.of(ib.parse_scheme(name, k)), ib.Costs.uniform(k, split_weight=1.0)
    begin = time.thread_time()
    schedule = ib.list_schedule(workload, m, range(k), costs)
    seconds = time.thread_time() - begin
    simulation = ib.simulate(schedule, costs, timeline_steps=0)
    splits = (workload.joint, frozenset[int]())
    bound = min(least_step_time(Dependencies(workload, m, tuple(range(k)), split), costs) for split in splits)
    return {
        "scheme": name,
        "K": k,
        "M": m,
        "search, s": seconds,
        "units": simulation.step_time / m,
        "at least": bound / m,
        "units / at least": simulation.step_time / bound,
        "graphs": max(simulation.peak_graphs),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--components", default="2,4,8")
    parser.add_argument("--microbatches", default="1,4")
    parser.add_argument("--parallel", action="store_true", help="a device for each component")
    parser.add_argument("--search", action="store_true", help="the search for an order, of known schemes")
    parser.add_argument("--schemes", type=int, default=50, help="of each kind")
    parser.add_argument("--out", type=Path, help="JSON file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.search:
        sizes = [(k, m) for k in map(int, args.components.split(",")) for m in map(int, args.microbatches.split(","))]
        searches = [search(name, k, m) for k, m in sizes for name in SEARCHED if name[0] != "8" or k >= 8]
        report("The search for an order, a device for each component, s of CPU time", searches, args.out)
        return
    rng = np.random.default_rng(0)
    rows = [
        row_of(kind, k, m, args.schemes, rng, is_parallel=args.parallel)
        for kind in ("furthest", "0 or 1", "any")
        for k in map(int, args.components.split(","))
        for m in map(int, args.microbatches.split(","))
    ]
    where = "a device for each component" if args.parallel else "one device"
    report(f"A scheme drawn at random until it can run, {where}, ms of CPU time", rows, args.out)


if __name__ == "__main__":
    main()
