"""The optional package `datasets`, and its errors in one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import datasets


def load_tables(name: str, on_disk: str, *args: Any, **kwargs: Any) -> Mapping[str, datasets.Dataset]:
    """The tables of a data set, by the names of its splits.

    Args:
        name: of the data set, for errors.
        on_disk: what can be done without the hub, for errors.
        *args: of ``datasets.load_dataset``.
        **kwargs: likewise.

    Raises:
        ValueError: if it cannot be loaded, or the package is missing.
    """
    try:
        import datasets
    except ImportError:
        raise ValueError(
            f"{name} is read by the package `datasets`, which is not installed; "
            "run `pip install 'interlocking-backprop[hub]'`."
        ) from None
    try:
        loaded = datasets.load_dataset(*args, **kwargs)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        cause = f"{type(error).__name__}: {str(error).strip()}"
        raise ValueError(
            f"{name} cannot be loaded ({cause}). Check the name and, for a data set that is not in the local cache, "
            f"the network; or {on_disk}."
        ) from None
    return dict(loaded)
