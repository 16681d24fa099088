"""Tokens on disk: a corpus is tokenised once, and from then on its files are mapped into memory.

    ROOT/text-cache/DIGEST/train.bin  validation.bin  test.bin    token ids, uint16 or uint32
                           tokenizer.json
                           meta.json                              counts; written last, so all is there if it is

A part begins with the separator, and every document ends with one. The digest is that of everything the tokens depend
on; of files that is their names, sizes and times.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from interlocking_backprop.common.atomic_files import replacing, write_text
from interlocking_backprop.text.corpus import PARTS, Corpus, Documents
from interlocking_backprop.text.tokenizer import (
    BpeTokenizer,
    ByteTokenizer,
    Ids,
    Tokenizer,
    parse_vocabulary,
    tokenizer_from_json,
)
from interlocking_backprop.text.windows import TokenFile

_FORMAT = 1


class CachedCorpus(NamedTuple):
    """What is on disk of a corpus."""

    tokenizer: Tokenizer
    parts: dict[str, TokenFile]


def cached(corpus: Corpus, vocabulary: str, root: Path) -> CachedCorpus:
    """The tokens of a corpus, from the cache if they are there in full.

    Args:
        corpus: what to tokenise.
        vocabulary: ``bytes`` or ``bpe:N``.
        root: the folder that ``text-cache`` is in.

    Raises:
        ValueError: if the vocabulary is unknown, a document cannot be read, or a part is empty.
    """
    size = parse_vocabulary(vocabulary)
    key = repr((_FORMAT, vocabulary, corpus.name, corpus.fingerprint))
    folder = root / "text-cache" / hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=10).hexdigest()
    found = _read(folder)
    if found is not None:
        return found
    tokenizer = ByteTokenizer() if size is None else BpeTokenizer.train(corpus.parts["train"], size)
    counts = {part: _write_part(folder / f"{part}.bin", corpus, part, tokenizer) for part in PARTS}
    write_text(folder / "tokenizer.json", tokenizer.to_json())
    meta = {"format": _FORMAT, "corpus": corpus.name, "vocabulary": vocabulary, "parts": counts}
    write_text(folder / "meta.json", json.dumps(meta, indent=2) + "\n")
    written = _read(folder)
    if written is None:
        raise ValueError(f"the tokens of {corpus.name} in {folder} changed while they were written; try again.")
    return written


def _read(folder: Path) -> CachedCorpus | None:
    """What is in the folder; None if anything is missing or of another size than it was written with."""
    try:
        counts: dict[str, Any] = json.loads((folder / "meta.json").read_text(encoding="utf-8"))["parts"]
        tokenizer = tokenizer_from_json((folder / "tokenizer.json").read_text(encoding="utf-8"))
        parts = {part: TokenFile(folder / f"{part}.bin", **counts[part]) for part in PARTS}
        if all(file.path.stat().st_size == file.n_tokens * np.dtype(file.dtype).itemsize for file in parts.values()):
            return CachedCorpus(tokenizer, parts)
    except (OSError, LookupError, TypeError, ValueError):
        pass
    return None


def _write_part(path: Path, corpus: Corpus, part: str, tokenizer: Tokenizer) -> dict[str, Any]:
    dtype = "uint16" if tokenizer.vocabulary_size <= 1 << 16 else "uint32"
    n_tokens = n_bytes = 0
    with replacing(path) as temporary, temporary.open("wb") as file:
        for ids, n in _stream(corpus.parts[part], tokenizer):
            file.write(ids.astype(dtype).tobytes())
            n_tokens += len(ids)
            n_bytes += n
    if n_bytes == 0:
        raise ValueError(
            f"the {part} part of {corpus.name} has no text; expected some in each part. Give more text, or hold out "
            "another share or with another seed."
        )
    return {"dtype": dtype, "n_tokens": n_tokens, "n_bytes": n_bytes}


def _stream(documents: Documents, tokenizer: Tokenizer) -> Iterator[tuple[Ids, int]]:
    """The tokens of a part, and how many bytes each of its stretches stands for; a separator behind text is one."""
    separator = np.array([tokenizer.separator])
    yield separator, 0
    for name, content in documents:
        if content:
            yield tokenizer.encode_document(name, content), len(content)
            yield separator, 1
