"""What ``ibp compare`` is asked for: a grid, how its runs are carried out and measured, and the flags of training."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from tyro.constructors import PrimitiveConstructorSpec

from interlocking_backprop.common.fields import NOT_NEGATIVE, POSITIVE, Expected, at_least, each_at_least
from interlocking_backprop.scheme.phases import Phases, resolve_phases
from interlocking_backprop.training.config import SharedConfig, TrainConfig
from interlocking_backprop.training.config_groups import Execution

TUNE_SEED = 1_000_000
"""The seed of the tuning trials; the seeds of the runs are below it."""


def _list_of(kind: Callable[[str], Any], metavar: str) -> PrimitiveConstructorSpec[tuple[Any, ...]]:
    """Makes a flag that takes ``4,8`` as well as ``4 8``."""
    return PrimitiveConstructorSpec(
        nargs="*",
        metavar=metavar,
        instance_from_str=lambda words: tuple(kind(part) for word in words for part in split_words(word)),
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda value: list(map(str, value)),
    )


def split_words(word: str) -> list[str]:
    """The parts between commas; a word with a colon has phases, whose commas are its own, and is one part."""
    return [word] if ":" in word else [part.strip() for part in word.split(",") if part.strip()]


_EACH_POSITIVE = Expected("positive numbers, at most 1e38", lambda values: all(map(POSITIVE.holds, values)))
_BELOW_TUNE_SEED = Expected("a whole number of at least 1", lambda value: 1 <= value <= TUNE_SEED)
_NOT_EMPTY = Expected("at least one value", lambda values: len(values) > 0)

_Ints = Annotated[tuple[int, ...], _list_of(int, "INT,…"), _NOT_EMPTY, each_at_least(1, 1000)]
_Floats = Annotated[tuple[float, ...], _list_of(float, "FLOAT,…"), _EACH_POSITIVE]
_Words = Annotated[tuple[str, ...], _list_of(str, "SCHEME,…"), _NOT_EMPTY]


@dataclass(frozen=True, kw_only=True)
class CompareConfig(SharedConfig):
    """Trains the same network with several schemes, and reports accuracy, time and memory of each.

    Every scheme is run for every number of components and every seed; runs of one seed have the same initial weights
    and the same order of data. The report is --out/report.html, beside it the same numbers as results.csv and
    runs.jsonl, and a folder for each run. Started again with the same --out, it goes on where it stopped; schemes,
    components and seeds may be added then.
    """

    schemes: _Words = ("e2e", "local", "pairwise", "3wise", "pairwise-sum", "3wise-sum", "deep-supervision")
    """Schemes, between commas or spaces: e2e, local, pairwise or 3wise (any N), deep-supervision or decay0.5.
    An N-wise one takes -sum, -mean or -decay0.5 (any number) behind it; a .csv or .json file has matrices.
    e2e~2, e2e~2.1.1.0 and e2e~ are late, 0.5*pairwise+0.5*e2e~ is a sum, and pipedream and pipedream-2bw are baselines.
    A word with a colon is one scheme that changes over the epochs, and its commas are its own.
    --schemes e2e,local local:10,e2e compares e2e, local, and local for 10 epochs followed by e2e."""
    components: _Ints = (4,)
    """Into how many components the network is cut, e.g. 4,8."""
    seeds: Annotated[int, _BELOW_TUNE_SEED] = 3
    """Runs of each scheme, with the seeds 0, 1, …"""
    out: Path = Path("runs/compare")
    """Folder of the comparison."""
    jobs: Annotated[int, at_least(0, 1000)] = 0
    """Runs side by side; 0 takes one for each accelerator, or on CPUs the number of cores over --threads."""
    retry_failed: bool = False
    """Starts those runs again that have failed or diverged before."""

    tune_lr: _Floats = ()
    """Tries these learning rates for each scheme, and takes the one with the best validation score."""
    tune_aux_lr_factor: _Floats = ()
    """Tries these factors of the heads' learning rate for each scheme, each with every learning rate."""
    tune_epochs: Annotated[int, at_least(0)] = 0
    """Epochs of a trial; 0 for as many as a run has."""

    profile_steps: Annotated[int, at_least(0)] = 10
    """Steps that are timed for each scheme; 0 leaves out the measurements, and with them what is modelled on them."""
    pipeline_microbatches: _Ints = (1, 2, 4, 8)
    """Micro-batches with which the time on a device per component is modelled; the best counts."""
    link_bandwidth: Annotated[float, Expected("a positive number of GB/s", POSITIVE.holds)] = 10.0
    """Bandwidth of the modelled links between devices, in GB/s."""
    link_latency: Annotated[float, Expected("a number of microseconds, at least 0", NOT_NEGATIVE.holds)] = 10.0
    """Latency of the modelled links between devices, in microseconds."""

    execution: Execution = field(default_factory=lambda: Execution(tensorboard=False))

    def __post_init__(self) -> None:
        """Checks what needs no data."""
        super().__post_init__()
        for name in ("schemes", "components", "pipeline_microbatches", "tune_lr", "tune_aux_lr_factor"):
            values = getattr(self, name)
            doubled = sorted({str(v) for v in values if values.count(v) > 1})
            self.expect(name, not doubled, f"each value once; {', '.join(doubled)} is there twice")
        self.expect("tune_epochs", self.tunes or not self.tune_epochs, "--tune-lr or --tune-aux-lr-factor beside it")
        for scheme in self.schemes:
            for k in self.components:
                self._check_scheme(scheme, k)

    def _check_scheme(self, text: str, k: int) -> None:
        try:
            phases = Phases.parse(text, k, self.least_delays)
        except ValueError as error:
            hint = " A word with a colon is one scheme; separate further schemes from it by spaces."
            raise ValueError(f"--schemes: {error}{hint if ':' in text and ',' in text else ''}") from None
        begins = [phase.end for phase in phases if phase.end is not None]
        if self.tunes and begins and begins[-1] >= self.trial_epochs:
            raise ValueError(
                f"--tune-epochs is {self.trial_epochs}, and scheme {text!r} changes at epoch {begins[-1]}; expected "
                "trials that come to its last scheme."
            )

    def resolved(self, scheme: str, k: int) -> str:
        """A scheme for K components with the delays that ``~`` stands for as numbers."""
        return resolve_phases(scheme, k, self.least_delays)

    @property
    def tunes(self) -> bool:
        """Whether each scheme is tuned first."""
        return bool(self.tune_lr or self.tune_aux_lr_factor)

    @property
    def trial_epochs(self) -> int:
        """Epochs of a tuning trial."""
        return self.tune_epochs or self.optimization.epochs

    def settings(self) -> dict[str, Any]:
        """All flags by name, as they can be shown or written as JSON."""
        return {
            name: list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value
            for name, value in self.flat().items()
        }

    def run(self, **changes: Any) -> TrainConfig:
        """The configuration of a run.

        Args:
            changes: values of fields of `TrainConfig` that are its own, whatever groups they are in.
        """
        shared = {f.name: getattr(self, f.name) for f in dataclasses.fields(SharedConfig)}
        return TrainConfig(**shared).replace(quiet=True, **changes)
