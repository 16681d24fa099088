"""Data sets that fit into memory: uint8 images, four times smaller than floats, made floats batch by batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from interlocking_backprop.data.preparation import Normalisation, Preparation, preparations
from interlocking_backprop.data.split import BatchRequest, Data, Options, hold_out


@dataclass(frozen=True, eq=False)
class Labelled:
    """Images, uint8 (N, C, H, W), and their labels, int64 (N,)."""

    images: Tensor
    labels: Tensor


@dataclass(frozen=True, eq=False)
class MemorySplit:
    """Some samples of images in memory.

    Attributes:
        samples: may be shared with other splits.
        rows: which of the samples are in this split, int64.
        preparation: makes batches out of images.
    """

    samples: Labelled
    rows: Tensor
    preparation: Preparation

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, request: BatchRequest) -> tuple[Tensor, Tensor]:
        rows = self.rows[request.indices]
        return self.preparation(self.samples.images[rows], request.seed), self.samples.labels[rows]


def memory_data(
    name: str, train: Labelled, test: Labelled, normalisation: Normalisation, n_classes: int, options: Options
) -> Data:
    """A data set that comes as a training and a test set: part of the training set becomes the validation set."""
    channels, height, width = train.images.shape[1:]
    for_training, for_evaluation = preparations(normalisation, height, width, options)
    kept, held_out = hold_out(len(train.labels), options.validation_fraction, options.seed)
    size = options.image_size
    return Data(
        name,
        train=MemorySplit(train, kept, for_training),
        validation=MemorySplit(train, held_out, for_evaluation),
        test=MemorySplit(test, torch.arange(len(test.labels)), for_evaluation),
        n_classes=n_classes,
        sample_shape=(channels, height, width) if size is None else (channels, size, size),
    )
