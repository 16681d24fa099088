"""Image folders, and data sets that the `datasets` library loads."""

from __future__ import annotations

import pickle
import sys

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from interlocking_backprop.data import batches, load_data
from interlocking_backprop.data.preparation import GREY, IMAGENET
from tests.data.made import random_bytes, read_all, write_folder, write_image


def normalised(pixels: np.ndarray) -> torch.Tensor:
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (IMAGENET.mean, IMAGENET.std))
    return (torch.from_numpy(pixels).permute(2, 0, 1) / 255 - mean) / std


def test_folder(tmp_path):
    write_folder(tmp_path)
    data = load_data(f"folder:{tmp_path}")
    assert (len(data.train), len(data.validation), len(data.test)) == (17, 1, 18)
    assert (data.n_classes, data.sample_shape) == (3, (3, 20, 20))
    x, y = read_all(data.test)
    assert y.tolist() == [0] * 6 + [1] * 6 + [2] * 6
    for i, seed in enumerate([100, 101, 102, 103, 104, 105, 110]):
        torch.testing.assert_close(x[i], normalised(random_bytes(20, 20, 3, seed=seed)))
    x, y = read_all(data.train, shuffle=True)
    assert (x.dtype, y.dtype, x.is_contiguous()) == (torch.float32, torch.int64, True)


def test_own_validation_set_is_used(tmp_path):
    write_folder(tmp_path, n=3, parts=("train", "validation", "test"))
    data = load_data(f"folder:{tmp_path}", validation_fraction=0.5)
    assert (len(data.train), len(data.validation), len(data.test)) == (9, 9, 9)
    torch.testing.assert_close(read_all(data.validation)[0][0], normalised(random_bytes(20, 20, 3, seed=100)))


def test_without_a_test_set_the_validation_set_is_one(tmp_path):
    write_folder(tmp_path, n=4, parts=("train", "val"))
    data = load_data(f"folder:{tmp_path}", validation_fraction=0.25)
    assert (len(data.train), len(data.validation), len(data.test)) == (9, 3, 12)
    torch.testing.assert_close(read_all(data.test)[0][0], normalised(random_bytes(20, 20, 3, seed=100)))
    assert sorted([*data.train.rows.tolist(), *data.validation.rows.tolist()]) == list(range(12))


def test_grey_stays_one_channel(tmp_path):
    write_folder(tmp_path, mode="L")
    data = load_data(f"folder:{tmp_path}")
    assert data.sample_shape == (1, 20, 20)
    expected = (torch.from_numpy(random_bytes(20, 20, seed=100)) / 255 - GREY.mean[0]) / GREY.std[0]
    torch.testing.assert_close(read_all(data.test)[0][0, 0], expected)


def test_a_grey_image_among_coloured_ones_becomes_coloured(tmp_path):
    write_folder(tmp_path)
    write_image(tmp_path / "train" / "ant" / "0.png", 20, 20, "L")
    data = load_data(f"folder:{tmp_path}")
    assert read_all(data.train)[0].shape == (17, 3, 20, 20)


@pytest.mark.parametrize("size", [16, 64])
@pytest.mark.parametrize("augment", [True, False])
def test_images_of_different_sizes(tmp_path, size, augment):
    write_folder(tmp_path, grow=7)
    data = load_data(f"folder:{tmp_path}", image_size=size, augment=augment)
    assert data.sample_shape == (3, size, size)
    for split in (data.train, data.validation, data.test):
        x, _ = read_all(split, shuffle=True)
        assert x.shape[1:] == (3, size, size)
        assert x.is_contiguous()
    first, second, other = (read_all(data.train, seed=seed)[0] for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert torch.equal(first, other) is not augment


def test_images_of_different_sizes_ask_for_a_size(tmp_path):
    write_folder(tmp_path, grow=7)
    with pytest.raises(
        ValueError, match=r"different sizes \(height x width 20 x 41, 27 x 48, 34 x 55 …\).*--image-size"
    ):
        load_data(f"folder:{tmp_path}")


def test_a_test_image_of_another_size_asks_for_a_size(tmp_path):
    write_folder(tmp_path)
    write_image(tmp_path / "test" / "bee" / "3.png", 21, 20)
    data = load_data(f"folder:{tmp_path}")
    with pytest.raises(ValueError, match=r"20 x 20, 21 x 20.*--image-size"):
        read_all(data.test)


def test_workers_do_not_change_the_batches(tmp_path):
    write_folder(tmp_path, grow=7)
    split = load_data(f"folder:{tmp_path}", image_size=64).train
    state = torch.get_rng_state()
    here, there = (list(batches(split, 5, shuffle=True, num_workers=n)) for n in (0, 2))
    assert torch.equal(torch.get_rng_state(), state)
    for (x, y), (x2, y2) in zip(here, there, strict=True):
        assert torch.equal(x, x2)
        assert torch.equal(y, y2)


def test_images_that_are_not_square_stay_so(tmp_path):
    for part in ("train", "test"):
        for name in ("a", "b"):
            for i in range(5):
                write_image(tmp_path / part / name / f"{i}.png", 12, 20)
    data = load_data(f"folder:{tmp_path}")
    assert data.sample_shape == (3, 12, 20)
    for split in (data.train, data.validation, data.test):
        assert read_all(split)[0].shape[1:] == (3, 12, 20)


def test_splits_can_be_sent_to_another_process(tmp_path):
    write_folder(tmp_path, grow=7)
    split = load_data(f"folder:{tmp_path}", image_size=64).train
    assert torch.equal(read_all(pickle.loads(pickle.dumps(split)))[0], read_all(split)[0])


def test_a_folder_with_the_letters_of_a_pattern_in_its_name(tmp_path):
    write_folder(tmp_path / "my [set]*", n=2)
    assert len(load_data(f"folder:{tmp_path}/my [set]*", validation_fraction=0.5).test) == 6


def test_a_broken_image_is_named(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "test" / "bee" / "3.png").write_bytes(b"no picture")
    data = load_data(f"folder:{tmp_path}")
    with pytest.raises(ValueError, match=r"image 9 of the test split \(.*bee/3\.png\) cannot be read"):
        read_all(data.test)


def test_16_bit_images_are_refused(tmp_path):
    write_folder(tmp_path)
    Image.fromarray(np.full((20, 20), 40_000, dtype=np.uint16)).save(tmp_path / "test" / "ant" / "0.png")
    with pytest.raises(ValueError, match="pixel format 'I;16'; expected 8 bits"):
        read_all(load_data(f"folder:{tmp_path}").test)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((), "in no split; expected them in train"),
        (("train",), "in train; expected them in train, and in test or validation"),
        (("test",), "in test; expected"),
    ],
)
def test_folders_are_missing(tmp_path, parts, message):
    write_folder(tmp_path, n=2, parts=parts)
    with pytest.raises(ValueError, match=message):
        load_data(f"folder:{tmp_path}")


def test_no_folder(tmp_path):
    with pytest.raises(ValueError, match=r"there is no folder .*absent; expected one with train/CLASS"):
        load_data(f"folder:{tmp_path}/absent")


def test_folders_without_images(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(ValueError, match="cannot be loaded") as caught:
        load_data(f"folder:{tmp_path}")
    assert caught.value.__cause__ is None


def test_folders_without_classes(tmp_path):
    write_image(tmp_path / "train" / "0.png", 8, 8)
    write_image(tmp_path / "test" / "a" / "0.png", 8, 8)
    with pytest.raises(ValueError, match="each class has a folder of its own"):
        load_data(f"folder:{tmp_path}")


def write_parquet(path, n, *, label="fine_label", secret=False):
    features = datasets.Features(
        {
            "img": datasets.Image(),
            "coarse_label": datasets.ClassLabel(names=["a", "b"]),
            label: datasets.ClassLabel(names=["x", "y", "z"]),
        }
    )
    rows = {
        "img": [Image.fromarray(random_bytes(9, 9, 3, seed=i)) for i in range(n)],
        "coarse_label": [0] * n,
        label: [-1 if secret else i % 3 for i in range(n)],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_dict(rows, features=features).to_parquet(path)


def test_hub_finds_columns_by_their_types(tmp_path):
    for part, n in (("train", 20), ("test", 6)):
        write_parquet(tmp_path / "data" / f"{part}-00000-of-00001.parquet", n)
    data = load_data(f"hub:{tmp_path}")
    assert (len(data.train), len(data.validation), len(data.test)) == (18, 2, 6)
    assert (data.n_classes, data.sample_shape) == (3, (3, 9, 9))
    x, y = read_all(data.test)
    assert y.tolist() == [0, 1, 2, 0, 1, 2]
    torch.testing.assert_close(x[5], normalised(random_bytes(9, 9, 3, seed=5)))


def test_hub_test_set_without_labels_is_not_used(tmp_path):
    for part, n in (("train", 20), ("validation", 6), ("test", 5)):
        write_parquet(tmp_path / "data" / f"{part}-00000-of-00001.parquet", n, secret=part == "test")
    data = load_data(f"hub:{tmp_path}")
    assert (len(data.train), len(data.validation), len(data.test)) == (18, 2, 6)


def test_hub_labels_as_plain_numbers(tmp_path):
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int32")})
    for part, values in (("train", [0, 1, 2, 3]), ("test", [1, 0])):
        rows = {"image": [Image.fromarray(random_bytes(9, 9)) for _ in values], "label": values}
        datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / f"{part}.parquet")
    data = load_data(f"hub:{tmp_path}", validation_fraction=0.5)
    assert data.n_classes == 4
    assert data.sample_shape == (1, 9, 9)
    assert read_all(data.test)[1].tolist() == [1, 0]


def test_hub_without_image_column(tmp_path):
    for part in ("train", "test"):
        datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]}).to_parquet(tmp_path / f"{part}.parquet")
    with pytest.raises(ValueError, match=r"train split has the columns .*'text'.*; expected one of images"):
        load_data(f"hub:{tmp_path}")


def test_hub_out_of_reach():
    with pytest.raises(ValueError, match=r"hub:no-one/nothing cannot be loaded .*Check the name") as caught:
        load_data("hub:no-one/nothing")
    assert caught.value.__suppress_context__


def test_library_is_missing(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r"pip install 'interlocking-backprop\[hub\]'"):
        load_data("hub:no-one/nothing")
