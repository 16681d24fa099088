"""Tokens are written once, and again when they have to be."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from interlocking_backprop.text import TextData, load_text
from tests.text.made import targets, write_texts


def load(folder: Path, vocabulary: str = "bytes", **options) -> TextData:
    return load_text(f"text:{folder}/in", folder, context=16, vocabulary=vocabulary, **options)


def caches(folder: Path) -> list[Path]:
    return sorted((folder / "text-cache").iterdir())


def stamps(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for cache in caches(folder) for path in cache.iterdir()}


@pytest.mark.parametrize("vocabulary", ["bytes", "bpe:300"])
def test_a_second_time_nothing_is_written(tmp_path, vocabulary):
    write_texts(tmp_path / "in")
    first = load(tmp_path, vocabulary)
    before = stamps(tmp_path)
    assert {path.name for path in before} == {"train.bin", "validation.bin", "test.bin", "tokenizer.json", "meta.json"}
    second = load(tmp_path, vocabulary)
    assert stamps(tmp_path) == before
    assert targets(first.train).equal(targets(second.train))
    assert second.vocabulary_size == first.vocabulary_size


@pytest.mark.parametrize("change", [{"vocabulary": "bpe:300"}, {"seed": 1}, {"test_fraction": 0.1}])
def test_what_tokens_depend_on_gets_a_cache_of_its_own(tmp_path, change):
    write_texts(tmp_path / "in")
    load(tmp_path)
    load(tmp_path, **change)
    assert len(caches(tmp_path)) == 2


def test_windows_do_not_need_another_cache(tmp_path):
    write_texts(tmp_path / "in")
    load(tmp_path)
    load_text(f"text:{tmp_path}/in", tmp_path, context=30)
    assert len(caches(tmp_path)) == 1


def test_a_changed_file_is_read_again(tmp_path):
    write_texts(tmp_path / "in")
    n_before = load(tmp_path).train.n_bytes
    for path in (tmp_path / "in").rglob("*.txt"):
        path.write_bytes(path.read_bytes() + b"more\n")
    assert load(tmp_path).train.n_bytes == n_before + 36 * 5
    path.write_bytes(path.read_bytes()[:-1] + b"!")  # of the same size, only later
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    load(tmp_path)
    assert len(caches(tmp_path)) == 3


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2])


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("train.bin", truncate),
        ("test.bin", Path.unlink),
        ("meta.json", Path.unlink),
        ("meta.json", lambda path: path.write_text("{")),
        ("meta.json", lambda path: path.write_text(json.dumps({"parts": {"train": {"size": 1}}}))),
        ("tokenizer.json", truncate),
    ],
)
@pytest.mark.parametrize("vocabulary", ["bytes", "bpe:300"])
def test_what_is_cut_short_or_missing_is_made_again(tmp_path, name, spoil, vocabulary):
    write_texts(tmp_path / "in")
    load(tmp_path, vocabulary)
    (folder,) = caches(tmp_path)
    contents = {path.name: path.read_bytes() for path in folder.iterdir()}
    spoil(folder / name)
    load(tmp_path, vocabulary)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == contents


def test_nothing_is_left_of_a_cache_that_could_not_be_made(tmp_path):
    write_texts(tmp_path / "in")
    for path in (tmp_path / "in").rglob("*.txt"):
        path.write_bytes(b"\xff")
    with pytest.raises(ValueError, match="not text in UTF-8"):
        load(tmp_path, "bpe:300")
    assert not (tmp_path / "text-cache").exists()


def test_large_vocabularies_take_four_bytes(tmp_path, monkeypatch):
    write_texts(tmp_path / "in")
    monkeypatch.setattr("interlocking_backprop.text.tokenizer.ByteTokenizer.vocabulary_size", 70_000)
    assert load(tmp_path).train.tokens.dtype == "uint32"
