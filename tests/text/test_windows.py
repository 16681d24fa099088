"""Windows: each target is the token that follows, and a batch depends on its key alone."""

from __future__ import annotations

import pickle

import pytest
import torch

from interlocking_backprop.data import batches
from interlocking_backprop.text import TextData, load_text
from interlocking_backprop.text.windows import IGNORED
from tests.text.made import targets, write_texts

CONTEXT = 20


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> TextData:
    folder = tmp_path_factory.mktemp("text")
    write_texts(folder / "in")
    return load_text(f"text:{folder}/in", folder, context=CONTEXT)


def all_tokens(split) -> torch.Tensor:
    return torch.from_numpy(split.tokens.open().astype("int64"))


@pytest.mark.parametrize("part", ["validation", "test"])
def test_every_token_but_the_first_separator_is_a_target_once(data, part):
    split = getattr(data, part)
    assert torch.equal(targets(split), all_tokens(split)[1:])
    assert split.tokens.n_targets == split.n_bytes
    inputs, expected = map(torch.cat, zip(*batches(split, 4), strict=True))
    assert inputs.shape == expected.shape == (len(split), CONTEXT)
    n = split.tokens.n_targets % CONTEXT or CONTEXT
    assert (expected[-1, n:] == IGNORED).all()
    assert (inputs[-1, n:] == data.tokenizer.separator).all()
    assert torch.equal(inputs.flatten()[: split.tokens.n_targets], all_tokens(split)[:-1])


def test_training_windows_are_stretches_of_the_ring(data):
    ring = all_tokens(data.train)[:-1]
    ring = torch.cat([ring, ring[: CONTEXT + 1]])
    stretches = {tuple(window) for window in ring.unfold(0, CONTEXT + 1, 1).tolist()}
    n = 0
    for x, y in batches(data.train, 7, shuffle=True):
        assert (x.dtype, y.dtype) == (torch.int64, torch.int64)
        assert x.is_contiguous()
        assert y.is_contiguous()
        assert torch.equal(x[:, 1:], y[:, :-1])
        assert all((*a, b) in stretches for a, b in zip(x.tolist(), y[:, -1].tolist(), strict=True))
        n += len(x)
    assert n == len(data.train) == data.train.tokens.n_targets // CONTEXT


def test_windows_of_a_batch_do_not_overlap_and_epochs_differ(data):
    whole = [next(iter(batches(data.train, len(data.train), epoch=epoch)))[0] for epoch in range(2)]
    assert not torch.equal(*whole)
    for x in whole:  # one batch, hence one offset: all but what does not fill a window is there, once
        seen = x.flatten().bincount(minlength=257)
        there = all_tokens(data.train)[:-1].bincount(minlength=257)
        assert (seen <= there).all()
        assert there.sum() - seen.sum() < CONTEXT


def test_every_token_comes_at_every_place(data):
    first = {int(x[0, 0]) for epoch in range(200) for x, _ in [next(iter(batches(data.train, 1, epoch=epoch)))]}
    assert first == set(all_tokens(data.train)[:CONTEXT].tolist())


@pytest.mark.parametrize("workers", [0, 2])
def test_the_same_key_gives_the_same_batches_and_a_restart_goes_on(data, workers):
    key = {"seed": 3, "epoch": 1, "shuffle": True}
    reference = list(batches(data.train, 50, **key))
    resumed = list(batches(data.train, 50, **key, start=3, num_workers=workers))
    assert len(resumed) == len(reference) - 3
    for got, expected in zip(resumed, reference[3:], strict=True):
        assert torch.equal(got[0], expected[0])
        assert torch.equal(got[1], expected[1])


def test_splits_travel_to_workers_without_their_tokens(data):
    for split in (data.train, data.validation):
        sent = pickle.dumps(split)
        assert len(sent) < 1000
        assert torch.equal(targets(pickle.loads(sent)), targets(split))


def test_text_does_not_depend_on_the_working_folder(tmp_path, monkeypatch):
    write_texts(tmp_path / "in")
    monkeypatch.chdir(tmp_path)
    split = load_text("text:in", "cache", context=CONTEXT).test
    monkeypatch.chdir("/")
    assert len(targets(split)) == split.tokens.n_targets
