"""Texts by name: what is in which part, and what is refused."""

from __future__ import annotations

import json
import sysconfig
from pathlib import Path

import pytest

from interlocking_backprop.text import load_text
from tests.text.made import documents, write_texts

PARTS = ("train", "validation", "test")


@pytest.mark.parametrize("vocabulary", ["bytes", "bpe:300"])
def test_parts_share_no_file_and_lose_none(tmp_path, vocabulary):
    texts = write_texts(tmp_path / "in")
    data = load_text(f"text:{tmp_path}/in", tmp_path, context=16, vocabulary=vocabulary, test_fraction=0.1)
    parts = [documents(data, part) for part in PARTS]
    assert [len(part) for part in parts] == [34, 2, 4]
    assert sorted(text for part in parts for text in part) == sorted(texts.values())
    assert parts[0] == [text for _, text in sorted(texts.items()) if text in parts[0]]
    for part, found in zip(PARTS, parts, strict=True):
        assert getattr(data, part).n_bytes == sum(len(text.encode()) + 1 for text in found)


def test_seed_and_path_decide_what_is_held_out(tmp_path):
    write_texts(tmp_path / "in")
    write_texts(tmp_path / "elsewhere")
    held_out = [
        documents(load_text(f"text:{tmp_path}/{folder}", tmp_path, context=16, seed=seed), "test")
        for folder, seed in (("in", 0), ("elsewhere", 0), ("in", 1))
    ]
    assert held_out[0] == held_out[1] != held_out[2]


def test_a_new_file_moves_hardly_any_other(tmp_path):
    write_texts(tmp_path / "in", n=100)
    name = f"text:{tmp_path}/in"
    before = {part: documents(load_text(name, tmp_path, context=16), part) for part in PARTS}
    (tmp_path / "in" / "new.txt").write_text("new")
    after = {part: documents(load_text(name, tmp_path, context=16), part) for part in PARTS}
    moved = sum(text not in after[part] for part in PARTS for text in before[part])
    assert moved <= 2


def test_one_file_is_held_out_at_its_end_and_cut_behind_lines(tmp_path):
    path = tmp_path / "all.txt"
    text = "".join(f"line {i} façade\n" for i in range(200))
    path.write_text(text, encoding="utf-8")
    data = load_text(f"text:{path}", tmp_path, context=16, vocabulary="bpe:270", validation_fraction=0.1)
    parts = [documents(data, part)[0] for part in PARTS]
    assert "".join(parts) == text
    assert all(part.endswith("\n") for part in parts)
    assert [len(part) / len(text) for part in parts] == pytest.approx([0.85, 0.1, 0.05], abs=0.01)


@pytest.mark.parametrize("character", ["数", "🙂", "é"])
def test_a_line_without_end_is_cut_between_characters(tmp_path, character):
    path = tmp_path / "all.txt"
    path.write_text(character * 5001, encoding="utf-8")
    data = load_text(f"text:{path}", tmp_path, context=16, vocabulary="bpe:258")
    assert "".join(documents(data, part)[0] for part in PARTS) == character * 5001


def test_two_files_are_cut_each(tmp_path):
    texts = write_texts(tmp_path / "in", n=2, n_lines=100)
    data = load_text(f"text:{tmp_path}/in", tmp_path, context=16)
    parts = [documents(data, part) for part in PARTS]
    assert ["".join(pieces) for pieces in zip(*parts, strict=True)] == list(texts.values())


def test_hidden_and_empty_files_and_dangling_links_are_left_out(tmp_path):
    texts = write_texts(tmp_path / "in", n=5)
    for name in (".hidden", "empty", ".git/config"):
        path = tmp_path / "in" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("" if name == "empty" else "secret")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "nowhere")
    data = load_text(f"text:{tmp_path}/in", tmp_path, context=16)
    assert sorted(text for part in PARTS for text in documents(data, part)) == sorted(texts.values())


def test_standard_library(tmp_path):
    data = load_text("stdlib", tmp_path, context=256)
    assert data.vocabulary_size == 257
    n_bytes = [getattr(data, part).n_bytes for part in PARTS]
    assert sum(n_bytes) > 5_000_000
    assert all(0.01 < n / sum(n_bytes) < 0.15 for n in n_bytes[1:])
    text = "".join(document for part in PARTS for document in documents(data, part))
    root = Path(sysconfig.get_path("stdlib"))
    for name, is_there in (("heapq.py", True), ("json/decoder.py", True), ("encodings/cp037.py", False)):
        assert ((root / name).read_text(encoding="utf-8") in text) is is_there, name


def write_hub(folder: Path, **splits: int) -> None:
    folder.mkdir()
    for split, n in splits.items():
        rows = [{"title": "no", "n": i, "text": f"{split} {i}" if i else ""} for i in range(n)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize(
    ("splits", "expected"),
    [
        ({"train": 41}, {"train": 37, "validation": 2, "test": 2}),
        ({"train": 41, "test": 6}, {"train": 39, "validation": 2, "test": 6}),
        ({"train": 41, "validation": 6}, {"train": 39, "validation": 2, "test": 6}),
        ({"train": 41, "validation": 5, "test": 6}, {"train": 41, "validation": 5, "test": 6}),
    ],
)
def test_sets_of_the_hub_keep_the_parts_they_have(tmp_path, splits, expected):
    write_hub(tmp_path / "set", **splits)
    data = load_text(f"hub:{tmp_path}/set", tmp_path, context=16)
    found = {part: documents(data, part) for part in PARTS}
    rows = [text for part in found.values() for text in part]
    assert sorted(rows) == sorted(f"{split} {i}" for split, n in splits.items() for i in range(1, n))
    empty = len(splits)
    assert sum(expected.values()) - sum(map(len, found.values())) == empty
    assert all(0 <= expected[part] - len(found[part]) <= 1 for part in PARTS)
    if "test" in splits:
        assert found["test"] == [f"test {i}" for i in range(1, 6)]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("shakespeare", "text 'shakespeare' is not known; expected stdlib .* text:PATH"),
        ("text:", "text 'text:' is not known"),
        ("text:/no/such/file", "there is no /no/such/file; expected a file of text"),
        ("hub:/no/such/set", "hub:/no/such/set cannot be loaded"),
    ],
)
def test_names_that_are_not_known(tmp_path, name, message):
    with pytest.raises(ValueError, match=message):
        load_text(name, tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"context": 0}, "context is 0"),
        ({"context": 10_000_000}, "tokens to train on; expected at least one window, context is 10000000"),
        ({"vocabulary": "words"}, "vocabulary is 'words'; expected 'bytes', or 'bpe:N'"),
        ({"vocabulary": "bpe:257"}, "vocabulary is 'bpe:257'; .* more than 257"),
        ({"validation_fraction": 0}, "validation_fraction is 0"),
        ({"test_fraction": 1.0}, "test_fraction is 1.0"),
        ({"test_fraction": 0.6, "validation_fraction": 0.5}, "leave nothing to train on"),
        ({"test_fraction": 0.5, "validation_fraction": 0.49}, "the train part of text:.* has no text"),
    ],
)
def test_options_out_of_range(tmp_path, options, message):
    write_texts(tmp_path / "in", n=3)
    with pytest.raises(ValueError, match=message):
        load_text(f"text:{tmp_path}/in", tmp_path, **options)


def test_an_empty_folder(tmp_path):
    (tmp_path / "in").mkdir()
    with pytest.raises(ValueError, match="there are no files below"):
        load_text(f"text:{tmp_path}/in", tmp_path)


def test_bytes_that_are_no_text_are_for_the_vocabulary_of_bytes_alone(tmp_path):
    write_texts(tmp_path / "in")
    (tmp_path / "in" / "a" / "x.bin").write_bytes(b"abc\xff\x00")
    name = f"text:{tmp_path}/in"
    with pytest.raises(ValueError, match=r"a.x\.bin is not text in UTF-8 \(byte 0xff at 3\); .* vocabulary 'bytes'"):
        load_text(name, tmp_path, context=16, vocabulary="bpe:300")
    assert any("abc" in text for part in PARTS for text in documents(load_text(name, tmp_path, context=16), part))


def test_a_file_that_cannot_be_read(tmp_path, monkeypatch):
    write_texts(tmp_path / "in")

    def denied(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", denied)
    with pytest.raises(ValueError, match=r"\.txt cannot be read \(Permission denied\)"):
        load_text(f"text:{tmp_path}/in", tmp_path)
