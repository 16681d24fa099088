"""A batch depends on its key (seed, epoch, number) and on nothing else."""

from __future__ import annotations

import random

import pytest
import torch

from interlocking_backprop.data import batches
from tests.data.made import memory_set


def assert_same(first, second) -> None:
    first, second = list(first), list(second)
    assert len(first) == len(second)
    for (x, y), (x2, y2) in zip(first, second, strict=True):
        assert torch.equal(x, x2)
        assert torch.equal(y, y2)


@pytest.fixture(scope="module")
def split():
    return memory_set().train  # 45 samples


def test_every_sample_once_and_the_last_batch_is_kept(split):
    loader = batches(split, 10, shuffle=True)
    sizes = [len(y) for _, y in loader]
    assert sizes == [10, 10, 10, 10, 5]
    assert len(loader) == 5
    seen = torch.cat([y for _, y in loader])
    assert not torch.equal(seen, split.samples.labels[split.rows])
    assert seen.sort().values.equal(split.samples.labels[split.rows].sort().values)


def test_without_shuffling_the_order_is_that_of_the_split(split):
    assert torch.equal(torch.cat([y for _, y in batches(split, 10)]), split.samples.labels[split.rows])


def test_batches_are_what_a_network_takes(split):
    for x, y in batches(split, 10, shuffle=True):
        assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
        assert x.is_contiguous()
        assert x.shape[1:] == (3, 32, 32)


def test_the_same_key_gives_the_same_batches(split):
    assert_same(batches(split, 10, seed=1, epoch=2, shuffle=True), batches(split, 10, seed=1, epoch=2, shuffle=True))


@pytest.mark.parametrize("other", [{"seed": 2}, {"epoch": 1}])
def test_seed_and_epoch_change_order_and_augmentation(split, other):
    (x, y), (x2, y2) = (next(iter(batches(split, 45, shuffle=True, **key))) for key in ({}, other))
    assert not torch.equal(y, y2)
    x, x2 = x[y.argsort()], x2[y2.argsort()]
    assert (x != x2).flatten(1).any(1).sum() > 30


@pytest.mark.parametrize("start", [0, 1, 4, 5])
def test_going_on_in_mid_epoch(split, start):
    loader = batches(split, 10, seed=3, epoch=1, shuffle=True, start=start)
    assert len(loader) == 5 - start
    assert_same(loader, list(batches(split, 10, seed=3, epoch=1, shuffle=True))[start:])


def test_workers_do_not_change_the_batches(split):
    assert_same(batches(split, 10, shuffle=True, num_workers=2), batches(split, 10, shuffle=True))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_global_generators_are_left_alone(split, num_workers):
    torch.manual_seed(5)
    random.seed(5)
    state = torch.get_rng_state()
    reference = list(batches(split, 10, shuffle=True, num_workers=num_workers))
    assert torch.equal(torch.get_rng_state(), state)
    random.seed(6)
    torch.manual_seed(6)
    assert_same(reference, batches(split, 10, shuffle=True))


def test_pinned_memory_without_an_accelerator_has_no_effect(split, recwarn):
    assert_same(batches(split, 10, pin_memory=True), batches(split, 10))
    if not torch.accelerator.is_available():
        assert not recwarn.list


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0; expected a whole number of at least 1"),
        ({"batch_size": 2.5}, "batch_size is 2.5"),
        ({"epoch": -1}, "epoch is -1"),
        ({"start": 6}, "start is 6; expected at most 5"),
        ({"num_workers": -1}, "num_workers is -1"),
    ],
)
def test_numbers_out_of_range(split, options, message):
    with pytest.raises(ValueError, match=message):
        batches(split, **{"batch_size": 10, **options})
