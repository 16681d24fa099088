"""The documentation: links lead somewhere, and the snippets of Python run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])

_LINK = re.compile(r"!?\[[^\]]*\]\((?P<target>[^)\s]+)\)")
_CODE = re.compile(r"^(?P<fence>```+)(?P<language>\w*)\n(?P<code>.*?)^(?P=fence)$", re.DOTALL | re.MULTILINE)
_INLINE = re.compile(r"`[^`\n]+`")


def text_of(page: Path) -> str:
    """A page without what is code in it."""
    return _INLINE.sub("", _CODE.sub("", page.read_text()))


def anchors(page: Path) -> set[str]:
    """The headings of a page as GitHub makes anchors of them."""
    headings = re.findall(r"^#+ (.+)$", _CODE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def snippets(page: Path) -> list[str]:
    return [match["code"] for match in _CODE.finditer(page.read_text()) if match["language"] == "python"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_images_lead_to_files_and_headings(page):
    broken = []
    for match in _LINK.finditer(text_of(page)):
        path, _, anchor = match["target"].partition("#")
        if re.match(r"\w+:", path):  # elsewhere
            continue
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(match["target"])
    assert not broken


@pytest.mark.parametrize("page", ["docs/schemes.md", "docs/parallel.md"])
def test_snippets_run_in_their_order(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # What the README builds is what the other pages go on with.
    names: dict[str, object] = {"__name__": "snippet"}
    for source in (ROOT / "README.md", ROOT / page):
        found = snippets(source)
        assert found
        for code in found:
            exec(compile(code, str(source), "exec"), names)
