"""Fashion-MNIST (Xiao et al., 2017): 60,000 and 10,000 grey images of 28 x 28 pixels in 10 classes, as IDX files.

An IDX file is a big-endian header (two zero bytes, the type, the number of dimensions, then each dimension in four
bytes) and the values, row by row; here the type is always 8, unsigned bytes.
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import torch
from torch import Tensor

from interlocking_backprop.data.find_files import find_files
from interlocking_backprop.data.in_memory import Labelled, memory_data
from interlocking_backprop.data.preparation import FASHION_MNIST
from interlocking_backprop.data.split import Data, Options

N_CLASSES = 10
FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_REMEDY = "Run `make fashion-mnist`, or take hub:zalando-datasets/fashion_mnist."


def load_fashion_mnist(root: Path, options: Options) -> Data:
    """The data set from ``root/fashion-mnist`` or ``root``, files gzipped or not.

    Raises:
        ValueError: if a file is missing or is not what it should be.
    """
    paths = find_files("fashion-mnist", (root / "fashion-mnist", root), FILES, ".gz", _REMEDY)
    train, test = _read_labelled(*paths[:2]), _read_labelled(*paths[2:])
    if train.images.shape[1:] != test.images.shape[1:]:
        raise ValueError(
            f"{paths[2]}: images of {tuple(test.images.shape[2:])} pixels; expected {tuple(train.images.shape[2:])}, "
            f"the size of those in {paths[0]}. {_REMEDY}"
        )
    return memory_data("fashion-mnist", train, test, FASHION_MNIST, N_CLASSES, options)


def read_idx(path: Path, n_dimensions: int) -> Tensor:
    """Reads an IDX file of unsigned bytes, gzipped if its name ends in .gz.

    Raises:
        ValueError: if it cannot be read, has another magic number or is not as long as its header says.
    """
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be read ({error}); it may be cut short. {_REMEDY}") from None
    magic = bytes((0, 0, 8, n_dimensions))
    if content[:4] != magic:
        raise ValueError(
            f"{path} begins with {content[:4].hex() or 'nothing'}; expected {magic.hex()}, the magic number of an IDX "
            f"file of bytes in {n_dimensions} dimension(s). {_REMEDY}"
        )
    n_header = 4 + 4 * n_dimensions
    shape = [int.from_bytes(content[i : i + 4], "big") for i in range(4, n_header, 4)]
    expected = n_header + math.prod(shape)
    if len(content) != expected:
        raise ValueError(
            f"{path} holds {len(content)} bytes (unpacked); expected {expected} for its shape {tuple(shape)}. {_REMEDY}"
        )
    if 0 in shape:
        raise ValueError(f"{path} is empty: its shape is {tuple(shape)}. {_REMEDY}")
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=n_header).view(shape)


def _read_labelled(images_path: Path, labels_path: Path) -> Labelled:
    images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
    if len(images) != len(labels):
        raise ValueError(
            f"{labels_path} holds {len(labels)} labels; expected {len(images)}, the number of images in {images_path}. "
            f"{_REMEDY}"
        )
    if labels.max() >= N_CLASSES:
        raise ValueError(f"{labels_path} holds the label {int(labels.max())}; expected 0 to {N_CLASSES - 1}. {_REMEDY}")
    return Labelled(images[:, None], labels.long())
