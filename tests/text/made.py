"""Small texts, and ways to read them back out of windows."""

from __future__ import annotations

import random
from pathlib import Path

import torch

from interlocking_backprop.data import Split, batches
from interlocking_backprop.text import TextData
from interlocking_backprop.text.windows import IGNORED

TEXT = "the loss of a component trains what is below it and nothing else façade 数据 🙂"


def write_texts(folder: Path, n: int = 40, n_lines: int = 12) -> dict[str, str]:
    """n files in two folders, of different lines; their contents by their names."""
    texts = {}
    draw, words = random.Random(0), TEXT.split()
    for i in range(n):
        name = f"{'ab'[i % 2]}/{i}.txt"
        texts[name] = "".join(f"{i}: {' '.join(draw.choices(words, k=8))}\n" for _ in range(n_lines))
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(texts[name].encode())
    return texts


def targets(split: Split, **options) -> torch.Tensor:
    """All targets that count, in a row."""
    found = torch.cat([y.flatten() for _, y in batches(split, 4, **options)])
    return found[found != IGNORED]


def documents(data: TextData, part: str) -> list[str]:
    """The documents of a part, out of its file of tokens."""
    ids = getattr(data, part).tokens.open().tolist()
    assert ids[0] == ids[-1] == data.tokenizer.separator
    documents, begin = [], 1
    for i, token in enumerate(ids[1:], start=1):
        if token == data.tokenizer.separator:
            documents.append(data.tokenizer.decode(ids[begin:i]))
            begin = i + 1
    return documents
