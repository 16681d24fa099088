"""Schemes as the command line writes them: a name such as ``3wise-sum``, or a CSV file with the matrix."""

from __future__ import annotations

import csv
import re
from pathlib import Path

from interlocking_backprop.scheme.coefficients import Scheme, decaying, deep_supervision, e2e, nwise

SCHEME_FORMS = (
    "e2e, local, pairwise, 3wise (any N), with -sum, -mean or -decay0.5 (any number) behind it (pairwise-sum, "
    "3wise-mean, 3wise-decay0.5), deep-supervision, decay0.5, or a .csv file with the matrix"
)
_DECAY = r"decay(?P<decay>\d*\.?\d+(?:e-?\d+)?)"
_WINDOW = re.compile(
    rf"(?:(?P<word>local|pairwise)|(?P<n>\d+)-?wise)(?:-(?:(?P<reduction>furthest|sum|mean)|{_DECAY}))?"
)


def parse_scheme(text: str, n_components: int) -> Scheme:
    """Reads a scheme for a number of components.

    Args:
        text: one of the forms in `SCHEME_FORMS`.
        n_components: K.

    Raises:
        ValueError: if the text is none of the forms, or the file's matrix is not K x K.
    """
    text = text.strip()
    if text == "e2e":
        return e2e(n_components)
    if text == "deep-supervision":
        return deep_supervision(n_components)
    if match := _WINDOW.fullmatch(text):
        n = {"local": 1, "pairwise": 2}[match["word"]] if match["word"] else int(match["n"])
        if match["decay"]:
            return decaying(n_components, float(match["decay"]), n)
        return nwise(n_components, n, match["reduction"] or "furthest")  # type: ignore[arg-type]
    if match := re.fullmatch(_DECAY, text):
        return decaying(n_components, float(match["decay"]))
    if text.endswith(".csv"):
        return _read_csv(Path(text), n_components)
    raise ValueError(f"scheme {text!r} is not known; expected {SCHEME_FORMS}.")


def _read_csv(path: Path, n_components: int) -> Scheme:
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"scheme file {path} cannot be read ({error}); expected a CSV file with a row of the matrix on each line."
        ) from None
    matrix = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            matrix.append([float(cell) for cell in next(csv.reader([line]))])
        except ValueError as error:
            raise ValueError(f"scheme file {path}, line {number}: {error}; expected numbers between commas.") from None
    try:
        scheme = Scheme(matrix, name=path.stem)
    except ValueError as error:
        raise ValueError(f"scheme file {path}: {error}") from None
    if scheme.n_components != n_components:
        raise ValueError(
            f"scheme file {path} is for {scheme.n_components} components, the model has {n_components}; "
            f"give {n_components} rows of {n_components} numbers."
        )
    return scheme
