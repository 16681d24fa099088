"""The documentation: links and names lead somewhere, and the snippets of Python run as they stand."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

import interlocking_backprop

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "interlocking_backprop"
FOLDERS = ("benchmarks", "docs", "examples", "interlocking_backprop", "scripts", "tests")
PACKAGE_FOLDERS = {path.parent.name for path in PACKAGE.glob("*/__init__.py")} - {"data"}  # data/ is a user's too
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])

_LINK = re.compile(r"!?\[[^\]]*\]\((?P<target>[^)\s]+)\)")
_CODE = re.compile(r"^(?P<fence>```+)(?P<language>\w*)\n(?P<code>.*?)^(?P=fence)$", re.DOTALL | re.MULTILINE)
_INLINE = re.compile(r"`[^`\n]+`")
_PATH = re.compile(r"[\w.-]+(?:/[\w.-]*)+|[\w-]+\.py\b")
_NAME = re.compile(r"\b(?:interlocking_backprop|ib)((?:\.[A-Za-z_]\w*)+)")


def text_of(page: Path) -> str:
    """A page without what is code in it."""
    return _INLINE.sub("", _CODE.sub("", page.read_text()))


def anchors(page: Path) -> set[str]:
    """The headings of a page as GitHub makes anchors of them."""
    headings = re.findall(r"^#+ (.+)$", _CODE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def paths(page: Path) -> set[str]:
    """What reads as a path in the repository or in the package; ``train.py`` is a script of the reader's."""
    found = {path.rstrip(".") for path in _PATH.findall(page.read_text())}
    folders = {*FOLDERS, *PACKAGE_FOLDERS}
    return {path for path in found if path.endswith(".py") or path.split("/")[0] in folders} - {"train.py"}


def resolves(module: object, dotted: str) -> bool:
    """Whether a name such as ``.text.load_text`` is a module of the package, or something in one."""
    name = "interlocking_backprop"
    for part in dotted.strip(".").split("."):
        name += f".{part}"
        if not hasattr(module, part):
            try:
                importlib.import_module(name)
            except ModuleNotFoundError:
                return False
        module = getattr(module, part)
    return True


def snippets(page: Path) -> list[tuple[str, str]]:
    """The snippets of Python, each with the output that is shown right below it."""
    text, found = page.read_text(), []
    for match in _CODE.finditer(text):
        if match["language"] == "python":
            below = _CODE.match(text, match.end() + len("\n\n"))
            found.append((match["code"], below["code"] if below and not below["language"] else ""))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_images_lead_to_files_and_headings(page):
    # The site has nothing but docs/, so its pages cannot link out of it.
    root = ROOT / "docs" if page.is_relative_to(ROOT / "docs") else ROOT
    broken = []
    for match in _LINK.finditer(text_of(page)):
        path, _, anchor = match["target"].partition("#")
        if re.match(r"\w+:", path):  # elsewhere
            continue
        target = (page.parent / path).resolve() if path else page
        if not (target.exists() and target.is_relative_to(root)) or (anchor and anchor not in anchors(target)):
            broken.append(match["target"])
    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_paths_and_names_are_there(page):
    missing = [path for path in paths(page) if not (ROOT / path).exists() and not (PACKAGE / path).exists()]
    missing += [name for name in _NAME.findall(page.read_text()) if not resolves(interlocking_backprop, name)]
    assert sorted(missing) == []


def test_every_public_name_is_in_the_reference():
    pages = "".join(page.read_text() for page in ROOT.glob("docs/reference/*.md"))
    documented = set(re.findall(r"^::: interlocking_backprop\.(\w+)$", pages, re.MULTILINE))
    assert set(interlocking_backprop.__all__) - documented == {"__version__", "huggingface"}


def test_every_module_has_a_line_in_the_table_of_files():
    table = (ROOT / "docs/design.md").read_text().partition("The files, from the bottom up:")[2]
    modules = [path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py") if not path.name.startswith("__")]
    nested = [path for path in modules if len(path.parts) > 1]  # the others are floors themselves
    told = set(re.findall(r"`([\w/]+(?:\.py|/))`", table))
    assert [str(path) for path in nested if not told & {str(path), *(f"{folder}/" for folder in path.parents)}] == []


def test_the_first_page_and_the_readme_show_the_same_network():
    first_page, readme = snippets(ROOT / "docs/index.md"), snippets(ROOT / "README.md")
    assert len(first_page) == 1
    assert first_page == readme


@pytest.mark.parametrize(
    "page",
    [
        "docs/schemes.md",
        "docs/gradients.md",
        "docs/optimizers.md",
        "docs/parallel.md",
        "docs/schedules.md",
    ],
)
def test_snippets_run_in_their_order_and_print_what_is_shown(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    # What the first page builds is what the other pages go on with.
    names: dict[str, object] = {"__name__": "snippet"}
    for source in (ROOT / "docs/index.md", ROOT / page):
        found = snippets(source)
        assert found
        for code, output in found:
            exec(compile(code, str(source), "exec"), names)
            printed = capsys.readouterr().out
            assert output in printed
