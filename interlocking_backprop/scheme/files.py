"""Schemes in files: a CSV file has the matrix of a synchronous one, a JSON file the matrices of all ages.

{"matrix": [[0, 0], [0, 1]], "delayed": {"1": [[0, 1], [0, 0]]}, "name": "mine"}
"""

from __future__ import annotations

import csv
from pathlib import Path

from interlocking_backprop.common.json_files import read_json
from interlocking_backprop.scheme.coefficients import Scheme

SUFFIXES = (".csv", ".json")
_LONGEST_LINE = 10_000


def read_scheme(path: Path, n_components: int) -> Scheme:
    """Reads a scheme from a file; its name is that in the file, or that of the file.

    Raises:
        ValueError: naming the file and the place, if it is no scheme, or one for another number of components.
    """
    return (_read_json if path.suffix == ".json" else _read_csv)(path, n_components)


def _read_json(path: Path, n_components: int) -> Scheme:
    fields = read_json(path, 'a scheme, {"matrix": [[…], …], "delayed": {"1": [[…], …]}}')
    try:
        scheme = Scheme.from_fields(fields, path.stem)
    except ValueError as error:
        raise ValueError(f"scheme file {path}: {error}") from None
    if scheme.n_components != n_components:
        raise ValueError(
            f"scheme file {path} is for {scheme.n_components} components, the model has {n_components}; give matrices "
            f"of {n_components} rows of {n_components} numbers."
        )
    return scheme


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
