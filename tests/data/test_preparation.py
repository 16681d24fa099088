"""Normalisation, augmentation and the validation split, on images in memory."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import random_split

from interlocking_backprop.data.preparation import CIFAR10
from interlocking_backprop.data.split import BatchRequest, Options, hold_out
from tests.data.made import memory_set, read_all


def normalised(images):
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (CIFAR10.mean, CIFAR10.std))
    return (images / 255 - mean) / std


def test_evaluation_normalises_and_nothing_else():
    data = memory_set()
    for split in (data.validation, data.test):
        x, y = read_all(split)
        torch.testing.assert_close(x, normalised(split.samples.images[y]))


def test_training_without_augmentation_is_evaluation():
    data = memory_set(augment=False)
    x, y = read_all(data.train, shuffle=True)
    torch.testing.assert_close(x, normalised(data.train.samples.images[y]))


def test_augmentation_is_a_flip_and_a_shift_over_black():
    """Every training image is found among the 2 x 9 x 9 flipped and shifted ones."""
    data = memory_set(n=20)
    x, y = read_all(data.train)
    n_changed = 0
    for image, label in zip(x, y, strict=True):
        stored = data.train.samples.images[label]
        n_changed += not torch.allclose(image, normalised(stored))
        candidates = [
            padded[:, top : top + 32, left : left + 32]
            for padded in (F.pad(flipped, (4, 4, 4, 4)) for flipped in (stored, stored.flip(-1)))
            for top in range(9)
            for left in range(9)
        ]
        assert any(torch.allclose(image, normalised(candidate), atol=1e-5) for candidate in candidates)
    assert n_changed > 10


def test_augmentation_is_keyed_by_the_seed():
    split = memory_set().train
    first = split.__getitems__(BatchRequest(1, [0, 1, 2]))[0]
    assert torch.equal(first, split.__getitems__(BatchRequest(1, [0, 1, 2]))[0])
    assert not torch.equal(first, split.__getitems__(BatchRequest(2, [0, 1, 2]))[0])


def test_splits_can_be_sent_to_another_process():
    split = memory_set().train
    assert torch.equal(read_all(pickle.loads(pickle.dumps(split)))[0], read_all(split)[0])


@pytest.mark.parametrize("augment", [True, False])
def test_image_size_resizes(augment):
    data = memory_set(image_size=24, augment=augment)
    assert data.sample_shape == (3, 24, 24)
    for split in (data.train, data.validation, data.test):
        assert read_all(split)[0].shape[1:] == (3, 24, 24)


def test_validation_samples_are_those_of_random_split():
    """And so those of the reference's example, which calls it with this seed."""
    train, validation = random_split(range(50), [45, 5], generator=torch.Generator().manual_seed(0))
    kept, held_out = hold_out(50, 0.1, seed=0)
    assert kept.tolist() == list(train.indices)
    assert held_out.tolist() == list(validation.indices)


def test_parts_are_disjoint_and_keyed_by_the_seed():
    data = memory_set(validation_fraction=0.3, seed=4)
    assert (len(data.train), len(data.validation), len(data.test)) == (35, 15, 7)
    assert sorted([*data.train.rows.tolist(), *data.validation.rows.tolist()]) == list(range(50))
    assert torch.equal(memory_set(validation_fraction=0.3, seed=4).validation.rows, data.validation.rows)
    assert not torch.equal(memory_set(validation_fraction=0.3, seed=5).validation.rows, data.validation.rows)


@pytest.mark.parametrize("fraction", [0, 1, -0.1, float("nan")])
def test_fraction_out_of_range(fraction):
    with pytest.raises(ValueError, match=r"validation_fraction is .*; expected a share .* between 0 and 1"):
        Options(validation_fraction=fraction)


@pytest.mark.parametrize("size", [0, -1, 2.0, True])
def test_image_size_out_of_range(size):
    with pytest.raises(ValueError, match=r"image_size is .*; expected a whole number of pixels"):
        Options(image_size=size)


def test_too_few_samples_to_hold_any_out():
    with pytest.raises(ValueError, match=r"0\.1 of 5 training samples is 0; expected at least one"):
        hold_out(5, 0.1, seed=0)
