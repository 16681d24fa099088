"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009): colour images of 32 x 32 pixels, from their binary version.

A file is records without a header: one label byte (CIFAR-100: a coarse one, then the fine one that is used here), then
3,072 bytes of pixels, channel by channel and row by row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from interlocking_backprop.data.find_files import find_files
from interlocking_backprop.data.in_memory import Labelled, memory_data
from interlocking_backprop.data.preparation import CIFAR10, CIFAR100, Normalisation
from interlocking_backprop.data.split import Data, Options

_SHAPE = (3, 32, 32)
_N_PIXEL_BYTES = 3 * 32 * 32


@dataclass(frozen=True)
class _Variant:
    folder: str
    train_files: tuple[str, ...]
    test_file: str
    n_classes: int
    n_label_bytes: int  # the last one counts
    normalisation: Normalisation
    remedy: str


_VARIANTS = {
    "cifar10": _Variant(
        "cifar-10-batches-bin",
        tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
        "test_batch.bin",
        n_classes=10,
        n_label_bytes=1,
        normalisation=CIFAR10,
        remedy="Unpack cifar-10-binary.tar.gz into the data root, or take hub:uoft-cs/cifar10.",
    ),
    "cifar100": _Variant(
        "cifar-100-binary",
        ("train.bin",),
        "test.bin",
        n_classes=100,
        n_label_bytes=2,
        normalisation=CIFAR100,
        remedy="Unpack cifar-100-binary.tar.gz into the data root, or take hub:uoft-cs/cifar100.",
    ),
}


def load_cifar(name: str, root: Path, options: Options) -> Data:
    """``cifar10`` or ``cifar100`` from the folder that its archive unpacks to, in ``root``, or from ``root`` itself.

    Raises:
        ValueError: if a file is missing or is not what it should be.
    """
    variant = _VARIANTS[name]
    names = (*variant.train_files, variant.test_file)
    paths = find_files(name, (root / variant.folder, root), names, "", variant.remedy)
    train, test = _read(paths[:-1], variant), _read(paths[-1:], variant)
    return memory_data(name, train, test, variant.normalisation, variant.n_classes, options)


def _read(paths: Sequence[Path], variant: _Variant) -> Labelled:
    n_record = variant.n_label_bytes + _N_PIXEL_BYTES
    parts = []
    for path in paths:
        content = bytearray(path.read_bytes())
        if not content or len(content) % n_record:
            raise ValueError(
                f"{path} holds {len(content)} bytes; expected a multiple of {n_record}, the length of a record; it may "
                f"be cut short. {variant.remedy}"
            )
        records = torch.frombuffer(content, dtype=torch.uint8).view(-1, n_record)
        label = int(records[:, variant.n_label_bytes - 1].max())
        if label >= variant.n_classes:
            raise ValueError(
                f"{path} holds the label {label}; expected 0 to {variant.n_classes - 1}: it is not a file of this data "
                f"set, or damaged. {variant.remedy}"
            )
        parts.append(records)
    records = torch.cat(parts)
    images = records[:, variant.n_label_bytes :].reshape(-1, *_SHAPE)
    return Labelled(images, records[:, variant.n_label_bytes - 1].long())
