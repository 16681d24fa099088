"""Everything that a training run depends on, in one typed place; the command line is generated from it.

A field belongs to a group, but its name is unique in all of them: flags and config.json know names alone.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import reprlib
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from interlocking_backprop.common.atomic_files import write_text
from interlocking_backprop.common.fields import LARGEST, Checked, at_least, flag
from interlocking_backprop.common.json_files import read_json
from interlocking_backprop.schedule.least_delays import least_delays
from interlocking_backprop.scheme.coefficients import Scheme
from interlocking_backprop.scheme.delay_factors import delay_factors
from interlocking_backprop.scheme.expressions import LeastDelays
from interlocking_backprop.scheme.phases import Phases, resolve_phases
from interlocking_backprop.training import config_groups as groups

_Self = TypeVar("_Self", bound="SharedConfig")

_DEFAULTS: dict[str, dict[str, float]] = {
    "sgd": {"lr": 0.1, "weight_decay": 5e-4, "aux_lr_factor": 1.0},
    "adamw": {"lr": 1e-3, "weight_decay": 0.1, "aux_lr_factor": 5.0},
    "muon": {"lr": 0.02, "weight_decay": 0.1, "aux_lr_factor": 5.0, "adamw_lr": 1e-3},
    # docs/results.md has what it was chosen by.
    "transformer adamw": {"aux_lr_factor": 30.0},
    "transformer muon": {"aux_lr_factor": 30.0},
}


@dataclass(frozen=True, kw_only=True)
class SharedConfig(Checked):
    """What `ibp train` and `ibp compare` have in common."""

    network: groups.Network = field(default_factory=groups.Network)
    resnet: groups.ResNet = field(default_factory=groups.ResNet)
    transformer: groups.Transformer = field(default_factory=groups.Transformer)
    dataset: groups.Dataset = field(default_factory=groups.Dataset)
    optimization: groups.Optimization = field(default_factory=groups.Optimization)
    execution: groups.Execution = field(default_factory=groups.Execution)

    def __post_init__(self) -> None:
        """Checks what needs no data."""
        super().__post_init__()
        fits = self.optimization.head_lr_factor == 1 or not self.transformer.tied
        self.optimization.expect("head_lr_factor", fits, "1 with --tied, as the head is the embedding then")
        factors = (
            self.of_optimizer("aux_lr_factor"),
            self.optimization.head_lr_factor,
            self.of_optimizer("weight_decay"),
        )
        names: list[Literal["lr", "adamw_lr"]] = ["lr", "adamw_lr"] if self.optimizer_name == "muon" else ["lr"]
        for name in names:
            if not self.of_optimizer(name) * max(1.0, *factors) <= LARGEST:
                raise ValueError(
                    f"{flag(name)} is {self.of_optimizer(name):g}, with --aux-lr-factor {factors[0]:g}, "
                    f"--head-lr-factor {factors[1]:g} and --weight-decay {factors[2]:g}; expected products of at most "
                    f"{LARGEST:g}."
                )

    def replace(self: _Self, **values: Any) -> _Self:
        """A copy with other values of some fields, whatever groups these are in.

        Raises:
            ValueError: if a value does not fit.
            TypeError: if there is no field of a name.
        """
        changed = {}
        for name, group in self._groups():
            inside = {key: values.pop(key) for key in vars(group) if key in values}
            changed[name] = dataclasses.replace(group, **inside)
        return dataclasses.replace(self, **changed, **values)

    def flat(self) -> dict[str, Any]:
        """The values of all fields by name, without the groups."""
        nested = dict(self._groups())
        values = {name: value for name, value in vars(self).items() if name not in nested}
        return values | {name: value for group in nested.values() for name, value in vars(group).items()}

    def _groups(self) -> Iterator[tuple[str, Any]]:
        return ((name, value) for name, value in vars(self).items() if dataclasses.is_dataclass(value))

    @property
    def data_name(self) -> str:
        """The data set, "auto" being resolved."""
        if self.dataset.data != "auto":
            return self.dataset.data
        return "stdlib" if self.network.model == "transformer" else "digits"

    @property
    def least_delays(self) -> LeastDelays:
        """What ``~`` without a number stands for with so many micro-batches: all components count as equal."""
        return functools.partial(least_delays, n_microbatches=self.optimization.microbatches)

    @property
    def optimizer_name(self) -> Literal["sgd", "adamw", "muon"]:
        """The optimizer, "auto" being resolved."""
        if self.optimization.optimizer != "auto":
            return self.optimization.optimizer
        return "adamw" if self.network.model == "transformer" else "sgd"

    def of_optimizer(self, name: Literal["lr", "adamw_lr", "weight_decay", "aux_lr_factor"]) -> float:
        """A value that depends on the optimizer where it is not given; there is an ``adamw_lr`` with Muon alone."""
        value = getattr(self.optimization, name)
        defaults = _DEFAULTS[self.optimizer_name] | _DEFAULTS.get(f"{self.network.model} {self.optimizer_name}", {})
        return float(defaults[name] if value is None else value)


@dataclass(frozen=True, kw_only=True)
class TrainConfig(SharedConfig):
    """Trains a network cut into components, each by the losses that the scheme gives it.

    With --config FILE, e.g. the config.json of another run, the values in the file are the defaults of the flags.
    """

    scheme: str = "e2e"
    """Which loss trains which component: e2e, local, pairwise or 3wise (any N), deep-supervision or decay0.5.
    An N-wise one takes -sum, -mean or -decay0.5 (any number) behind it; a .csv or .json file has matrices.
    e2e~2 is late by two steps, e2e~2.1.1.0 by so many for each component, e2e~ by the least that keeps a device per
    component busy with --microbatches, pipedream and pipedream-2bw by theirs; 0.5*pairwise+0.5*e2e~ is a sum.
    Several, each until an epoch: local:10,3wise:18,e2e."""
    components: Annotated[int, at_least(1, 1000)] = 4
    """Into how many components the network is cut, balanced by cost."""
    seed: Annotated[int, at_least(0)] = 0
    """Determines the initial weights, the order of the data, augmentation and dropout."""
    test: bool = True
    """Ends the run with the test set; without it (to choose settings, say) the test set is never looked at."""
    parallelism: groups.Parallelism = field(default_factory=groups.Parallelism)
    output: groups.Output = field(default_factory=groups.Output)

    def __post_init__(self) -> None:
        """Checks what needs no data."""
        super().__post_init__()
        fits = len(self.parallelism.devices) in (0, self.components)
        self.parallelism.expect("devices", fits, f"one for each of the {self.components} components")

    @property
    def blocks(self) -> int | str:
        """How the blocks are shared out: into so many components of like cost, or to each as `blocks_per_component`."""
        return self.components if self.network.blocks_per_component == "auto" else self.network.blocks_per_component

    @property
    def phases(self) -> Phases:
        """The schemes, and until when each holds.

        Raises:
            ValueError: if one is not known, or not one for so many components.
        """
        return Phases.parse(self.scheme, self.components, self.least_delays)

    @property
    def resolved_scheme(self) -> str:
        """The text of the scheme with its least delays written out, which a run's configuration keeps."""
        return resolve_phases(self.scheme, self.components, self.least_delays)

    def rate_factors(self, scheme: Scheme) -> tuple[float, ...]:
        """By what the learning rates of the components are multiplied while a scheme is followed."""
        return delay_factors(scheme, self.optimization.delay_lr_power)

    @property
    def run_folder(self) -> Path:
        """Where the run goes."""
        if self.output.out is not None:
            return self.output.out
        words = (self.data_name, self.network.model, self.scheme, f"k{self.components}", f"s{self.seed}")
        return Path("runs") / re.sub(r"[^\w.-]+", "_", "-".join(words))

    def save(self, path: Path) -> None:
        """Writes the configuration as JSON, which ``--config`` reads."""
        # Whoever goes on with the run, or repeats it, does not want another trace.
        values = {name: value for name, value in self.flat().items() if name != "profile"}
        values["scheme"] = self.resolved_scheme
        write_text(path, json.dumps(values, indent=2, default=str) + "\n")


RESUMABLE_FIELDS = {
    f.name for group in (groups.Execution, groups.Parallelism, groups.Output) for f in dataclasses.fields(group)
}
"""What may differ when a run is resumed: where and how long it runs, not what it computes."""


def load_config(path: Path) -> TrainConfig:
    """Reads a configuration that `TrainConfig.save` wrote, or a part of one.

    Raises:
        ValueError: if the file cannot be read, or a field or value in it does not fit.
    """
    values = read_json(path, "a file such as the config.json of a run")
    if not isinstance(values, dict):
        raise ValueError(f"configuration {path} holds a {type(values).__name__}; expected an object of field names.")
    default = TrainConfig()
    kinds = get_type_hints(TrainConfig)
    for _, group in default._groups():
        kinds |= get_type_hints(type(group))
    try:
        for name in sorted(values.keys() - default.flat().keys()):
            raise ValueError(f"{flag(name)} is not known; expected the flags of `ibp train --help`.")
        return default.replace(**{name: _typed(name, kinds[name], value) for name, value in values.items()})
    except ValueError as error:
        raise ValueError(f"configuration {path}: {error}") from None


_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text", Path: "a path"}


def _typed(name: str, kind: Any, value: Any) -> Any:
    """A value of a JSON file as one of the type of its field."""
    options = get_args(kind)
    if get_origin(kind) in (Union, types.UnionType):  # of a type and None
        return None if value is None else _typed(name, options[0], value)
    if get_origin(kind) is tuple and isinstance(value, list):
        return tuple(_typed(name, options[0], part) for part in value)
    if type(value) is kind or (get_origin(kind) is Literal and value in options):
        return value
    if kind is Path and isinstance(value, str):
        return Path(value)
    if kind is float and type(value) is int and abs(value) < 10**300:
        return float(value)
    expected = _WORDS.get(kind) or ("a list" if get_origin(kind) is tuple else f"one of {', '.join(options)}")
    raise ValueError(f"{flag(name)} is {reprlib.repr(value)}; expected {expected}.")
