"""Text of the Hugging Face hub, through the optional package `datasets`. Every row is a document."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from interlocking_backprop.data.datasets_library import load_tables
from interlocking_backprop.data.image_data import SPLIT_NAMES
from interlocking_backprop.text.corpus import PARTS, Corpus, Documents, HeldOut

if TYPE_CHECKING:
    import datasets


@dataclass(frozen=True)
class Rows:
    """Documents in a column of a table; empty ones are left out.

    Attributes:
        name: of the table, for errors.
        table: with that column alone.
        column: its name.
    """

    name: str
    table: datasets.Dataset
    column: str

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        row = 0
        for batch in self.table.iter(batch_size=1000):
            for text in batch[self.column]:
                if text:
                    yield f"{self.name}, row {row}", text.encode()
                row += 1


def hub_text(repository: str, held_out: HeldOut) -> Corpus:
    """A data set of the hub, or a local folder that `datasets` can load.

    The text is the column ``text``, or else the first one of strings. Parts that it has not of its own are held out of
    the training set; where it has a validation set but no test set, the former is used to test on.

    Raises:
        ValueError: if it cannot be loaded, or has no such column or training set, or `datasets` is missing.
    """
    name = f"hub:{repository}"
    tables: dict[str, datasets.Dataset] = {}
    loaded = load_tables(name, "put its text on disk (text:PATH)", repository)
    for part, names in SPLIT_NAMES.items():
        found = [loaded[n] for n in names if n in loaded and len(loaded[n])]
        if found:
            tables[part] = found[0]
    if "train" not in tables:
        raise ValueError(f"{name} has the splits {', '.join(loaded) or 'none'}; expected one called train.")
    fingerprint = repr(([(part, table._fingerprint) for part, table in tables.items()], held_out))
    if "test" not in tables and "validation" in tables:
        tables["test"] = tables.pop("validation")
    if len(tables) < len(PARTS):
        train = tables["train"]
        if len(train) < len(PARTS):
            raise ValueError(
                f"{name} has {len(train)} rows to train on; expected at least {len(PARTS)} to hold some out."
            )
        own_test = tables.get("test")
        rows = held_out.split(range(len(train)), key=str, n_test=None if own_test is None else 0)
        tables = {part: train.select(rows[part]) for part in PARTS}
        if own_test is not None:
            tables["test"] = own_test
    parts: dict[str, Documents] = {part: _rows(f"{name}, {part}", table) for part, table in tables.items()}
    return Corpus(name, parts, fingerprint)


def _rows(name: str, table: datasets.Dataset) -> Rows:
    strings = [column for column, feature in table.features.items() if getattr(feature, "dtype", None) == "string"]
    if not strings:
        raise ValueError(f"{name} has the columns {dict(table.features)}; expected one of strings, such as 'text'.")
    column = "text" if "text" in strings else strings[0]
    return Rows(name, table.select_columns([column]), column)
