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
_LONGEST_LINE = 10_000
_DECAY = r"decay(?P<decay>[0-9]*\.?[0-9]+(?:e-?[0-9]+)?)"
_WINDOW = re.compile(
    rf"(?:(?P<word>local|pairwise)|(?P<n>[0-9]{{1,9}})-?wise)(?:-(?:(?P<reduction>furthest|sum|mean)|{_DECAY}))?"
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
    try:
        if match := _WINDOW.fullmatch(text):
            n = {"local": 1, "pairwise": 2}[match["word"]] if match["word"] else int(match["n"])
            if match["decay"]:
                return decaying(n_components, float(match["decay"]), n)
            return nwise(n_components, n, match["reduction"] or "furthest")  # type: ignore[arg-type]
        if match := re.fullmatch(_DECAY, text):
            return decaying(n_components, float(match["decay"]))
    except ValueError as error:
        raise ValueError(f"scheme {text!r}: {error}") from None
    if text.endswith(".csv"):
        return _read_csv(Path(text), n_components)
    raise ValueError(f"scheme {text!r} is not known; expected {SCHEME_FORMS}.")


def _read_csv(path: Path, n_components: int) -> Scheme:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise ValueError(
            f"scheme file {path} cannot be read ({error}); expected a CSV file with a row of the matrix on each line."
        ) from None
    matrix: list[list[float]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            matrix.append([float(cell) for cell in next(csv.reader([line]))])
        except (ValueError, csv.Error) as error:
            reason = str(error) if len(line) <= _LONGEST_LINE else f"a line of {len(line):,} characters"
            raise ValueError(f"scheme file {path}, line {number}: {reason}; expected numbers between commas.") from None
        if len(matrix[-1]) != len(matrix[0]):
            raise ValueError(
                f"scheme file {path}, line {number}: {len(matrix[-1])} numbers, and {len(matrix[0])} in the first row; "
                f"expected {n_components} in each row, a number for each of the {n_components} components."
            )
    n_rows, n_columns = len(matrix), len(matrix[0]) if matrix else 0
    if (n_rows, n_columns) != (n_components, n_components):
        what = f"is for {n_rows} components" if n_rows == n_columns else f"has {n_rows} rows of {n_columns} numbers"
        raise ValueError(
            f"scheme file {path} {what}, the model has {n_components}; give {n_components} rows of {n_components} "
            "numbers."
        )
    try:
        return Scheme(matrix, name=path.stem)
    except ValueError as error:
        raise ValueError(f"scheme file {path}: {error}") from None
