"""Finding the files of a data set that the user has put on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def find_files(data_set: str, folders: Sequence[Path], names: Sequence[str], suffix: str, remedy: str) -> list[Path]:
    """The files, all from the first folder that has any of them.

    Args:
        data_set: its name, for the error.
        folders: where to look, in this order.
        names: of the files, each of which may have the suffix or not.
        suffix: such as ``.gz``; may be empty.
        remedy: what to do if files are missing.

    Raises:
        ValueError: if a file is missing.
    """
    for folder in folders:
        found = [_existing(folder, name, suffix) for name in names]
        missing = [name for name, path in zip(names, found, strict=True) if path is None]
        if not missing:
            return [path for path in found if path is not None]
        if len(missing) < len(names):
            raise ValueError(
                f"{data_set}: {folder} has no {_listed(missing, suffix)} beside the other files of the data set. "
                f"{remedy}"
            )
    looked_in = " or ".join(str(folder) for folder in folders)
    raise ValueError(f"{data_set}: found no files in {looked_in}; expected {_listed(names, suffix)}. {remedy}")


def _existing(folder: Path, name: str, suffix: str) -> Path | None:
    candidates = [folder / name, folder / f"{name}{suffix}"]
    return next((path for path in candidates if path.is_file()), None)


def _listed(names: Sequence[str], suffix: str) -> str:
    end = f"[{suffix}]" if suffix else ""
    return ", ".join(f"{name}{end}" for name in names)
