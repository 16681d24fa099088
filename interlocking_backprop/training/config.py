"""Everything that a training run depends on, in one typed place; the command line is generated from it."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from interlocking_backprop.common.arguments import parse
from interlocking_backprop.common.atomic_files import write_text


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Trains a network cut into components, each by the losses that the scheme gives it."""

    scheme: str = "e2e"
    """Which loss trains which component: e2e, local, pairwise, 3wise (any N), with -sum, -mean or -decay0.5 (any
    number) behind it, deep-supervision, decay0.5, or a .csv file with the matrix. Several, each until an epoch:
    local:10,3wise:18,e2e."""
    components: int = 4
    """Into how many components the network is cut, balanced by cost."""
    heads: Literal["needed", "all"] = "needed"
    """Auxiliary heads: only those whose losses the scheme uses, or one at every exit, the others as probes."""

    model: Literal["resnet", "transformer"] = "resnet"
    """Kind of network: resnet for images, transformer for text."""
    data: str = "auto"
    """Data set: digits (built in), fashion-mnist, cifar10, cifar100, folder:PATH, hub:OWNER/NAME; for a transformer
    stdlib (the source of Python's standard library), text:PATH (a file or folder), hub:OWNER/NAME. auto takes digits or
    stdlib."""
    data_root: Path = Path("data")
    """Where the files of data sets are."""
    validation_fraction: float | None = None
    """Share of the training set that is held out, where the data set has no validation set of its own; by default 0.1
    of images, 0.05 of text."""
    workers: int = 0
    """Processes that read data beside the main one."""

    image_size: int | None = None
    """Height and width to which the images of folders and hub sets are brought."""
    augment: bool = True
    """Random crops and flips of images, where the data set has them."""
    block: Literal["basic", "bottleneck"] = "basic"
    """ResNet: basic (ResNet-18, -34) or bottleneck (ResNet-50 and deeper) blocks."""
    architecture: str = "auto"
    """ResNet: superblocks as [planes],[blocks]/…, e.g. 64,3/128,4/256,6/512,3; auto takes one that suits the data."""
    aux_architecture: str = "auto"
    """ResNet: auxiliary heads, e.g. conv128_bn_conv64_bn_gbpl_fc; auto takes one that suits the data set."""
    stem_stride: int = 0
    """ResNet: stride of the first convolution for small images; 0 takes one that suits the data set."""

    vocabulary: str = "bytes"
    """Transformer: bytes, or bpe:N for a byte-level BPE of N tokens, trained on the training text."""
    context: int = 256
    """Transformer: tokens that it sees at most."""
    width: int = 128
    """Transformer: channels."""
    depth: int = 8
    """Transformer: blocks."""
    attention_heads: int = 4
    """Transformer: heads of each attention."""
    dropout: float = 0.0
    """Transformer: share of values dropped in training."""
    positions: Literal["learned", "rotary"] = "learned"
    """Transformer: how positions enter."""
    aux_rank: int = 0
    """Transformer: auxiliary heads project to the vocabulary through so many channels; 0 for a full projection."""
    tied: bool = False
    """Transformer: the head's projection is the embedding's weight. First and last component then wait for one another
    in every step."""
    chunked_loss: bool = True
    """Transformer: computes logits a few positions at a time, so that a batch's never are in memory at once."""

    blocks_per_component: str = "auto"
    """How many blocks each component gets, e.g. 1,1,rest; auto balances their cost."""

    epochs: int = 10
    """Passes over the training set; each ends with a validation."""
    epoch_steps: int = 0
    """Ends each epoch after so many steps, where a pass over the training set is long; 0 for whole passes."""
    max_steps: int = 0
    """Ends the run after so many steps; 0 for no such limit."""
    batch_size: int = 128
    """Samples in a batch; windows of the context's length for text."""
    microbatches: int = 1
    """Parts into which each batch is cut."""

    optimizer: Literal["auto", "sgd", "adamw"] = "auto"
    """SGD with momentum, or AdamW; auto takes SGD for ResNets and AdamW for Transformers."""
    lr: float | None = None
    """Peak learning rate; by default 0.1 with SGD, 0.001 with AdamW."""
    momentum: float = 0.9
    """Of SGD."""
    nesterov: bool = True
    """Whether SGD's momentum is Nesterov's."""
    weight_decay: float | None = None
    """By default 0.0005 with SGD, 0.1 with AdamW. Biases and normalisation weights have none."""
    aux_lr_factor: float | None = None
    """Multiplies the learning rate of the auxiliary heads; by default 1 with SGD, 5 with AdamW, under which heads need
    more than the rest, and 30 for a Transformer's with AdamW."""
    head_lr_factor: float = 1.0
    """Multiplies the learning rate of the network's own head, its last layer, for comparisons on equal terms."""
    lr_schedule: Literal["cosine", "multistep", "constant", "plateau"] = "cosine"
    """After the warm-up: cosine to zero, steps at the milestones, constant, or lower on a plateau of the validation
    score."""
    warmup_epochs: float = 0.5
    """Epochs over which the learning rate rises linearly; 0 for none. A plateau schedule has none."""
    milestones: tuple[int, ...] = (91, 136, 182)
    """Epochs after which multistep multiplies the learning rate by gamma."""
    gamma: float = 0.1
    """Factor of multistep and plateau."""
    max_grad_norm: float = 0.0
    """Clips each component's gradient, and each head's, to this 2-norm; 0 for no clipping."""
    test: bool = True
    """Ends the run with the test set; without it (to choose settings, say) the test set is never looked at."""

    seed: int = 0
    """Of the weights, the order of the data, augmentation and dropout."""
    device: str = "auto"
    """cpu, cuda, cuda:1, …; auto takes an accelerator if there is one (under torchrun, that of the local rank)."""
    devices: tuple[str, ...] = ()
    """Model parallelism in one process: a device for each component, all at work at once, e.g. cuda:0 cuda:1."""
    timeout: float = 600.0
    """Model parallelism under torchrun: seconds that a rank may wait for another before the run is given up."""
    autocast: Literal["none", "bfloat16"] = "none"
    """Precision of the forward pass and the losses."""
    threads: int = 0
    """CPU threads of PyTorch; 0 leaves its default."""

    out: Path | None = None
    """Folder of the run; by default runs/[data]-[model]-[scheme]-k[components]-s[seed]."""
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
        for name in ("components", "epochs", "batch_size", "microbatches", "log_every", "context", "width", "depth"):
            self._expect(name, getattr(self, name) >= 1, "a whole number of at least 1")
        for name in ("max_steps", "epoch_steps", "workers", "threads", "stem_stride", "aux_rank"):
            self._expect(name, getattr(self, name) >= 0, "a whole number of at least 0")
        for name in ("warmup_epochs", "weight_decay", "max_grad_norm"):
            value = getattr(self, name)
            self._expect(name, value is None or 0 <= value < math.inf, "a number of at least 0")
        for name in ("lr", "aux_lr_factor", "head_lr_factor", "gamma", "timeout"):
            value = getattr(self, name)
            self._expect(name, value is None or 0 < value < math.inf, "a positive number")
        for name in ("momentum", "dropout"):
            self._expect(name, 0 <= getattr(self, name) < 1, "a number from 0 to below 1")
        fits = self.validation_fraction is None or 0 < self.validation_fraction < 1
        self._expect("validation_fraction", fits, "a number between 0 and 1")
        self._expect("image_size", self.image_size is None or self.image_size >= 1, "a positive number of pixels")
        fits = self.attention_heads >= 1 and self.width % self.attention_heads == 0
        self._expect("attention_heads", fits, f"a divisor of the width, {self.width}")
        fits = self.head_lr_factor == 1 or not self.tied
        self._expect("head_lr_factor", fits, "1 with --tied, as the head is the embedding then")
        ascending = list(self.milestones) == sorted(self.milestones) and all(m >= 1 for m in self.milestones)
        self._expect("milestones", ascending, "ascending epochs")
        fits = len(self.devices) in (0, self.components)
        self._expect("devices", fits, f"one for each of the {self.components} components")

    def _expect(self, name: str, holds: bool, expected: str) -> None:
        if not holds:
            flag = name.replace("_", "-")
            raise ValueError(f"--{flag} is {getattr(self, name)}; expected {expected}.")

    @property
    def data_name(self) -> str:
        """The data set, "auto" being resolved."""
        if self.data != "auto":
            return self.data
        return "stdlib" if self.model == "transformer" else "digits"

    @property
    def optimizer_name(self) -> Literal["sgd", "adamw"]:
        """The optimizer, "auto" being resolved."""
        if self.optimizer != "auto":
            return self.optimizer
        return "adamw" if self.model == "transformer" else "sgd"

    def share_held_out(self, default: float) -> float:
        """The share of the training set that is held out, with the default of the kind of data."""
        return default if self.validation_fraction is None else self.validation_fraction

    def of_optimizer(self, name: Literal["lr", "weight_decay", "aux_lr_factor"]) -> float:
        """A value that depends on the optimizer where it is not given."""
        value = getattr(self, name)
        defaults = _DEFAULTS[self.optimizer_name] | _DEFAULTS.get(f"{self.model} {self.optimizer_name}", {})
        return float(defaults[name] if value is None else value)

    @property
    def run_folder(self) -> Path:
        """Where the run goes."""
        if self.out is not None:
            return self.out
        words = (self.data_name, self.model, self.scheme, f"k{self.components}", f"s{self.seed}")
        return Path("runs") / re.sub(r"[^\w.-]+", "_", "-".join(words))

    def save(self, path: Path) -> None:
        """Writes the configuration as JSON, which ``--config`` reads."""
        write_text(path, json.dumps(dataclasses.asdict(self), indent=2, default=str) + "\n")


_DEFAULTS: dict[str, dict[str, float]] = {
    "sgd": {"lr": 0.1, "weight_decay": 5e-4, "aux_lr_factor": 1.0},
    "adamw": {"lr": 1e-3, "weight_decay": 0.1, "aux_lr_factor": 5.0},
    # docs/results.md has what it was chosen by.
    "transformer adamw": {"aux_lr_factor": 30.0},
}

# What may differ when a run is resumed: where and how long it runs, not what it computes.
RESUMABLE_FIELDS = {
    "data_root",
    "device",
    "devices",
    "log_every",
    "out",
    "quiet",
    "resume",
    "tensorboard",
    "threads",
    "timeout",
    "workers",
}


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
        raise ValueError(
            f"configuration {path} cannot be read as JSON ({error}); expected a file such as the config.json of a run."
        ) from None
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
    return [f"--{flag}", *map(str, values)] if values else []
