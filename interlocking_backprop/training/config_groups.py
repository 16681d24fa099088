"""The groups that a configuration is made of; each is a section of ``ibp train --help``, each field a flag.

The help text breaks lines where the docstrings of fields do, so these break them between sentences.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from interlocking_backprop.common.fields import BELOW_ONE, NOT_NEGATIVE, POSITIVE, Checked, Expected, at_least

_BETWEEN_0_AND_1 = Expected("a number between 0 and 1", lambda value: 0 < value < 1)
_PIXELS = Expected("a positive number of pixels, at most 10000", lambda value: 1 <= value <= 10_000)
_ASCENDING = Expected("ascending epochs", lambda value: bool(value) and list(value) == sorted(value) and value[0] >= 1)
_BELOW_1 = Expected("a number above 0 and below 1", lambda value: 0 < value < 1)
_POWER = Expected("a number from 0 to 10", lambda value: 0 <= value <= 10)
_SECONDS = Expected("a positive number of seconds, at most 1e9", lambda value: 0 < value <= 1e9)
_N_TOKENS = range(258, 1_000_001)
_VOCABULARY = Expected(
    f"'bytes', or 'bpe:N' with N tokens, from {_N_TOKENS[0]} to {_N_TOKENS[-1]}, e.g. 'bpe:4096'",
    lambda value: value == "bytes" or (bool(re.fullmatch("bpe:[0-9]{1,9}", value)) and int(value[4:]) in _N_TOKENS),
)

MOST_BLOCKS = 1000
"""The most blocks of a network; with more, the search for its cut alone would take minutes."""


@dataclass(frozen=True, kw_only=True)
class Network(Checked):
    """Which network is trained, and where it is cut."""

    model: Literal["resnet", "transformer"] = "resnet"
    """Kind of network: resnet for images, transformer for text."""
    heads: Literal["needed", "all"] = "needed"
    """Auxiliary heads: only those whose losses the scheme uses, or one at every exit, the others as probes."""
    blocks_per_component: str = "auto"
    """How many blocks each component gets, e.g. 1,1,rest; auto balances their cost."""


@dataclass(frozen=True, kw_only=True)
class ResNet(Checked):
    """How a ResNet is built."""

    block: Literal["basic", "bottleneck"] = "basic"
    """Kind of block: basic (ResNet-18, -34) or bottleneck (ResNet-50 and deeper)."""
    architecture: str = "auto"
    """Superblocks as [planes],[blocks]/…, e.g. 64,3/128,4/256,6/512,3; auto takes one that suits the data set."""
    aux_architecture: str = "auto"
    """Auxiliary heads, e.g. conv128_bn_conv64_bn_gbpl_fc; auto takes one that suits the data set."""
    stem_stride: Annotated[int, at_least(0, 1000)] = 0
    """Stride of the first convolution for small images; 0 takes one that suits the data set."""


@dataclass(frozen=True, kw_only=True)
class Transformer(Checked):
    """How a Transformer is built."""

    vocabulary: Annotated[str, _VOCABULARY] = "bytes"
    """Tokens: bytes, or bpe:N for a byte-level BPE of N tokens that is trained on the training text."""
    context: Annotated[int, at_least(1)] = 256
    """Most tokens that it sees at once."""
    width: Annotated[int, at_least(1)] = 128
    """Number of channels."""
    depth: Annotated[int, at_least(1, MOST_BLOCKS)] = 8
    """Number of blocks."""
    attention_heads: int = 4
    """Heads of each attention; they divide the width."""
    dropout: Annotated[float, BELOW_ONE] = 0.0
    """Share of values that are dropped in training."""
    positions: Literal["learned", "rotary"] = "learned"
    """How it learns where a token stands: by learned embeddings, or by rotary ones in each attention."""
    aux_rank: Annotated[int, at_least(0)] = 0
    """Auxiliary heads project to the vocabulary through so many channels; 0 for a full projection."""
    tied: bool = False
    """Makes the embedding's weight the projection of the head too.
    First and last component then wait for one another in every step."""
    chunked_loss: bool = True
    """Computes logits a few positions at a time, so that a batch's never are in memory at once."""

    def __post_init__(self) -> None:
        """Checks the fields, by themselves and against one another."""
        super().__post_init__()
        fits = self.attention_heads >= 1 and self.width % self.attention_heads == 0
        self.expect("attention_heads", fits, f"a divisor of the width, {self.width}")


@dataclass(frozen=True, kw_only=True)
class Dataset(Checked):
    """What the network learns from."""

    data: str = "auto"
    """Images: digits (built in), fashion-mnist, cifar10, cifar100, folder:PATH or hub:OWNER/NAME.
    Text: stdlib (the source of Python's standard library), text:PATH (a file or folder) or hub:OWNER/NAME.
    auto takes digits for a ResNet and stdlib for a Transformer."""
    validation_fraction: Annotated[float | None, _BETWEEN_0_AND_1] = None
    """Share of the training set that is held out, where the data set has no validation set of its own.
    The default is 0.1 of images and 0.05 of text."""
    image_size: Annotated[int | None, _PIXELS] = None
    """Height and width to which the images of folders and hub sets are brought, in pixels."""
    augment: bool = True
    """Crops and flips images at random, where the data set has it so."""


@dataclass(frozen=True, kw_only=True)
class Optimization(Checked):
    """How long the network is trained, in which batches, by which optimizer."""

    epochs: Annotated[int, at_least(1)] = 10
    """Passes over the training set; each ends with a validation."""
    epoch_steps: Annotated[int, at_least(0)] = 0
    """Ends each epoch after so many steps, where a pass over the training set is long; 0 for whole passes."""
    max_steps: Annotated[int, at_least(0)] = 0
    """Ends the run after so many steps; 0 for no such limit."""
    batch_size: Annotated[int, at_least(1)] = 128
    """Samples in a batch; windows of the context's length for text."""
    microbatches: Annotated[int, at_least(1)] = 1
    """Parts into which each batch is cut."""
    autocast: Literal["none", "bfloat16"] = "none"
    """Precision of the forward pass and the losses."""
    optimizer: Literal["auto", "sgd", "adamw", "muon"] = "auto"
    """SGD with momentum, AdamW, or Muon for the matrices inside a Transformer and AdamW for all its other weights.
    auto takes SGD for ResNets and AdamW for Transformers."""
    lr: Annotated[float | None, POSITIVE] = None
    """Peak learning rate; by default 0.1 with SGD, 0.001 with AdamW, 0.02 with Muon."""
    adamw_lr: Annotated[float | None, POSITIVE] = None
    """Peak learning rate of the AdamW that stands beside Muon (embeddings, norms, biases, heads); by default 0.001."""
    momentum: Annotated[float, BELOW_ONE] = 0.9
    """Momentum of SGD."""
    nesterov: bool = True
    """Takes Nesterov's momentum for SGD."""
    weight_decay: Annotated[float | None, NOT_NEGATIVE] = None
    """Weight decay; by default 0.0005 with SGD, 0.1 with AdamW and Muon. Biases and normalisation weights have none."""
    aux_lr_factor: Annotated[float | None, POSITIVE] = None
    """Multiplies the learning rate of the auxiliary heads.
    The default is 1 with SGD; under AdamW (and beside Muon, where theirs is AdamW) heads need more than the rest:
    5, and 30 for those of a Transformer."""
    head_lr_factor: Annotated[float, POSITIVE] = 1.0
    """Multiplies the learning rate of the network's own head, its last layer, for comparisons on equal terms."""
    delay_lr_power: Annotated[float, _POWER] = 0.5
    """Where a scheme has ages, component i learns at lr / (1 + D)^p: D is its greatest age, this is p; 0 for lr alike.
    The auxiliary heads, which follow their own losses without delay, are left out."""
    lr_schedule: Literal["cosine", "multistep", "constant", "plateau"] = "cosine"
    """Course of the learning rate after the warm-up: to zero like a cosine, or constant.
    multistep multiplies it by gamma at the milestones, plateau when the validation score no longer improves."""
    warmup_epochs: Annotated[float, NOT_NEGATIVE] = 0.5
    """Epochs over which the learning rate rises linearly; 0 for none. A plateau schedule has none."""
    milestones: Annotated[tuple[int, ...], _ASCENDING] = (91, 136, 182)
    """Epochs after which multistep multiplies the learning rate by gamma."""
    gamma: Annotated[float, _BELOW_1] = 0.1
    """Factor of multistep and plateau."""
    max_grad_norm: Annotated[float, NOT_NEGATIVE] = 0.0
    """Clips each component's gradient, and each head's, to this 2-norm; 0 for no clipping."""


@dataclass(frozen=True, kw_only=True)
class Execution(Checked):
    """With what a run is carried out and how often it reports; nothing here changes what it computes."""

    device: str = "auto"
    """cpu, cuda, cuda:1, …; auto takes an accelerator if there is one: under torchrun that of the local rank.
    With auto a comparison spreads its runs over all of them."""
    threads: Annotated[int, at_least(0, 1024)] = 0
    """CPU threads of PyTorch; 0 leaves its default.
    With 0 a comparison shares the cores out among the runs side by side."""
    workers: Annotated[int, at_least(0, 256)] = 0
    """Processes that read data beside the main one."""
    data_root: Path = Path("data")
    """Where the files of data sets are."""
    log_every: Annotated[int, at_least(1)] = 10
    """Steps between two lines of training metrics."""
    tensorboard: bool = True
    """Writes TensorBoard files beside metrics.jsonl."""


@dataclass(frozen=True, kw_only=True)
class Parallelism(Checked):
    """How components work side by side; nothing here changes what a run computes."""

    devices: tuple[str, ...] = ()
    """Model parallelism in one process: a device for each component, all at work at once, e.g. cuda:0 cuda:1."""
    timeout: Annotated[float, _SECONDS] = 600.0
    """Model parallelism under torchrun: seconds that a rank may wait for another before the run is given up."""


@dataclass(frozen=True, kw_only=True)
class Output(Checked):
    """What a run writes and shows; nothing here changes what it computes."""

    out: Path | None = None
    """Folder of the run; by default runs/[data]-[model]-[scheme]-k[components]-s[seed]."""
    resume: bool = False
    """Goes on with the run in --out."""
    quiet: bool = False
    """Shows no progress."""
    profile: Annotated[int, at_least(0)] = 0
    """Traces so many training steps, after a few that warm up, into the run's trace-rank[rank].json.gz; 0 for none.
    Perfetto (ui.perfetto.dev) and chrome://tracing open it."""
