"""What the runtime itself takes: CPU time per action on several ranks, beside a bare loop of the same passes.

Components do their few operations on eight numbers and do not sleep, so nearly all of the CPU time is overhead: that of
PyTorch (autograd, messages), which the bare loop has too, and that of the runtime, which is the difference. Both follow
the same schedule, with joint passes whole. The bare loop has no losses, random numbers, optimizer or targets, so the
difference holds the runtime's own work and these.

Messages cost the main thread little; gloo's own threads carry them, and their time is shown beside it.

A second run of the engine under a profiler (CPU time of the main thread, calls of Python functions made dearer) splits
it into percentages: wire is isend, irecv and the waits; grad the modules, the losses and the backward passes; update
the optimizers; rest everything else.

    python benchmarks/overhead.py
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from common import console, report

from interlocking_backprop.bench.bare import bare_times
from interlocking_backprop.bench.engine import emulated_model
from interlocking_backprop.bench.ranks import Ranks
from interlocking_backprop.model import InterlockingBackpropModel
from interlocking_backprop.schedule.costs import Costs
from interlocking_backprop.schedule.schedule import Schedule

SCHEMES = ("local", "pairwise", "3wise", "e2e")
PARTS = ("wire", "grad", "update", "rest")
MESSAGES = ("isend", "irecv", "<built-in method torch._C._distributed_c10d.wait>")

Clocks = tuple[float, float]  # CPU seconds of the process and of its main thread
Profile = tuple[dict[str, float], list[tuple[str, int, float]]]


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


def profiled(
    model: InterlockingBackpropModel, rank: int, n: int
) -> tuple[dict[str, float], list[tuple[str, int, float]]]:
    """Main-thread CPU seconds by part, and the functions of the rest: name, calls and seconds of their own."""
    profile = cProfile.Profile(time.thread_time)
    profile.enable()
    steps(model, rank, n)
    profile.disable()
    return by_part(pstats.Stats(profile))


def by_part(stats: pstats.Stats) -> Profile:
    """Own times of all functions, each put to the part whose root called it.

    cProfile keeps only who called whom directly; a function called from several parts is shared out by the time that
    each caller spent in it.
    """
    entries: dict[Any, Any] = stats.stats
    shares: dict[Any, dict[str, float]] = {}

    def part_of(function: Any, above: frozenset[Any] = frozenset()) -> dict[str, float]:
        """Which part a function belongs to, in shares that sum to 1."""
        if function in shares:
            return shares[function]
        root = root_part(function)
        if root is not None:
            shares[function] = {root: 1.0}
            return shares[function]
        callers = {c: v[3] for c, v in entries[function][4].items() if c not in above and c != function}
        total = sum(callers.values())
        if total <= 0:
            return {"rest": 1.0}
        found: dict[str, float] = {}
        for caller, seconds in callers.items():
            for part, share in part_of(caller, above | {function}).items():
                found[part] = found.get(part, 0.0) + share * seconds / total
        if not above:
            shares[function] = found
        return found

    parts = dict.fromkeys(PARTS, 0.0)
    rest = []
    for function, (_, n_calls, own, _, _) in entries.items():
        for part, share in part_of(function).items():
            parts[part] += share * own
        share = part_of(function).get("rest", 0.0)
        rest.append((short_name(function), int(n_calls), share * own))
    return parts, sorted(rest, key=lambda row: -row[2])


def root_part(function: tuple[str, int, str]) -> str | None:
    """The part that begins with this function."""
    file, _, name = function
    if name in MESSAGES and (file == "~" or file.endswith("distributed_c10d.py")):
        return "wire"
    if (name == "_call_impl" and file.endswith("nn/modules/module.py")) or (
        name in ("backward", "grad") and file.endswith("autograd/__init__.py")
    ):
        return "grad"
    if name == "__call__" and file.endswith("interlocking_backprop/losses.py"):
        return "grad"
    if name == "update" and file.endswith("component.py"):
        return "update"
    return None


def short_name(function: tuple[str, int, str]) -> str:
    file, line, name = function
    return name if file == "~" else f"{'/'.join(Path(file).parts[-2:])}:{line} {name}"


def on_rank(rank: int, size: int, scheme: str, m: int, n: int, rounds: int) -> dict[str, Any]:
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
    parts, rest = profiled(model, rank, n)
    model.shutdown()
    return {"engine": engine, "bare": bare, "parts": parts, "rest": rest, "actions": len(schedule.actions[rank]) * n}


def row_of(scheme: str, k: int, ranks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means over all actions of all ranks, in microseconds."""
    n_actions = sum(r["actions"] for r in ranks)

    def per_action(side: str, clock: int) -> list[float]:
        """Of each round."""
        return [
            1e6 * sum(times[clock] for times in row) / n_actions for row in zip(*(r[side] for r in ranks), strict=True)
        ]

    engine, bare = per_action("engine", 0), per_action("bare", 0)
    engine_main, bare_main = per_action("engine", 1), per_action("bare", 1)
    ratios = [a / b for a, b in zip(engine, bare, strict=True)]
    row: dict[str, Any] = {
        "scheme": scheme,
        "K": k,
        "engine": statistics.mean(engine),
        "bare": statistics.mean(bare),
        "more": statistics.mean(engine) - statistics.mean(bare),
        "ratio": statistics.mean(ratios),
        "std": statistics.stdev(ratios) if len(ratios) > 1 else 0.0,
        "n": len(ratios),
        "threads": statistics.mean(engine) - statistics.mean(engine_main),
        "bare threads": statistics.mean(bare) - statistics.mean(bare_main),
    }
    total = sum(sum(r["parts"].values()) for r in ranks)
    for part in PARTS:
        row[f"% {part}"] = 100 * sum(r["parts"][part] for r in ranks) / total
    return row


def print_rest(scheme: str, ranks: Sequence[dict[str, Any]], n: int) -> None:
    """The functions of the rest that take most themselves, under the profiler."""
    n_actions = sum(r["actions"] for r in ranks)
    found: dict[str, list[float]] = {}
    for r in ranks:
        for name, n_calls, seconds in r["rest"]:
            entry = found.setdefault(name, [0.0, 0.0])
            entry[0] += n_calls / n_actions
            entry[1] += 1e6 * seconds / n_actions
    console.print(f"{scheme}: the rest, per action (calls, µs under the profiler)")
    for name, (n_calls, us) in sorted(found.items(), key=lambda item: -item[1][1])[:n]:
        console.print(f"  {n_calls:6.2f}  {us:7.2f}  {name}", markup=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--schemes", default=",".join(SCHEMES))
    parser.add_argument("--components", default="2,4", help="each on a rank of its own")
    parser.add_argument("--microbatches", type=int, default=2)
    parser.add_argument("--steps", type=int, default=300, help="in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--functions", type=int, default=0, help="how many functions of the rest to list")
    parser.add_argument("--out", type=Path, help="JSON file")
    args = parser.parse_args()
    rows = []
    for k in map(int, args.components.split(",")):
        for scheme in args.schemes.split(","):
            with Ranks(k, on_rank, scheme, args.microbatches, args.steps, args.rounds) as ranks:
                results = ranks.results(timeout=1200)
            rows.append(row_of(scheme, k, results))
            if args.functions:
                print_rest(f"{scheme}, K = {k}", results, args.functions)
    title = "CPU time per action, µs: engine, bare loop, the difference; threads: of those, what gloo's threads took"
    report(title, rows, args.out, M=args.microbatches, steps=args.steps)


if __name__ == "__main__":
    main()
