"""Corpora by name, in three parts that share no document.

Which part a file is in depends on the hash of its path, so the parts are the same on every machine, and a file that is
added moves hardly any other. One or two files are cut into ranges instead, those held out being at the end.
"""

from __future__ import annotations

import hashlib
import os
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

PARTS = ("train", "validation", "test")

Documents = Iterable[tuple[str, bytes]]
"""Names, for errors, and contents. May be gone through more than once."""

T = TypeVar("T")


class Corpus(NamedTuple):
    """Text before it becomes tokens.

    Attributes:
        name: as it was asked for.
        parts: the documents of each of `PARTS`.
        fingerprint: changes when a document does, or the way they are parted.
    """

    name: str
    parts: dict[str, Documents]
    fingerprint: str


@dataclass(frozen=True)
class HeldOut:
    """How much is held out, and which.

    Attributes:
        validation_fraction: share of the documents.
        test_fraction: share of the documents.
        seed: of the choice.

    Raises:
        ValueError: if a share is out of its range, or nothing would be left to train on.
    """

    validation_fraction: float = 0.05
    test_fraction: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("validation_fraction", "test_fraction"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected a share between 0 and 1, both excluded.")
        if self.validation_fraction + self.test_fraction >= 1:
            raise ValueError(
                f"validation_fraction {self.validation_fraction:g} and test_fraction {self.test_fraction:g} leave "
                "nothing to train on; expected a sum below 1."
            )

    def split(self, items: Sequence[T], key: Callable[[T], str], n_test: int | None = None) -> dict[str, list[T]]:
        """Deals three items or more to the three parts, in the order that they came in.

        Args:
            items: what to deal.
            key: whose hash decides.
            n_test: how many go to the test part, if not its share.
        """
        n_validation = max(round(self.validation_fraction * len(items)), 1)
        n_test = max(round(self.test_fraction * len(items)), 1) if n_test is None else n_test
        ranked = sorted(range(len(items)), key=lambda i: (_hash(self.seed, key(items[i])), i))
        rows = {
            "train": ranked[n_validation + n_test :],
            "validation": ranked[:n_validation],
            "test": ranked[n_validation : n_validation + n_test],
        }
        return {part: [items[i] for i in sorted(chosen)] for part, chosen in rows.items()}


@dataclass(frozen=True)
class Files:
    """Documents in files, or a range of each.

    Attributes:
        root: the folder that names are relative to.
        names: of the files.
        begin, end: the range, as shares of a file; its ends are moved to the next line, or at least character.
    """

    root: Path
    names: Sequence[str]
    begin: float = 0.0
    end: float = 1.0

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        for name in self.names:
            path = self.root / name
            try:
                content = path.read_bytes()
            except OSError as error:
                raise ValueError(f"{path} cannot be read ({error.strerror}).") from None
            yield str(path), content[_cut(content, self.begin) : _cut(content, self.end)]


def standard_library(held_out: HeldOut) -> Corpus:
    """The source of Python's standard library, as far as people wrote it.

    Left out are installed packages, tests and what is generated (tables of encodings, the texts of ``help()``). What
    remains are about 600 files, 10 MB in Python 3.11. Figures from different versions of Python do not compare.
    """
    root = Path(sysconfig.get_path("stdlib"))
    left_out = {"site-packages", "dist-packages", "test", "tests", "idle_test", "encodings", "pydoc_data"}
    names = [
        name
        for name in _files_below(root, lambda folder: folder not in left_out and not folder.startswith("config-"))
        if name.endswith(".py") and not Path(name).name.startswith(("_sysconfigdata", "sitecustomize"))
    ]
    if len(names) < len(PARTS):
        raise ValueError(
            f"stdlib: {root} holds no source of Python's standard library (this Python comes without); give some text "
            "of your own: text:PATH."
        )
    return _of_files("stdlib", root, names, held_out)


def local_text(path: Path, held_out: HeldOut) -> Corpus:
    """A text file, or all files below a folder, hidden ones left out.

    Raises:
        ValueError: if there are none.
    """
    name = f"text:{path}"
    if path.is_dir():
        names = [name for name in _files_below(path, lambda _: True) if not Path(name).name.startswith(".")]
        if not names:
            raise ValueError(f"{name}: there are no files below {path}; expected some with text.")
        return _of_files(name, path, names, held_out)
    if not path.is_file():
        raise ValueError(f"{name}: there is no {path}; expected a file of text, or a folder with such files.")
    return _of_files(name, path.parent, [path.name], held_out)


def _of_files(name: str, root: Path, names: list[str], held_out: HeldOut) -> Corpus:
    states = [(root / file).stat() for file in names]
    stamps = [(file, state.st_size, state.st_mtime_ns) for file, state in zip(names, states, strict=True)]
    names = [file for file, state in zip(names, states, strict=True) if state.st_size > 0]
    parts: dict[str, Documents]
    if len(names) >= len(PARTS):
        chosen = held_out.split(names, key=lambda file: file)
        parts = {part: Files(root, chosen[part]) for part in PARTS}
    else:
        a = 1 - held_out.validation_fraction - held_out.test_fraction
        b = 1 - held_out.test_fraction
        ranges = {"train": (0.0, a), "validation": (a, b), "test": (b, 1.0)}
        parts = {part: Files(root, names, *ends) for part, ends in ranges.items()}
    return Corpus(name, parts, repr((stamps, held_out)))


def _files_below(root: Path, enters: Callable[[str], bool]) -> list[str]:
    """The files below a folder, relative and with slashes on every system, in order. Hidden folders are left out."""
    found = []
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = [sub for sub in subfolders if enters(sub) and not sub.startswith(".")]
        relative = Path(folder).relative_to(root)
        found += [(relative / file).as_posix() for file in files if Path(folder, file).is_file()]
    return sorted(found)


def _cut(content: bytes, share: float) -> int:
    """Where to cut: behind the next line break if one is near, else before the next character."""
    place = round(share * len(content))
    if place in (0, len(content)):
        return place
    line_break = content.find(b"\n", place - 1, place + 1000)
    if line_break >= 0:
        return line_break + 1
    while place < len(content) and content[place] & 0b1100_0000 == 0b1000_0000:  # inside a character in UTF-8
        place += 1
    return place


def _hash(seed: int, key: str) -> bytes:
    return hashlib.blake2b(f"{seed}/{key}".encode("utf-8", "surrogateescape"), digest_size=8).digest()
