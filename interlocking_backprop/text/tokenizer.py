"""From text to token ids and back: bytes as they are, or pairs of them merged (byte-level BPE, Sennrich et al., 2016).

Both take any text. The last id of each vocabulary is the separator, which stands before and after every document. It is
not part of the text, and no text is encoded as it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from interlocking_backprop.text.corpus import Documents

if TYPE_CHECKING:
    import tokenizers

Ids = npt.NDArray[np.integer]

_N_BYTES = 256
_PIECE = 1 << 20


class Tokenizer(Protocol):
    """What splits text into tokens.

    Attributes:
        separator: id of the token between documents.
        vocabulary_size: number of ids, the separator counted.
    """

    separator: int
    vocabulary_size: int

    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""

    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids. Separators are left out; bytes that are no character become U+FFFD."""

    def encode_document(self, name: str, content: bytes) -> Ids:
        """Token ids of a whole document.

        Raises:
            ValueError: naming the document, if it cannot be encoded.
        """

    def to_json(self) -> str:
        """What `tokenizer_from_json` makes the same tokenizer of."""


class ByteTokenizer:
    """Each byte of the text in UTF-8 is a token; its id is its value."""

    separator = _N_BYTES
    vocabulary_size = _N_BYTES + 1

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, ids: Iterable[int]) -> str:
        return bytes(i for i in ids if i != self.separator).decode(errors="replace")

    def encode_document(self, name: str, content: bytes) -> Ids:
        return np.frombuffer(content, dtype=np.uint8)

    def to_json(self) -> str:
        return json.dumps({"type": "bytes"})


class BpeTokenizer:
    """Byte-level BPE, by the package `tokenizers`.

    Args:
        bpe: the trained tokenizer, without special tokens.
    """

    def __init__(self, bpe: tokenizers.Tokenizer) -> None:
        self._bpe = bpe
        self.separator: int = bpe.get_vocab_size()
        self.vocabulary_size: int = self.separator + 1

    @classmethod
    def train(cls, documents: Documents, vocabulary_size: int) -> BpeTokenizer:
        """Learns which pairs to merge. The vocabulary stays smaller if the text has too few of them.

        Raises:
            ValueError: if a document is not in UTF-8, or `tokenizers` is missing.
        """
        tokenizers = _tokenizers()
        bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
        bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        bpe.decoder = tokenizers.decoders.ByteLevel()
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=vocabulary_size - 1,
            initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        pieces = (piece for name, content in documents for piece in _pieces(_text(name, content)))
        bpe.train_from_iterator(pieces, trainer)
        return cls(bpe)

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._bpe.encode(text).ids
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        text: str = self._bpe.decode([i for i in ids if i != self.separator])
        return text

    def encode_document(self, name: str, content: bytes) -> Ids:
        encoded = self._bpe.encode_batch(list(_pieces(_text(name, content))))
        return np.concatenate([np.zeros(0, np.int64), *(np.array(one.ids, np.int64) for one in encoded)])

    def to_json(self) -> str:
        text: str = self._bpe.to_str()
        return text


def tokenizer_from_json(text: str) -> Tokenizer:
    """The tokenizer that ``to_json`` was called on.

    Raises:
        ValueError: if the text is none of a tokenizer, or `tokenizers` is needed and missing.
    """
    try:
        if json.loads(text).get("type") == "bytes":
            return ByteTokenizer()
    except (ValueError, AttributeError) as error:
        raise ValueError(f"the tokenizer cannot be read as JSON ({error}).") from None
    try:
        return BpeTokenizer(_tokenizers().Tokenizer.from_str(text))
    except ValueError:
        raise
    except Exception as error:  # the package raises nothing more precise
        raise ValueError(f"the tokenizer cannot be read ({error}); expected one that to_json() wrote.") from None


def parse_vocabulary(vocabulary: str) -> int | None:
    """The size that a form such as ``bpe:4096`` asks for; None for ``bytes``.

    Raises:
        ValueError: if it is neither.
    """
    if vocabulary == "bytes":
        return None
    kind, _, size = vocabulary.partition(":")
    if kind != "bpe" or not size.isdecimal() or int(size) <= _N_BYTES + 1:
        raise ValueError(
            f"vocabulary is {vocabulary!r}; expected 'bytes', or 'bpe:N' with N tokens, more than {_N_BYTES + 1}, e.g. "
            "'bpe:4096'."
        )
    return int(size)


def _text(name: str, content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{name} is not text in UTF-8 (byte {content[error.start]:#04x} at {error.start}); convert it, take it "
            "out, or choose vocabulary 'bytes'."
        ) from None


def _pieces(text: str) -> Iterator[str]:
    """Cuts a long text behind line breaks: a piece takes many times its size while it is encoded."""
    start = 0
    while start < len(text):
        end = text.find("\n", start + _PIECE) + 1 or len(text)
        yield text[start:end]
        start = end


def _tokenizers() -> Any:
    try:
        import tokenizers
        import tokenizers.decoders
        import tokenizers.models
        import tokenizers.pre_tokenizers
        import tokenizers.trainers
    except ImportError:
        raise ValueError(
            "a BPE vocabulary needs the package `tokenizers`, which is not installed; "
            "run `pip install 'interlocking-backprop[text]'`, or choose vocabulary 'bytes'."
        ) from None
    return tokenizers
