"""Every recipe is short, runs as it stands on the page, and does what is claimed, by plain autograd.

A new recipe is a section of the page, and a function in ``tests/recipes/`` that is registered for its heading. It gets
the names that the section's code has left behind, and the training steps that it has made.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.recipes.steps import Step, recorded

pytest.register_assert_rewrite("tests.recipes.methods", "tests.recipes.tools")
from tests.recipes import methods, tools  # noqa: E402, F401 (they register what each recipe has to achieve)
from tests.recipes.registry import CHECKS  # noqa: E402

PAGES = [Path(__file__).parents[1] / "docs" / "recipes.md"]
MOST_LINES = 8

_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


class Recipe(NamedTuple):
    preamble: str
    name: str
    text: str

    @property
    def code(self) -> str:
        (code,) = _BLOCK.findall(self.text)
        return code

    @property
    def lines(self) -> list[str]:
        """What a user writes, imports aside."""
        return [line for line in self.code.splitlines() if line and not re.match(r"(import|from) ", line)]


def recipes() -> list[Recipe]:
    found = []
    for page in PAGES:
        beginning, *sections = re.split(r"^## ", page.read_text(), flags=re.MULTILINE)
        (preamble,) = _BLOCK.findall(beginning)
        found += [Recipe(preamble, *section.split("\n", 1)) for section in sections]
    return found


RECIPES = recipes()


@pytest.fixture
def steps(monkeypatch) -> list[Step]:
    return recorded(monkeypatch)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("recipe", RECIPES, ids=[recipe.name for recipe in RECIPES])
def test_a_recipe_does_what_it_claims(recipe, steps):
    names: dict[str, Any] = {"__name__": "recipe"}
    exec(compile(recipe.preamble, "the beginning of the page", "exec"), names)
    exec(compile(recipe.code, recipe.name, "exec"), names)
    assert recipe.name in CHECKS, "what does this recipe achieve? Say so in a function that checks it."
    CHECKS[recipe.name](names, list(steps))


@pytest.mark.parametrize("recipe", RECIPES, ids=[recipe.name for recipe in RECIPES])
def test_a_recipe_is_short_and_needs_no_private_names(recipe):
    assert len(recipe.lines) <= MOST_LINES
    assert [line for line in recipe.code.splitlines() if len(line) > 120 or ";" in line] == []
    assert re.findall(r"\._\w+", recipe.code) == []
    before, after = (part.strip() for part in _BLOCK.split(recipe.text)[::2])
    assert before.endswith(".")
    assert after.endswith(".")


def test_there_are_recipes():
    assert len(RECIPES) >= 13
    assert set(CHECKS) == {recipe.name for recipe in RECIPES}


def test_lines_are_counted():
    code = "import copy\nfrom torch import nn\n\n\ndef f():\n    # a comment\n    return 1\n\n\nx = f()\n"
    assert Recipe("", "", f"Text.\n\n```python\n{code}```\n").lines == [
        "def f():",
        "    # a comment",
        "    return 1",
        "x = f()",
    ]
