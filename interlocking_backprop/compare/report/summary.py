"""What a comparison comes to, as data frames: tables, figures, sentences and files are all taken from these."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from interlocking_backprop.compare.report.formatting import Metric
from interlocking_backprop.compare.results import Comparison, Estimate, Profile, RunResult
from interlocking_backprop.compare.statistics import gap, spread

REFERENCE = "e2e"
_KEYS = ["components", "scheme"]


@dataclasses.dataclass(frozen=True)
class Summary:
    """A comparison as data frames; what is not known is missing (None or NaN) in them.

    Attributes:
        comparison: as it was.
        metric: how its scores are shown.
        runs: a row for each `RunResult`, and ``is_finished``: whether it has a score that can be counted.
        every_result: a row for each K and scheme, with the columns of results.csv: what the runs come to, the columns
            of ``measured`` and ``fastest``, and in ``same_as`` the scheme that it is the twin of, if it is one.
        results: the same without twins, which are shown under the name of the scheme that they are the same as;
            ``also`` has their names. They are left out of the frames below, too.
        curves: a row for each K, scheme and epoch after which all finished runs were validated, with ``step``, ``mean``
            and ``std`` over these runs.
        measured: a row for each `Profile`, and how its step relates to that of e2e.
        modelled: a row for each `Estimate`, with its throughput, and its speedup over the fastest pipeline of e2e.
        fastest: of ``modelled``, each pipeline with the number of micro-batches that suits it best.
    """

    comparison: Comparison
    metric: Metric
    runs: pd.DataFrame
    every_result: pd.DataFrame
    results: pd.DataFrame
    curves: pd.DataFrame
    measured: pd.DataFrame
    modelled: pd.DataFrame
    fastest: pd.DataFrame

    @property
    def components(self) -> list[int]:
        """The numbers of components, each once."""
        return list(dict.fromkeys(self.comparison.components))

    def label(self, k: int, scheme: str) -> str:
        """A scheme with the other names that it has with K components."""
        return " = ".join([scheme, *(twin.scheme for twin in self.comparison.twins if twin[::2] == (k, scheme))])

    @property
    def unfinished(self) -> pd.DataFrame:
        """The runs that no mean contains."""
        return self.runs[~self.runs["is_finished"]]

    @property
    def clocks(self) -> pd.DataFrame:
        """Of ``fastest``, for each K and scheme the fastest pipeline that trains as the scheme does."""
        return self.fastest.sort_values("modelled_step_seconds", kind="stable").drop_duplicates(_KEYS)


def of(frame: pd.DataFrame, k: int) -> pd.DataFrame:
    """The rows of a number of components."""
    return frame[frame["components"] == k]


def summarize(comparison: Comparison) -> Summary:
    """Puts together what belongs together."""
    c = comparison
    keys = [(k, scheme) for k in dict.fromkeys(c.components) for scheme in dict.fromkeys(c.schemes)]
    runs, measured, modelled = _runs(c, keys), _measured(c), _modelled(c)
    by_speed = modelled.sort_values("modelled_step_seconds", kind="stable")
    fastest = by_speed.drop_duplicates(["components", "modelled_name"]).sort_index()
    # A scheme is as fast as its own pipeline, or where it has none as the fastest that trains as it does.
    own = by_speed.loc[(by_speed["modelled_name"] != by_speed["scheme"]).sort_values(kind="stable").index]
    results = pd.DataFrame([{"metric": c.metric} | _scores(runs, k, scheme, c.maximize) for k, scheme in keys])
    for costs in (measured[measured["measured_name"] == measured["scheme"]], own.drop_duplicates(_KEYS)):
        results = results.join(costs.set_index(_KEYS), on=_KEYS)
    results = results.drop(columns=["measured_name", "modelled_is_best"])
    counts = ["gap_n", "measured_microbatches", "measured_n_steps", "modelled_microbatches", "modelled_peak_graphs"]
    scores = ["mean", "std", "gap_to_e2e", "gap_low", "gap_high"]
    results = results.astype(dict.fromkeys(counts, "Int64") | dict.fromkeys(scores, float))
    first = {(twin.components, twin.scheme): twin.first for twin in c.twins}
    others = [[name for (of_k, name), one in first.items() if (of_k, one) == key] for key in keys]
    every = results.assign(same_as=[first.get(key, "") for key in keys])

    def once(frame: pd.DataFrame) -> pd.DataFrame:
        keys = zip(frame["components"], frame["scheme"], strict=True)
        return frame[np.array([key not in first for key in keys], dtype=bool)]

    shown = once(results.assign(also=[", ".join(names) for names in others]))
    frames = [once(frame) for frame in (_curves(runs), measured, modelled, fastest)]
    return Summary(c, Metric(c.metric, c.maximize), runs, every, shown, *frames)


def _frame(kind: type, records: Iterable[Any], prefix: str) -> pd.DataFrame:
    """A row for each record, whose fields, but for K and the scheme, get a prefix."""
    frame = pd.DataFrame([vars(r) for r in records], columns=[field.name for field in dataclasses.fields(kind)])
    return frame.rename(columns=lambda name: name if name in _KEYS else f"{prefix}{name}")


def _runs(c: Comparison, keys: list[tuple[int, str]]) -> pd.DataFrame:
    runs = [r for key in keys for r in sorted(c.runs, key=lambda r: r.seed) if (r.components, r.scheme) == key]
    is_finished = [r.status == "finished" and r.score is not None and math.isfinite(r.score) for r in runs]
    unknown = [f"its test score is {r.score}" if r.status == "finished" else "no reason was recorded" for r in runs]
    return _frame(RunResult, runs, "").assign(
        is_finished=pd.Series(is_finished, dtype=bool),
        score=lambda rows: rows["score"].astype(float).where(rows["is_finished"]),
        reason=[r.reason or words for r, words in zip(runs, unknown, strict=True)],
    )


def _scores(runs: pd.DataFrame, k: int, scheme: str, maximize: bool) -> dict[str, Any]:
    """What the runs of a scheme come to."""
    own, done = of(runs[runs["scheme"] == scheme], k), of(runs[runs["is_finished"]], k)
    scores = {name: dict(zip(part["seed"], part["score"], strict=True)) for name, part in done.groupby("scheme")}
    n, mean, std = spread(scores.get(scheme, {}).values())
    difference = None if scheme == REFERENCE else gap(scores.get(scheme, {}), scores.get(REFERENCE, {}))
    columns = list(zip(*done.loc[done["scheme"] == scheme, "exits"], strict=True)) or [()] * k
    exits = [spread(v for v in column if v is not None and math.isfinite(v)) for column in columns]
    return {
        "scheme": scheme,
        "components": k,
        "n_runs": len(own),
        "n_finished": n,
        **{f"n_{status}": sum(own["status"] == status) for status in ("diverged", "failed")},
        "mean": mean,
        "std": std,
        "gap_to_e2e": difference and difference.mean,
        "gap_low": difference and difference.low,
        "gap_high": difference and difference.high,
        "gap_n": difference and difference.n,
        "gap_paired": difference and difference.paired,
        "verdict": difference and difference.verdict(maximize),
        **{name: " ".join(map(str, sorted(set(own[name])))) for name in ("lr", "aux_lr_factor")},
        **{f"exit_{i}_mean": mean for i, (_, mean, _) in enumerate(exits)},
        **{f"exit_{i}_std": std for i, (_, _, std) in enumerate(exits)},
    }


def _measured(c: Comparison) -> pd.DataFrame:
    measured = _frame(Profile, c.profiles, "measured_").rename(columns={"measured_passes": "passes"})
    measured["passes"] = [" ".join(f"{kind}:{n:g}" for kind, n in counts.items()) for counts in measured["passes"]]
    e2e = measured[measured["measured_name"] == REFERENCE].set_index("components")["measured_step_seconds"]
    relative = measured["measured_step_seconds"] / measured["components"].map(e2e)
    return measured.assign(measured_step_relative_to_e2e=relative)


def _modelled(c: Comparison) -> pd.DataFrame:
    """Schemes in the order in which they were asked for, then what else was modelled."""
    order = [*c.schemes, *sorted({e.name for e in c.estimates} - {*c.schemes})]
    estimates = sorted(c.estimates, key=lambda e: (order.index(e.name), e.microbatches))
    modelled = _frame(Estimate, estimates, "modelled_")
    modelled = modelled.rename(columns={"modelled_peak_bytes": "modelled_peak_bytes_of_fullest_device"})
    seconds = modelled["modelled_step_seconds"]
    e2e = modelled[modelled["scheme"] == REFERENCE].sort_values("modelled_step_seconds", kind="stable")
    e2e = e2e.drop_duplicates("components").set_index("components")
    name = e2e["modelled_name"] + ", M = " + e2e["modelled_microbatches"].astype(str)
    return modelled.assign(
        modelled_samples_per_second=c.batch_size / seconds,
        modelled_fastest_e2e=modelled["components"].map(name),
        modelled_speedup_over_fastest_e2e=modelled["components"].map(e2e["modelled_step_seconds"]) / seconds,
    )


def _curves(runs: pd.DataFrame) -> pd.DataFrame:
    """Over the epochs that all finished runs have, so that a mean is always of the same runs."""
    done = runs[runs["is_finished"]]
    points = [(run.components, run.scheme, *point) for run in done.itertuples() for point in run.curve]
    points = pd.DataFrame(points, columns=[*_KEYS, "epoch", "step", "score"])
    points = points[points["score"].abs() < math.inf]
    curves = points.groupby([*_KEYS, "epoch"], as_index=False).agg(
        step=("step", "mean"), mean=("score", "mean"), std=("score", "std"), n=("score", "size")
    )
    curves = curves.join(done.groupby(_KEYS).size().rename("n_runs"), on=_KEYS)
    return curves[curves["n"] == curves["n_runs"]]
