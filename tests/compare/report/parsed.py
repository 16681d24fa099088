"""What a reader, or a browser, finds in a page."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

_VOID = {"meta", "link", "br", "hr", "img", "input"}


@dataclass
class TableRead:
    """A table: its headings, and the cells of each row with their data-value and note."""

    caption: str = ""
    heads: list[str] = field(default_factory=list)
    rows: list[list[tuple[str, str | None, str]]] = field(default_factory=list)

    def row(self, scheme: str) -> dict[str, tuple[str, str | None, str]]:
        """The cells of a scheme by their headings; a heading that comes again is numbered."""
        cells = next(row for row in self.rows if row[0][0] == scheme)
        names: list[str] = []
        for head in self.heads:
            names.append(f"{head} {names.count(head) + 1}" if head in names else head)
        return dict(zip(names, cells, strict=True))


class Page(HTMLParser):
    """Reads a page and complains of tags that are not closed."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.tables: dict[str, TableRead] = {}
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.pictures: list[ElementTree.Element] = []
        self._open: list[tuple[str, dict[str, str | None]]] = []
        self._table: TableRead | None = None
        self.feed(self.source)
        self.close()
        assert not self._open, f"not closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if found.get("id"):
            self.ids.append(str(found["id"]))
        if tag == "img":
            kind, _, svg = str(found["src"]).partition(",")
            assert kind == "data:image/svg+xml"
            self.pictures.append(ElementTree.fromstring(unquote(svg)))
        if tag in _VOID:
            return
        self._open.append((tag, found))
        if tag == "table":
            self._table = self.tables[str(found["id"])] = TableRead()
        elif tag == "tr" and self._table and self._inside("tbody"):
            self._table.rows.append([])
        elif tag == "tr" and self._table:
            self._table.heads = []
        elif tag in ("td", "th") and self._table:
            if self._inside("tbody"):
                self._table.rows[-1].append(("", found.get("data-value"), ""))
            else:
                self._table.heads.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        opened, _ = self._open.pop()
        assert opened == tag, f"</{tag}> closes <{opened}>"
        if tag == "table":
            self._table = None

    def handle_data(self, data: str) -> None:
        if not self._open or self._inside("script") or self._inside("style"):
            return
        self.text += data
        if not self._table or not data.strip():
            return
        if self._inside("caption"):
            self._table.caption += data
        elif self._inside("td") or (self._inside("th") and self._inside("tbody")):
            text, value, note = self._table.rows[-1][-1]
            if any(found.get("class") == "note" for _, found in self._open):
                note += data
            else:
                text += data
            self._table.rows[-1][-1] = (text, value, note)
        elif self._inside("th"):
            self._table.heads[-1] += data

    def _inside(self, tag: str) -> bool:
        return any(tag == opened for opened, _ in self._open)
