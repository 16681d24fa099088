"""Which tables and columns of an image set are used, and for what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from interlocking_backprop.data.images import EncodedImages, ImageSplit, LabelledImages, check_sizes
from interlocking_backprop.data.preparation import CIFAR10, CIFAR100, FASHION_MNIST, GREY, IMAGENET, preparations
from interlocking_backprop.data.split import Data, Options, hold_out

if TYPE_CHECKING:
    import datasets

SPLIT_NAMES = {"train": ("train",), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}

# These are normalised as they are when they are read from their own files.
_KNOWN = {
    "hub:zalando-datasets/fashion_mnist": FASHION_MNIST,
    "hub:uoft-cs/cifar10": CIFAR10,
    "hub:uoft-cs/cifar100": CIFAR100,
}

Part = tuple[LabelledImages, Tensor]  # and the rows of it that are used


def image_data(name: str, tables: Mapping[str, datasets.Dataset], options: Options) -> Data:
    """A data set for training out of tables of images.

    Args:
        name: of the data set.
        tables: by their names, see `SPLIT_NAMES`; others are not used.
        options: the user's.

    Raises:
        ValueError: if a table or a column is missing, labels do not fit, or images differ in size and
            ``options.image_size`` is None.
    """
    samples, n_classes = _labelled(name, tables)
    parts = _parts(name, samples, options)
    channels, sizes = samples["train"].images.probe()
    if options.image_size is None:
        check_sizes(sizes)
    height, width = min(sizes) if options.image_size is None else (options.image_size, options.image_size)
    normalisation = _KNOWN.get(name, GREY if channels == 1 else IMAGENET)
    for_training, for_evaluation = preparations(normalisation, height, width, options, photographs=True)
    shape = (channels, height, width)
    return Data(
        name,
        train=ImageSplit(*parts["train"], shape, for_training),
        validation=ImageSplit(*parts["validation"], shape, for_evaluation),
        test=ImageSplit(*parts["test"], shape, for_evaluation),
        n_classes=n_classes,
        sample_shape=shape,
    )


def _parts(name: str, samples: Mapping[str, LabelledImages], options: Options) -> dict[str, Part]:
    """What to train on, to validate on and to test on.

    Without a test set results are reported on the validation set, as is usual for ImageNet; choices are then made by
    samples held out of the training set, as they are where only a test set is there.
    """
    if "train" not in samples or len(samples) == 1:
        raise ValueError(
            f"{name} has images with labels in {' and '.join(samples) or 'no split'}; expected them in train, and in "
            "test or validation."
        )
    whole = {part: (sample, torch.arange(len(sample.labels))) for part, sample in samples.items()}
    if len(whole) == 3:
        return whole
    train = samples["train"]
    kept, held_out = hold_out(len(train.labels), options.validation_fraction, options.seed)
    test = whole["test"] if "test" in whole else whole["validation"]
    return {"train": (train, kept), "validation": (train, held_out), "test": test}


def _labelled(name: str, tables: Mapping[str, datasets.Dataset]) -> tuple[dict[str, LabelledImages], int]:
    """The samples of each part that has labels, and the number of classes."""
    samples: dict[str, LabelledImages] = {}
    n_classes = 0
    for part, names in SPLIT_NAMES.items():
        table = next((tables[table_name] for table_name in names if table_name in tables), None)
        if table is None or len(table) == 0:
            continue
        image_column, label_column, n_declared = _columns(f"{name}, {table.split} split", table.features)
        values = table.select_columns([label_column])[:][label_column]
        labels = torch.tensor([-1 if value is None else value for value in values])
        if labels.max() < 0:  # a test set whose labels are kept secret
            continue
        n_classes = max(n_classes, n_declared if n_declared is not None else int(labels.max()) + 1)
        if labels.min() < 0 or labels.max() >= n_classes:
            wrong = int(labels.min() if labels.min() < 0 else labels.max())
            raise ValueError(
                f"{name}, {table.split} split: column {label_column!r} holds the label {wrong} (-1: none); expected 0 "
                f"to {n_classes - 1} for every image."
            )
        samples[part] = LabelledImages(EncodedImages(table, image_column), labels)
    return samples, n_classes


def _columns(where: str, features: datasets.Features) -> tuple[str, str, int | None]:
    """The names of the image column and of the label column, and the number of classes if it is declared."""
    import datasets

    images = [column for column, feature in features.items() if isinstance(feature, datasets.Image)]
    classes = {
        column: feature.num_classes for column, feature in features.items() if isinstance(feature, datasets.ClassLabel)
    }
    if images and classes:
        label = max(classes, key=lambda column: classes[column])
        return images[0], label, classes[label]
    if images and getattr(features.get("label"), "dtype", "").startswith(("int", "uint")):
        return images[0], "label", None
    raise ValueError(
        f"{where} has the columns {dict(features)}; expected one of images and one of class labels, or of whole "
        "numbers called 'label'. In a folder, each class has a folder of its own, and there are two or more."
    )
