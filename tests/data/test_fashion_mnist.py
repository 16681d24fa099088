"""IDX files: what they hold, and what is said of broken ones."""

from __future__ import annotations

import gzip

import pytest
import torch

from interlocking_backprop.data import load_data
from interlocking_backprop.data.fashion_mnist import FILES
from tests.data.made import labels, random_bytes, read_all, write_fashion_mnist, write_idx


@pytest.mark.parametrize(
    ("folder", "suffix"), [("fashion-mnist", ".gz"), ("fashion-mnist", ""), (".", ".gz"), (".", "")]
)
def test_reads_the_files(tmp_path, folder, suffix):
    write_fashion_mnist(tmp_path / folder, suffix)
    data = load_data("fashion-mnist", tmp_path)
    assert (len(data.train), len(data.validation), len(data.test)) == (36, 4, 10)
    assert (data.n_classes, data.sample_shape) == (10, (1, 28, 28))
    x, y = read_all(data.test)
    expected = (torch.from_numpy(random_bytes(10, 1, 28, 28, seed=1)) / 255 - 0.2860) / 0.3530
    torch.testing.assert_close(x, expected)
    assert y.tolist() == list(range(10))


def test_two_loads_agree(tmp_path):
    write_fashion_mnist(tmp_path)
    first, second = (read_all(load_data("fashion-mnist", tmp_path).train, shuffle=True) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


def test_no_files(tmp_path):
    with pytest.raises(ValueError, match=r"found no files in .*fashion-mnist or ") as caught:
        load_data("fashion-mnist", tmp_path)
    for words in ("train-images-idx3-ubyte[.gz]", "make fashion-mnist", "hub:zalando-datasets/fashion_mnist"):
        assert words in str(caught.value)


def test_a_file_is_missing(tmp_path):
    write_fashion_mnist(tmp_path)
    (tmp_path / FILES[1]).unlink()
    with pytest.raises(ValueError, match=r"has no train-labels-idx1-ubyte\[\.gz\] beside the other files"):
        load_data("fashion-mnist", tmp_path)


def cut(content: bytes) -> bytes:
    return content[:-5]


@pytest.mark.parametrize("suffix", [".gz", ""])
@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("train-images-idx3-ubyte", cut, "holds 31371 bytes .unpacked.; expected 31376 for its shape .40, 28, 28."),
        ("train-images-idx3-ubyte", lambda c: c + b"x", "holds 31377 bytes"),
        ("train-labels-idx1-ubyte", lambda c: b"\0\0\x0d\1" + c[4:], "begins with 00000d01; expected 00000801"),
        ("t10k-images-idx3-ubyte", lambda _: b"", "begins with nothing; expected 00000803"),
        ("t10k-images-idx3-ubyte", lambda c: c[:9], "holds 9 bytes"),
        ("t10k-labels-idx1-ubyte", lambda c: c[:-1] + b"\x0a", "holds the label 10; expected 0 to 9"),
    ],
)
def test_damaged_files(tmp_path, suffix, name, change, message):
    write_fashion_mnist(tmp_path, suffix)
    path = tmp_path / f"{name}{suffix}"
    if suffix:
        path.write_bytes(gzip.compress(change(gzip.decompress(path.read_bytes()))))
    else:
        path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match=f"{name}.*{message}.*make fashion-mnist"):
        load_data("fashion-mnist", tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"no gzip", gzip.compress(b"x" * 999)[:-12]],
    ids=["not gzip", "cut short"],  # the compressed bytes hold the time; as names they would differ
)
def test_broken_gzip(tmp_path, content):
    write_fashion_mnist(tmp_path, ".gz")
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(content)
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte\.gz cannot be read .*cut short"):
        load_data("fashion-mnist", tmp_path)


def test_files_that_do_not_fit_together(tmp_path):
    write_fashion_mnist(tmp_path)
    write_idx(tmp_path / "train-labels-idx1-ubyte", labels(39))
    with pytest.raises(ValueError, match="holds 39 labels; expected 40"):
        load_data("fashion-mnist", tmp_path)


def test_parts_of_different_sizes(tmp_path):
    write_fashion_mnist(tmp_path)
    write_idx(tmp_path / "t10k-images-idx3-ubyte", random_bytes(10, 27, 28))
    with pytest.raises(ValueError, match=r"images of \(27, 28\) pixels; expected \(28, 28\)"):
        load_data("fashion-mnist", tmp_path)


def test_no_images(tmp_path):
    write_fashion_mnist(tmp_path, n_test=0)
    with pytest.raises(ValueError, match="is empty"):
        load_data("fashion-mnist", tmp_path)
