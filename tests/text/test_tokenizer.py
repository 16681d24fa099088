from __future__ import annotations

import builtins

import numpy as np
import pytest

from interlocking_backprop.text import load_text, tokenizer_from_json
from interlocking_backprop.text.tokenizer import BpeTokenizer, ByteTokenizer
from tests.text.made import write_texts

TEXTS = ["", "the loss", "  two\n\n\ttabs ", "façade 数据 🙂", "<|end|> </s> \x00 \r\n", "never seen: Ω≈ç√∫"]


@pytest.fixture(scope="module")
def bpe(tmp_path_factory) -> BpeTokenizer:
    texts = write_texts(tmp_path_factory.mktemp("text"))
    return BpeTokenizer.train([(name, text.encode()) for name, text in texts.items()], 300)


@pytest.mark.parametrize("text", TEXTS)
def test_any_text_comes_back(bpe, text):
    for tokenizer in (ByteTokenizer(), bpe):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert tokenizer.decode([tokenizer.separator, *ids, tokenizer.separator]) == text
        assert max(ids, default=0) < tokenizer.separator == tokenizer.vocabulary_size - 1
        assert tokenizer.encode_document("a text", text.encode()).tolist() == ids


def test_bytes_are_their_own_ids():
    assert ByteTokenizer().encode("é!") == [0xC3, 0xA9, 0x21]
    assert ByteTokenizer().decode([0xC3, 0x21]) == "\ufffd!"


def test_pairs_are_merged_and_the_vocabulary_has_its_size(bpe):
    assert bpe.vocabulary_size == 300
    text = "façade 数据"  # in the bytes that they take, merged where they come often
    assert len(bpe.encode(text)) < len(text.encode())


def test_a_text_of_few_pairs_makes_a_small_vocabulary():
    assert BpeTokenizer.train([("a", b"ab ab ab")], 1000).vocabulary_size < 262


def test_training_is_deterministic(bpe, tmp_path):
    texts = write_texts(tmp_path)
    again = BpeTokenizer.train([(name, text.encode()) for name, text in texts.items()], 300)
    assert again.to_json() == bpe.to_json()


def test_long_documents_are_encoded_in_pieces(bpe, monkeypatch):
    text = "the loss of a component\n" * 50 + "trains"
    whole = bpe.encode_document("a text", text.encode())
    monkeypatch.setattr("interlocking_backprop.text.tokenizer._PIECE", 100)
    assert bpe.decode(bpe.encode_document("a text", text.encode()).tolist()) == text
    assert np.array_equal(bpe.encode_document("a text", text.encode()), whole)


def test_tokenizers_go_round_through_json(bpe):
    for tokenizer in (ByteTokenizer(), bpe):
        again = tokenizer_from_json(tokenizer.to_json())
        assert type(again) is type(tokenizer)
        assert again.vocabulary_size == tokenizer.vocabulary_size
        assert again.encode(TEXTS[3]) == tokenizer.encode(TEXTS[3])


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"type": "words"}'])
def test_json_of_something_else(text):
    with pytest.raises(ValueError, match="the tokenizer cannot be read"):
        tokenizer_from_json(text)


def test_without_the_package_the_remedy_is_named(tmp_path, monkeypatch):
    write_texts(tmp_path / "in")
    found = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split(".")[0] == "tokenizers":
            raise ImportError(name)
        return found(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(
        ValueError, match=r"needs the package `tokenizers`.*pip install 'interlocking-backprop\[text\]'"
    ):
        load_text(f"text:{tmp_path}/in", tmp_path, context=16, vocabulary="bpe:300")
    load_text(f"text:{tmp_path}/in", tmp_path, context=16)
