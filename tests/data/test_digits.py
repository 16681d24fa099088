"""The digits' split is for good: it is pinned here."""

from __future__ import annotations

import hashlib

import torch
from sklearn.datasets import load_digits

from interlocking_backprop.data import load_data
from tests.data.made import read_all


def test_the_split_is_fixed():
    data = load_data("digits")
    rows = torch.cat([split.rows for split in (data.train, data.validation, data.test)])
    assert [len(data.train), len(data.validation), len(data.test)] == [1197, 200, 400]
    assert rows.sort().values.tolist() == list(range(1797))
    assert hashlib.sha256(rows.numpy().astype("<i8").tobytes()).hexdigest()[:16] == "486046faa4157041"


def test_classes_are_in_proportion():
    data = load_data("digits")
    shares = torch.bincount(data.train.samples.labels) / 1797
    for split in (data.train, data.validation, data.test):
        counts = torch.bincount(split.samples.labels[split.rows])
        assert (counts - shares * len(split)).abs().max() <= 1.5


def test_values_are_normalised_and_nothing_is_lost():
    data = load_data("digits")
    x, y = read_all(data.train)
    assert data.sample_shape == tuple(x.shape[1:]) == (1, 8, 8)
    assert data.n_classes == 10
    torch.testing.assert_close(x.mean().item(), 0.0, atol=1e-5, rtol=0)
    torch.testing.assert_close(x.std().item(), 1.0, atol=1e-4, rtol=0)
    bunch = load_digits()
    pixels = torch.from_numpy(bunch.data[data.train.rows]).float().view(-1, 1, 8, 8)
    torch.testing.assert_close(x, (pixels - pixels.mean()) / pixels.std(), atol=1e-5, rtol=1e-5)
    assert y.tolist() == bunch.target[data.train.rows].tolist()


def test_options_do_not_touch_the_split():
    data, other = load_data("digits"), load_data("digits", validation_fraction=0.5, seed=3, image_size=16)
    assert torch.equal(data.validation.rows, other.validation.rows)
    assert other.sample_shape == (1, 16, 16)
    assert read_all(other.test)[0].shape == (400, 1, 16, 16)
