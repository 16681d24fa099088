"""CIFAR's binary files: what they hold, and what is said of broken ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from interlocking_backprop.data import load_data
from interlocking_backprop.data.preparation import CIFAR100
from tests.data.made import labels, random_bytes, read_all

CIFAR10_FILES = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]


def write_cifar10(folder: Path, n: int = 4) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(CIFAR10_FILES):
        records = np.concatenate([labels(n)[:, None], random_bytes(n, 3072, seed=seed)], axis=1)
        (folder / name).write_bytes(records.tobytes())


def write_cifar100(folder: Path, n: int = 30) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(("train.bin", "test.bin")):
        coarse, fine = labels(n, 20)[:, None], (labels(n, 100) + 60)[:, None]
        (folder / name).write_bytes(np.concatenate([coarse, fine, random_bytes(n, 3072, seed=seed)], axis=1).tobytes())


@pytest.mark.parametrize("folder", ["cifar-10-batches-bin", "."])
def test_cifar10(tmp_path, folder):
    write_cifar10(tmp_path / folder)
    data = load_data("cifar10", tmp_path)
    assert (len(data.train), len(data.validation), len(data.test)) == (18, 2, 4)
    assert (data.n_classes, data.sample_shape) == (10, (3, 32, 32))
    x, y = read_all(data.test)
    mean = torch.tensor([0.4914, 0.4822, 0.4465]).view(3, 1, 1)
    std = torch.tensor([0.2460, 0.2411, 0.2576]).view(3, 1, 1)
    torch.testing.assert_close(x, (torch.from_numpy(random_bytes(4, 3, 32, 32, seed=5)) / 255 - mean) / std)
    assert y.tolist() == [0, 1, 2, 3]
    stored = np.concatenate([random_bytes(4, 3, 32, 32, seed=seed) for seed in range(5)])
    assert np.array_equal(data.train.samples.images.numpy(), stored)


@pytest.mark.parametrize("folder", ["cifar-100-binary", "."])
def test_cifar100_has_the_fine_labels(tmp_path, folder):
    write_cifar100(tmp_path / folder)
    data = load_data("cifar100", tmp_path)
    assert (len(data.train), len(data.validation), len(data.test)) == (27, 3, 30)
    assert (data.n_classes, data.sample_shape) == (100, (3, 32, 32))
    x, y = read_all(data.test)
    assert y.tolist() == list(range(60, 90))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (CIFAR100.mean, CIFAR100.std))
    torch.testing.assert_close(x, (torch.from_numpy(random_bytes(30, 3, 32, 32, seed=1)) / 255 - mean) / std)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cifar10", ("cifar-10-batches-bin or", "data_batch_1.bin, ", "cifar-10-binary.tar.gz", "hub:uoft-cs/cifar10")),
        ("cifar100", ("cifar-100-binary or", "train.bin, test.bin", "cifar-100-binary.tar.gz", "hub:uoft-cs/cifar100")),
    ],
)
def test_no_files(tmp_path, name, words):
    with pytest.raises(ValueError, match="found no files in") as caught:
        load_data(name, tmp_path)
    for word in words:
        assert word in str(caught.value)


def test_a_file_is_missing(tmp_path):
    write_cifar10(tmp_path)
    (tmp_path / "data_batch_3.bin").unlink()
    with pytest.raises(ValueError, match=r"has no data_batch_3\.bin beside"):
        load_data("cifar10", tmp_path)


@pytest.mark.parametrize("keep", [0, 3072, 3 * 3073 - 1])
def test_a_file_is_cut_short(tmp_path, keep):
    write_cifar10(tmp_path)
    path = tmp_path / "data_batch_2.bin"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=rf"data_batch_2\.bin holds {keep} bytes; expected a multiple of 3073"):
        load_data("cifar10", tmp_path)


def test_labels_out_of_range(tmp_path):
    write_cifar10(tmp_path)
    path = tmp_path / "test_batch.bin"
    path.write_bytes(b"\x0b" + path.read_bytes()[1:])
    with pytest.raises(ValueError, match=r"test_batch\.bin holds the label 11; expected 0 to 9"):
        load_data("cifar10", tmp_path)
