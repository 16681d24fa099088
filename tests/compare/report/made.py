"""Made-up comparisons."""

from __future__ import annotations

import dataclasses
import math
import random
from typing import Any

from interlocking_backprop.compare.results import Comparison, Estimate, Point, Profile, RunResult

SCHEMES = ("e2e", "local", "pairwise", "3wise", "pairwise-sum", "3wise-sum", "deep-supervision")
_LOSS = {"e2e": 0.0, "local": 3.0, "pairwise": 1.8, "3wise": 1.0, "pairwise-sum": 0.7, "3wise-sum": 0.25}
_UNITS = {"e2e": 9.0, "local": 3.0, "pairwise": 4.0, "3wise": 5.0, "pairwise-sum": 4.0, "3wise-sum": 5.1}


def comparison(
    schemes: tuple[str, ...] = SCHEMES,
    components: tuple[int, ...] = (4, 8),
    seeds: tuple[int, ...] = (0, 1, 2),
    *,
    epochs: int = 15,
    bits: bool = False,
    **changes: Any,
) -> Comparison:
    """A comparison such as might be found; accuracies, or bits per byte."""
    runs = tuple(
        run(scheme, k, seed, epochs=epochs, bits=bits) for k in components for scheme in schemes for seed in seeds
    )
    made = Comparison(
        metric="bits_per_byte" if bits else "accuracy",
        maximize=not bits,
        schemes=schemes,
        components=components,
        seeds=seeds,
        batch_size=128,
        settings={"data": "digits", "schemes": schemes, "components": components, "lr": 0.05, "resume": False},
        environment={
            "command": "ibp compare --schemes e2e,local --components 4,8 --seeds 3 --data digits --out out",
            "interlocking_backprop": "0.1.0",
            "torch": "2.13.0",
            "processor": "Example CPU @ 2.00 GHz",
            "cpu_count": 2,
            "accelerators": [],
        },
        runs=runs,
        profiles=tuple(profile for k in components for profile in profiles(schemes, k)),
        estimates=tuple(estimate for k in components for estimate in estimates(schemes, k)),
    )
    return dataclasses.replace(made, **changes)


def run(scheme: str, k: int, seed: int, *, epochs: int = 15, bits: bool = False) -> RunResult:
    """A run that finished."""
    chance = random.Random(f"{scheme} {k} {seed}")
    behind = _LOSS.get(scheme, 0.4) * math.log2(k) / 2
    if bits:
        final, begin = 1.9 + 0.05 * behind + chance.gauss(0, 0.006), 4.2
    else:
        final, begin = (97.9 - behind + chance.gauss(0, 0.18)) / 100, 0.35
    points = [final + (begin - final) * math.exp(-(e + 1) / (0.13 * epochs)) for e in range(epochs)]
    noise = 0.01 if bits else 0.002
    curve = tuple(Point(e + 1, 40 * (e + 1), p + chance.gauss(0, noise)) for e, p in enumerate(points))
    exits = tuple(
        None if scheme == "e2e" and i < k - 1 else final + (0.5 if bits else -0.12) * (1 - (i + 1) / k)
        for i in range(k)
    )
    return RunResult(
        scheme=scheme,
        components=k,
        seed=seed,
        status="finished",
        reason="",
        folder=f"runs/{scheme}-k{k}-s{seed}",
        lr=0.05,
        aux_lr_factor=1.0,
        score=final,
        exits=exits,
        curve=curve,
        steps=40 * epochs,
        seconds=31.5 + seed,
    )


def lost(result: RunResult, status: str = "diverged", reason: str = "the loss is nan at step 83") -> RunResult:
    """The same run, had it not finished."""
    gone = dataclasses.replace(result, status=status, reason=reason, score=None, exits=(), curve=result.curve[:2])  # type: ignore[arg-type]
    return dataclasses.replace(gone, steps=83)


def profiles(schemes: tuple[str, ...], k: int) -> list[Profile]:
    """Of the schemes, and of two baselines."""
    made = [
        _profile(scheme, scheme, k, 1, 1 + 0.08 * i, 1.2e6 * (k if scheme == "e2e" else 3))
        for i, scheme in enumerate(schemes)
    ]
    return [
        *made,
        _profile("e2e, checkpointed", "e2e", k, 1, 1.31, 2.4e6),
        _profile("e2e, 4 micro-batches", "e2e", k, 4, 1.22, 1.3e6 * k / 4),
    ]


def _profile(name: str, scheme: str, k: int, m: int, factor: float, peak: float) -> Profile:
    return Profile(
        name=name,
        scheme=scheme,
        components=k,
        microbatches=m,
        step_seconds=0.0213 * factor * k / 4,
        step_std=0.0007,
        n_steps=30,
        peak_bytes=peak,
        passes={"F": k * m, "L": k - 1, "I": 6, "W": k},
    )


def estimates(schemes: tuple[str, ...], k: int) -> list[Estimate]:
    """Of the schemes, and of three pipelines of e2e, for several numbers of micro-batches."""
    made = [e for scheme in schemes for e in _sweep(scheme, scheme, k)]
    for name, floor in (("e2e 1F1B", 3.0), ("e2e zero-bubble", 2.95), ("e2e 1F1B, checkpointed", 4.0)):
        made += _sweep(name, "e2e", k, floor)
    return made


def _sweep(name: str, scheme: str, k: int, floor: float = 3.0) -> list[Estimate]:
    tried = (1, 2, 4, 8, 16)
    bubble = 0.4 if "zero" in name else 1.0
    if scheme == "e2e":
        units = [floor * (m + bubble * (k - 1)) / m + 0.02 * m for m in tried]
    else:
        units = [_UNITS.get(name, 6.5) * (1.6 if m == 1 else 1 + 0.015 * m) for m in tried]
    best = min(units)
    return [
        Estimate(
            name=name,
            scheme=scheme,
            components=k,
            microbatches=m,
            is_best=u == best,
            step_seconds=0.0018 * 4 / k * u,
            units=u,
            utilization=min(1.0, 3 / u),
            peak_graphs=min(k, m + 1),
            peak_bytes=1.4e6 / m * min(k, m + 1),
            sent_bytes=5.2e5 * (k - 1) * (2 if scheme == "e2e" else 3),
        )
        for m, u in zip(tried, units, strict=True)
    ]
