"""The handwritten digits that come with scikit-learn: 1,797 grey images of 8 x 8 pixels, always at hand.

The set has no parts of its own, so it is split here once and for all, whatever the options: 1,197 samples to train on,
200 to validate on and 400 to test on, with the classes in equal proportion.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from interlocking_backprop.data.in_memory import Labelled, MemorySplit
from interlocking_backprop.data.preparation import Normalisation, preparations
from interlocking_backprop.data.split import Data, Options

N_TEST = 400
N_VALIDATION = 200


def load_digits(options: Options) -> Data:
    """The digits, without augmentation (a mirrored 2 is none); of the options only the image size has an effect."""
    from sklearn import datasets  # takes a second, which only those who want digits should wait for

    pixels, labels = datasets.load_digits(return_X_y=True)
    # Stored values are 0 … 16. Times 15 they use the bytes well, so that resizing does not round them.
    images = torch.from_numpy((pixels * 15).astype(np.uint8)).view(-1, 1, 8, 8)
    samples = Labelled(images, torch.from_numpy(labels.astype(np.int64)))
    order = torch.from_numpy(_stratified_order(labels))
    test, validation, train = order.tensor_split((N_TEST, N_TEST + N_VALIDATION))

    values = images[train].to(torch.float64) / 255
    normalisation = Normalisation((values.mean().item(),), (values.std().item(),))
    _, preparation = preparations(normalisation, 8, 8, replace(options, augment=False))
    size = options.image_size or 8
    return Data(
        "digits",
        train=MemorySplit(samples, train, preparation),
        validation=MemorySplit(samples, validation, preparation),
        test=MemorySplit(samples, test, preparation),
        n_classes=10,
        sample_shape=(1, size, size),
    )


def _stratified_order(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """A fixed random order of which every stretch holds the classes in their proportions."""
    # NumPy promises never to change the numbers of this old generator, and this split is for good.
    order = np.random.RandomState(0).permutation(len(labels))
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = order[labels[order] == label]
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    return order[np.argsort(place[order], kind="stable")].astype(np.int64)
