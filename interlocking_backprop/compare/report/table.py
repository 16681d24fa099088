"""A table before it is written down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from interlocking_backprop.compare.report import formatting as f


@dataclass(frozen=True)
class Cell:
    """A cell.

    Attributes:
        text: what is shown.
        value: the number behind it, by which a column is sorted.
        note: a second, smaller line.
        kind: of the text, for its looks: "", "worse", "better", "name" or "long".
        scheme: whose mark stands before the text.
    """

    text: str
    value: float | int | None = None
    note: str = ""
    kind: str = ""
    scheme: str | None = None


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        title: its heading.
        group: heading that it shares with its neighbours.
        hint: what it means, in a few words.
        is_text: whether its cells are sentences, not numbers.
    """

    title: str
    group: str = ""
    hint: str = ""
    is_text: bool = False


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        name: unique on the page.
        caption: what it shows.
        columns: from left to right.
        rows: from top to bottom, a cell for each column.
    """

    name: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]

    @property
    def groups(self) -> list[tuple[str, int]]:
        """The headings above those of the columns, with the number of columns below each."""
        groups: list[tuple[str, int]] = []
        for column in self.columns:
            if groups and groups[-1][0] == column.group:
                groups[-1] = (column.group, groups[-1][1] + 1)
            else:
                groups.append((column.group, 1))
        return groups if any(name for name, _ in groups) else []

    def begins_group(self, index: int) -> bool:
        """Whether a column is the first below a heading of several."""
        group = self.columns[index].group
        return bool(group) and (index == 0 or self.columns[index - 1].group != group)


EMPTY = Cell(f.NOTHING)
