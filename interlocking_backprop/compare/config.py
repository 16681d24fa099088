"""What ``ibp compare`` is asked for: a grid, how its runs are carried out and measured, and the flags of training."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from interlocking_backprop.common.arguments import parse
from interlocking_backprop.scheme.phases import SchemePlan
from interlocking_backprop.training.config import TrainConfig

TUNE_SEED = 1_000_000
"""Of the tuning trials; the seeds of the runs are below it."""


def _list_of(kind: Callable[[str], Any], metavar: str) -> PrimitiveConstructorSpec[tuple[Any, ...]]:
    """A flag that takes ``4,8`` as well as ``4 8``."""
    return PrimitiveConstructorSpec(
        nargs="*",
        metavar=metavar,
        instance_from_str=lambda words: tuple(kind(part) for word in words for part in split_words(word)),
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda value: list(map(str, value)),
    )


def split_words(word: str) -> list[str]:
    """The parts between commas; a plan of schemes over epochs, which has commas of its own, is one part."""
    return [word] if ":" in word else [part.strip() for part in word.split(",") if part.strip()]


_Ints = Annotated[tuple[int, ...], _list_of(int, "INT,…")]
_Floats = Annotated[tuple[float, ...], _list_of(float, "FLOAT,…")]
_Words = Annotated[tuple[str, ...], _list_of(str, "SCHEME,…")]


@dataclass(frozen=True, kw_only=True)
class RunConfig(TrainConfig):
    """The flags of ``ibp train`` that all runs share; what the grid sets has no flag here."""

    scheme: Annotated[str, tyro.conf.Fixed, tyro.conf.Suppress] = "e2e"
    components: Annotated[int, tyro.conf.Fixed, tyro.conf.Suppress] = 4
    seed: Annotated[int, tyro.conf.Fixed, tyro.conf.Suppress] = 0
    test: Annotated[bool, tyro.conf.Fixed, tyro.conf.Suppress] = True
    devices: Annotated[tuple[str, ...], tyro.conf.Fixed, tyro.conf.Suppress] = ()
    timeout: Annotated[float, tyro.conf.Fixed, tyro.conf.Suppress] = 600.0
    out: Annotated[Path | None, tyro.conf.Fixed, tyro.conf.Suppress] = None
    resume: Annotated[bool, tyro.conf.Fixed, tyro.conf.Suppress] = False
    quiet: Annotated[bool, tyro.conf.Fixed, tyro.conf.Suppress] = True
    device: str = "auto"
    """cpu, cuda, cuda:1, …; auto spreads the runs over all accelerators, if there are any."""
    threads: int = 0
    """CPU threads of each run; 0 shares the cores out among the runs side by side."""
    tensorboard: bool = False
    """Writes TensorBoard files into the folder of each run."""


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Trains the same network with several schemes, and reports accuracy, time and memory of each.

    Every scheme is run for every number of components and every seed; runs of one seed have the same initial weights
    and the same order of data. The report is --out/report.html, beside it the same numbers as results.csv and
    runs.jsonl, and a folder for each run. Started again with the same --out, it goes on where it stopped; schemes,
    components and seeds may be added then.
    """

    schemes: _Words = ("e2e", "local", "pairwise", "3wise", "pairwise-sum", "3wise-sum", "deep-supervision")
    """Schemes, between commas or spaces: e2e, local, pairwise, 3wise (any N); with -sum, -mean or -decay0.5 (any
    number) behind; deep-supervision, decay0.5, or .csv files with the matrix. A word with a colon is one plan over the
    epochs: --schemes e2e,local local:10,e2e compares e2e, local, and local for 10 epochs followed by e2e."""
    components: _Ints = (4,)
    """Into how many components the network is cut, e.g. 4,8."""
    seeds: int = 3
    """Runs of each scheme, with the seeds 0, 1, …"""
    out: Path = Path("runs/compare")
    """Folder of the comparison."""
    jobs: int = 0
    """Runs side by side; 0 takes one for each accelerator, or on CPUs the number of cores over --threads."""
    retry_failed: bool = False
    """Starts those runs again that have failed or diverged before."""

    tune_lr: _Floats = ()
    """Tries these learning rates for each scheme, and takes the one with the best validation score."""
    tune_aux_lr_factor: _Floats = ()
    """Tries these factors of the heads' learning rate for each scheme, each with every learning rate."""
    tune_epochs: int = 0
    """Epochs of a trial; 0 for as many as a run has."""

    profile_steps: int = 10
    """Steps that are timed for each scheme; 0 leaves out the measurements, and with them what is modelled on them."""
    pipeline_microbatches: _Ints = (1, 2, 4, 8)
    """Micro-batches with which the time on a device per component is modelled; the best counts."""
    link_bandwidth: float = 10.0
    """Of the modelled links between devices, in GB/s."""
    link_latency: float = 10.0
    """Of the modelled links between devices, in microseconds."""

    train: Annotated[RunConfig, tyro.conf.arg(name="")] = field(default_factory=RunConfig)
    """What all runs share."""

    def __post_init__(self) -> None:
        """Checks what needs no data.

        Raises:
            ValueError: naming the flag, its value and what was expected.
        """
        for name in ("schemes", "components", "pipeline_microbatches", "tune_lr", "tune_aux_lr_factor"):
            values = getattr(self, name)
            doubled = sorted({str(v) for v in values if values.count(v) > 1})
            self._expect(name, not doubled, f"each value once; {', '.join(doubled)} is there twice")
        for name in ("schemes", "components", "pipeline_microbatches"):
            self._expect(name, len(getattr(self, name)) > 0, "at least one value")
        for name in ("components", "pipeline_microbatches"):
            self._expect(name, all(v >= 1 for v in getattr(self, name)), "whole numbers of at least 1")
        for name in ("tune_lr", "tune_aux_lr_factor"):
            self._expect(name, all(0 < v < math.inf for v in getattr(self, name)), "positive numbers")
        for name in ("jobs", "tune_epochs", "profile_steps"):
            self._expect(name, getattr(self, name) >= 0, "a whole number of at least 0")
        self._expect("seeds", 1 <= self.seeds <= TUNE_SEED, "a whole number of at least 1")
        self._expect("link_bandwidth", 0 < self.link_bandwidth < math.inf, "a positive number of GB/s")
        self._expect("link_latency", 0 <= self.link_latency < math.inf, "a number of microseconds, at least 0")
        self._expect("tune_epochs", self.tunes or not self.tune_epochs, "--tune-lr or --tune-aux-lr-factor beside it")
        for scheme in self.schemes:
            for k in self.components:
                self._check_plan(scheme, k)

    def _check_plan(self, text: str, k: int) -> None:
        try:
            plan = SchemePlan.parse(text, k)
        except ValueError as error:
            hint = " A word with a colon is one plan; separate further schemes from it by spaces."
            raise ValueError(f"--schemes: {error}{hint if ':' in text and ',' in text else ''}") from None
        begins = [end for end, _ in plan.phases[:-1] if end is not None]
        if self.tunes and begins and begins[-1] >= self.trial_epochs:
            raise ValueError(
                f"--tune-epochs is {self.trial_epochs}, and scheme {text!r} changes at epoch {begins[-1]}; expected "
                "trials that come to its last scheme."
            )

    def _expect(self, name: str, holds: bool, expected: str) -> None:
        if not holds:
            value = getattr(self, name)
            shown = ",".join(map(str, value)) or "empty" if isinstance(value, tuple) else value
            raise ValueError(f"--{name.replace('_', '-')} is {shown}; expected {expected}.")

    @property
    def tunes(self) -> bool:
        """Whether each scheme is tuned first."""
        return bool(self.tune_lr or self.tune_aux_lr_factor)

    @property
    def trial_epochs(self) -> int:
        """Epochs of a tuning trial."""
        return self.tune_epochs or self.train.epochs

    def settings(self) -> dict[str, Any]:
        """All flags by name, as they can be shown or written as JSON."""
        fields = dataclasses.asdict(self)
        train = fields.pop("train")
        grid = {f.name for f in dataclasses.fields(RunConfig) if _is_fixed(f)}
        fields |= {name: value for name, value in train.items() if name not in grid}
        return {name: _plain(value) for name, value in fields.items()}

    def run(self, **changes: Any) -> TrainConfig:
        """The configuration of a run."""
        fields = {f.name: getattr(self.train, f.name) for f in dataclasses.fields(TrainConfig)}
        return TrainConfig(**fields | changes)


def read_config(arguments: Sequence[str]) -> CompareConfig:
    """The configuration from the command line.

    Raises:
        ValueError: if a flag does not fit.
    """
    return parse(CompareConfig, arguments, prog="ibp compare")


def _is_fixed(f: dataclasses.Field[Any]) -> bool:
    return "Fixed" in str(f.type)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value
