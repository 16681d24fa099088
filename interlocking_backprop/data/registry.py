"""Data sets by the names that the command line uses.

| name | images | parts |
|---|---|---|
| ``digits`` | 1,797 grey, 8 x 8 (scikit-learn) | fixed: 1,197 / 200 / 400, whatever the options |
| ``fashion-mnist`` | 70,000 grey, 28 x 28, IDX files | validation held out of the 60,000 for training |
| ``cifar10``, ``cifar100`` | 60,000 in colour, 32 x 32, binary version | validation held out of the 50,000 |
| ``folder:PATH`` | files in ``PATH/train/CLASS`` and so on | ``validation`` if there is such a folder, else held out |
| ``hub:OWNER/NAME`` | from the Hugging Face hub | the same, by the names of its splits |

Where folder or hub have a validation set but no labelled test set, the validation set is the test set and validation
samples are held out of the training set.

Training images are flipped and cropped at random, except digits. Folder and hub images with a side of 64 pixels or more
asked for are cut out at random, as is usual for photographs; all others are shifted by up to 4 pixels.
"""

from __future__ import annotations

from pathlib import Path

from interlocking_backprop.data.cifar import load_cifar
from interlocking_backprop.data.digits import load_digits
from interlocking_backprop.data.fashion_mnist import load_fashion_mnist
from interlocking_backprop.data.hub import load_folder, load_hub
from interlocking_backprop.data.split import Data, Options

DATA_FORMS = (
    "digits, fashion-mnist, cifar10, cifar100, folder:PATH (with PATH/train/CLASS/*.png and PATH/test/CLASS/*.png), "
    "or hub:OWNER/NAME (images with labels on the Hugging Face hub)"
)


def load_data(
    name: str,
    root: str | Path = "data",
    *,
    validation_fraction: float = 0.1,
    augment: bool = True,
    image_size: int | None = None,
    seed: int = 0,
) -> Data:
    """Loads a data set; docs/training.md says which there are and what happens to their images.

    Args:
        name: one of the forms in `DATA_FORMS`.
        root: folder that the files of fashion-mnist, cifar10 and cifar100 are looked for in.
        validation_fraction: share of the training set that is held out where the data set has no validation set.
        augment: whether training images are changed at random.
        image_size: side of the square that images are resized to; None keeps them as they are.
        seed: of the choice of validation samples. Order and augmentation have theirs in `batches`.

    Raises:
        ValueError: if the name is not known, an option is out of its range, or the data cannot be read.
    """
    options = Options(validation_fraction, augment, image_size, seed)
    root = Path(root).expanduser()
    kind, colon, rest = name.partition(":")
    if colon and rest:
        if kind == "folder":
            return load_folder(Path(rest).expanduser(), options)
        if kind == "hub":
            return load_hub(rest, options)
    elif name == "digits":
        return load_digits(options)
    elif name == "fashion-mnist":
        return load_fashion_mnist(root, options)
    elif name in ("cifar10", "cifar100"):
        return load_cifar(name, root, options)
    raise ValueError(f"data set {name!r} is not known; expected {DATA_FORMS}.")
