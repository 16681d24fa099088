"""A part of a data set hands out whole batches, keyed, so that a batch depends on its key and on nothing else.

Images and augmentation are cheapest on whole batches, and a batch whose random numbers follow from its place in the
training run comes out the same in another process or after a restart. So a sampler does not ask for samples one by one
but makes a `BatchRequest`, and a `Split` answers it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class BatchRequest(NamedTuple):
    """What a sampler hands to a split.

    Attributes:
        seed: of the augmentation of this batch.
        indices: of the samples in the split.
    """

    seed: int
    indices: list[int]


class Split(Protocol):
    """A part of a data set that is read in batches.

    A ``DataLoader`` calls ``__getitems__`` with whatever its batch sampler yields.
    """

    def __len__(self) -> int:
        """The number of samples."""

    def __getitems__(self, request: BatchRequest) -> tuple[Tensor, Tensor]:
        """Inputs (N, C, H, W), float32, normalised and contiguous, and targets (N,), int64."""


@dataclass(frozen=True)
class Data:
    """A data set for classification, ready for training.

    Attributes:
        name: as it was asked for.
        train: with augmentation, if that was asked for; the other two never have it.
        validation: what choices are made by.
        test: what results are reported on.
        n_classes: targets are 0 … n_classes - 1.
        sample_shape: (channels, height, width) of every input.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    n_classes: int
    sample_shape: tuple[int, ...]


@dataclass(frozen=True)
class Options:
    """What `load_data` lets its user choose, for any data set.

    Attributes:
        validation_fraction: share of the training set that is held out where the data set has no validation set.
        augment: whether training images are flipped, cropped and so on.
        image_size: side of the square that images are resized to; None keeps them as they are.
        seed: of the choice of validation samples.

    Raises:
        ValueError: if a value is out of its range.
    """

    validation_fraction: float = 0.1
    augment: bool = True
    image_size: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.validation_fraction < 1:
            raise ValueError(
                f"validation_fraction is {self.validation_fraction!r}; expected a share of the training set between 0 "
                "and 1, both excluded."
            )
        size = self.image_size
        if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
            raise ValueError(f"image_size is {size!r}; expected a whole number of pixels, at least 1, or None.")


def hold_out(n_samples: int, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of the samples to train on and of those to validate on.

    These are the samples that ``torch.utils.data.random_split`` would choose, so CIFAR-10 with a fraction of 0.1 and
    seed 0 is validated on the images that Gomez et al.'s published example is.

    Raises:
        ValueError: if one of the two would be empty.
    """
    n_held_out = math.floor(n_samples * fraction)
    if not 0 < n_held_out < n_samples:
        raise ValueError(
            f"validation_fraction {fraction:g} of {n_samples} training samples is {n_held_out}; expected at least one "
            "sample to validate on and one to train on. Choose another fraction."
        )
    order = torch.randperm(n_samples, generator=torch.Generator().manual_seed(seed))
    return order[: n_samples - n_held_out], order[n_samples - n_held_out :]
