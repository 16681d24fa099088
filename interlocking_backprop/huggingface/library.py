"""The `transformers` library: imported when it is needed, and not older than what this package was tested with."""

from __future__ import annotations

import importlib
import re
from typing import Any

OLDEST, NEWEST = (5, 10), (5, 23)
"""The tested versions. Newer ones are let in."""


def load(module: str = "transformers") -> Any:
    """Imports the library, or a module of it.

    Raises:
        ValueError: if it is missing or too old, with the command that installs it.
    """
    install = f"pip install 'transformers>={_text(OLDEST)}'"
    try:
        library = importlib.import_module("transformers")
    except ImportError as error:
        raise ValueError(f"models of Hugging Face need the transformers library ({error}); {install}.") from None
    found = tuple(int(number) for number in re.findall(r"\d+", library.__version__)[:2])
    if found < OLDEST:
        raise ValueError(
            f"transformers is version {library.__version__}, whose models may be built in another way; expected "
            f"{_text(OLDEST)} or newer: {install}."
        )
    return importlib.import_module(module)


def tested() -> str:
    """The range of versions that this package was tested with."""
    return f"{_text(OLDEST)} to {_text(NEWEST)}"


def _text(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
