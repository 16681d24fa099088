"""Everything that a training run depends on, in one typed place; the command line is generated from it."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from interlocking_backprop.arguments import parse
from interlocking_backprop.files import write_text


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Trains a network cut into components, each by the losses that the scheme gives it."""

    scheme: str = "e2e"
    """Which loss trains which component: e2e, local, pairwise, 3wise (any N), with -sum or -mean behind it,
    deep-supervision, or a .csv file with the matrix. Several, each until an epoch: local:10,3wise:18,e2e."""
    components: int = 4
    """Into how many components the network is cut, balanced by cost."""
    heads: Literal["needed", "all"] = "needed"
    """Auxiliary heads: only those whose losses the scheme uses, or one at every exit, the others as probes."""

    data: str = "digits"
    """Data set: digits (built in), fashion-mnist, cifar10, cifar100, folder:PATH, hub:OWNER/NAME."""
    data_root: Path = Path("data")
    """Where the files of data sets are."""
    image_size: int | None = None
    """Height and width to which the images of folders and hub sets are brought."""
    augment: bool = True
    """Random crops and flips, where the data set has them."""
    validation_fraction: float = 0.1
    """Share of the training set that is held out, where the data set has no validation set of its own."""
    workers: int = 0
    """Processes that read data beside the main one."""

    model: Literal["resnet"] = "resnet"
    """Kind of network."""
    block: Literal["basic", "bottleneck"] = "basic"
    """Residual blocks: basic (ResNet-18, -34) or bottleneck (ResNet-50 and deeper)."""
    architecture: str = "auto"
    """Superblocks as [planes],[blocks]/…, e.g. 64,3/128,4/256,6/512,3; auto takes one that suits the data set."""
    aux_architecture: str = "auto"
    """Auxiliary heads, e.g. conv128_bn_conv64_bn_gbpl_fc; auto takes one that suits the data set."""
    stem_stride: int = 0
    """Stride of the first convolution of nets for small images; 0 takes one that suits the data set."""
    blocks_per_component: str = "auto"
    """How many blocks each component gets, e.g. 1,1,rest; auto balances them."""

    epochs: int = 10
    """Passes over the training set."""
    max_steps: int = 0
    """Ends the run after so many steps; 0 for no such limit."""
    batch_size: int = 128
    """Samples in a batch."""
    microbatches: int = 1
    """Parts into which each batch is cut."""

    optimizer: Literal["sgd", "adamw"] = "sgd"
    """SGD with Nesterov momentum, or AdamW."""
    lr: float = 0.1
    """Peak learning rate."""
    momentum: float = 0.9
    """Of SGD."""
    weight_decay: float = 5e-4
    """Not applied to biases and normalisation weights."""
    aux_lr_factor: float = 1.0
    """Multiplies the learning rate of the auxiliary heads. Under Adam they need 5 to 20."""
    lr_schedule: Literal["cosine", "multistep", "constant", "plateau"] = "cosine"
    """After the warm-up: cosine to zero, steps at the milestones, constant, or lower on a plateau of the validation
    score."""
    warmup_epochs: float = 0.5
    """Epochs over which the learning rate rises linearly; 0 for none."""
    milestones: tuple[int, ...] = (91, 136, 182)
    """Epochs after which multistep multiplies the learning rate by gamma."""
    gamma: float = 0.1
    """Factor of multistep and plateau."""
    max_grad_norm: float = 0.0
    """Clips each component's gradient, and each head's, to this 2-norm; 0 for no clipping."""

    seed: int = 0
    """Of the weights, the order of the data, augmentation and dropout."""
    device: str = "auto"
    """cpu, cuda, cuda:1, …; auto takes an accelerator if there is one."""
    autocast: Literal["none", "bfloat16"] = "none"
    """Precision of the forward pass and the losses."""
    threads: int = 0
    """CPU threads of PyTorch; 0 leaves its default."""

    out: Path | None = None
    """Folder of the run; by default runs/[data]-[scheme]-k[components]-s[seed]."""
    resume: bool = False
    """Goes on with the run in --out."""
    tensorboard: bool = True
    """Writes TensorBoard files beside metrics.jsonl."""
    log_every: int = 10
    """Steps between two lines of training metrics."""
    quiet: bool = False
    """No progress display."""

    def __post_init__(self) -> None:
        """Checks what needs no data.

        Raises:
            ValueError: naming the flag, its value and what was expected.
        """
        for name in ("components", "epochs", "batch_size", "microbatches", "log_every"):
            self._expect(name, getattr(self, name) >= 1, "a whole number of at least 1")
        for name in (
            "max_steps",
            "workers",
            "threads",
            "stem_stride",
            "warmup_epochs",
            "weight_decay",
            "max_grad_norm",
        ):
            self._expect(name, 0 <= getattr(self, name) < math.inf, "a number of at least 0")
        for name in ("lr", "aux_lr_factor", "gamma"):
            self._expect(name, 0 < getattr(self, name) < math.inf, "a positive number")
        self._expect("momentum", 0 <= self.momentum < 1, "a number from 0 to below 1")
        self._expect("validation_fraction", 0 < self.validation_fraction < 1, "a number between 0 and 1")
        self._expect("image_size", self.image_size is None or self.image_size >= 1, "a positive number of pixels")
        ascending = list(self.milestones) == sorted(self.milestones) and all(m >= 1 for m in self.milestones)
        self._expect("milestones", ascending, "ascending epochs")

    def _expect(self, name: str, holds: bool, expected: str) -> None:
        if not holds:
            flag = name.replace("_", "-")
            raise ValueError(f"--{flag} is {getattr(self, name)}; expected {expected}.")

    @property
    def run_folder(self) -> Path:
        """Where the run goes."""
        if self.out is not None:
            return self.out
        words = "-".join(
            (self.data, self.scheme.replace(":", "_").replace(",", "-"), f"k{self.components}", f"s{self.seed}")
        )
        return Path("runs") / words.replace("/", "_").replace(":", "_")

    def save(self, path: Path) -> None:
        """Writes the configuration as JSON, which ``--config`` reads."""
        write_text(path, json.dumps(dataclasses.asdict(self), indent=2, default=str) + "\n")


# What may differ when a run is resumed: where and how long it runs, not what it computes.
RESUMABLE_FIELDS = frozenset(
    {"device", "workers", "threads", "out", "resume", "tensorboard", "log_every", "quiet", "data_root"}
)


def load_config(path: Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Reads a configuration that `TrainConfig.save` wrote, or a part of one.

    Args:
        path: a JSON file.
        overrides: command-line flags that take precedence.

    Raises:
        ValueError: if the file cannot be read, or a field or value in it does not fit.
    """
    try:
        fields = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"configuration {path} cannot be read as JSON ({error}).") from None
    if not isinstance(fields, dict):
        raise ValueError(f"configuration {path} holds a {type(fields).__name__}; expected an object of field names.")
    arguments = [argument for name, value in fields.items() for argument in _flags(name, value)]
    try:
        parse(TrainConfig, arguments, prog="ibp train")
    except ValueError as error:
        raise ValueError(f"configuration {path}: {error}") from None
    return parse(TrainConfig, [*arguments, *overrides], prog="ibp train")


def _flags(name: str, value: Any) -> list[str]:
    """A field as it would stand on the command line."""
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    values = value if isinstance(value, list) else [value]
    return [f"--{flag}", *map(str, values)]
