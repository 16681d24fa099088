"""Image folders and data sets of the Hugging Face hub, through the optional package `datasets`."""

from __future__ import annotations

import glob
from pathlib import Path

from interlocking_backprop.data.datasets_library import load_tables
from interlocking_backprop.data.image_data import SPLIT_NAMES, image_data
from interlocking_backprop.data.split import Data, Options

_ON_DISK = "put its files on disk (folder:PATH)"


def load_folder(path: Path, options: Options) -> Data:
    """Images in folders: ``path/train/CLASS/*.png``, likewise ``test`` and, if you have one, ``validation``.

    Raises:
        ValueError: if folders, classes or images are missing, or `datasets` is.
    """
    name = f"folder:{path}"
    if not path.is_dir():
        raise ValueError(f"{name}: there is no folder {path}; expected one with train/CLASS/*.png in it.")
    files = {
        part: f"{glob.escape(str(path.resolve() / folder))}/**"
        for part, folders in SPLIT_NAMES.items()
        for folder in folders
        if (path / folder).is_dir()
    }
    # The splits are named here, as the library would look for names such as "test" in the names of classes too.
    tables = load_tables(name, _ON_DISK, "imagefolder", data_files=files) if files else {}
    return image_data(name, tables, options)


def load_hub(repository: str, options: Options) -> Data:
    """A data set of the hub, or a local folder that `datasets` can load.

    The images are the first column of images, the labels the column of class labels with the most classes (the fine
    ones of CIFAR-100), or else a column of whole numbers called ``label``.

    Raises:
        ValueError: if it cannot be loaded, or has no such columns, or `datasets` is missing.
    """
    name = f"hub:{repository}"
    return image_data(name, load_tables(name, _ON_DISK, repository), options)
