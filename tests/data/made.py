"""Small data sets in the true formats, of random pixels."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from interlocking_backprop.data import Split, batches
from interlocking_backprop.data.in_memory import Labelled, memory_data
from interlocking_backprop.data.preparation import CIFAR10
from interlocking_backprop.data.split import Data, Options


def random_bytes(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def labels(n: int, n_classes: int = 10) -> np.ndarray:
    return (np.arange(n) % n_classes).astype(np.uint8)


def memory_set(n: int = 50, **options) -> Data:
    """Coloured images of 32 x 32 pixels. The label of training image i is i, so that it can be told which one it is."""
    train = Labelled(torch.from_numpy(random_bytes(n, 3, 32, 32)), torch.arange(n))
    test = Labelled(torch.from_numpy(random_bytes(7, 3, 32, 32, seed=1)), torch.arange(7))
    return memory_data("made", train, test, CIFAR10, n, Options(**options))


def write_idx(path: Path, values: np.ndarray) -> None:
    content = bytes((0, 0, 8, values.ndim)) + b"".join(n.to_bytes(4, "big") for n in values.shape) + values.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_fashion_mnist(folder: Path, suffix: str = "", n_train: int = 40, n_test: int = 10) -> None:
    for part, n, seed in (("train", n_train, 0), ("t10k", n_test, 1)):
        write_idx(folder / f"{part}-images-idx3-ubyte{suffix}", random_bytes(n, 28, 28, seed=seed))
        write_idx(folder / f"{part}-labels-idx1-ubyte{suffix}", labels(n))


def write_image(path: Path, height: int, width: int, mode: str = "RGB", seed: int = 0) -> np.ndarray:
    pixels = random_bytes(height, width, 3, seed=seed) if mode == "RGB" else random_bytes(height, width, seed=seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


def write_folder(
    folder: Path,
    n: int = 6,
    parts: tuple[str, ...] = ("train", "test"),
    size: int = 20,
    mode: str = "RGB",
    grow: int = 0,
) -> Path:
    """n images of each of three classes in each part; each is larger than the one before by ``grow``."""
    for p, part in enumerate(parts):
        for c, name in enumerate(("ant", "bee", "test")):  # "test" is a class here
            for i in range(n):
                side = size + i * grow
                write_image(folder / part / name / f"{i}.png", side, side + 3 * grow, mode, seed=100 * p + 10 * c + i)
    return folder


def read_all(split: Split, **options) -> tuple[Tensor, Tensor]:
    pairs = list(batches(split, options.pop("batch_size", 8), **options))
    return torch.cat([x for x, _ in pairs]), torch.cat([y for _, y in pairs])
