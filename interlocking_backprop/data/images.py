"""Images of any size in tables of the `datasets` library, where they are encoded and opened batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from interlocking_backprop.data.preparation import Preparation
from interlocking_backprop.data.split import BatchRequest

if TYPE_CHECKING:
    import datasets
    from PIL.Image import Image

_GREY_MODES = ("1", "L", "LA")
_COLOUR_MODES = ("RGB", "RGBA", "P", "PA", "CMYK", "YCbCr", "HSV", "LAB")
_N_PROBES = 64


class EncodedImages:
    """The images of one column.

    Args:
        table: what `datasets` has loaded.
        column: which of its columns holds the images.

    Attributes:
        name: of the split, for errors.
    """

    def __init__(self, table: datasets.Dataset, column: str) -> None:
        import datasets

        self.name = str(table.split)
        self._column = column
        self._feature = table.features[column]
        # Opened here and not by the library, so that an error can say which image it is about.
        self._table = table.select_columns([column]).cast_column(column, datasets.Image(decode=False))

    def __len__(self) -> int:
        return len(self._table)

    def open(self, rows: Sequence[int]) -> list[Image]:
        """Decodes images.

        Raises:
            ValueError: if one of them cannot be read.
        """
        encoded = self._table[list(rows)][self._column]
        return [self._decode(row, one) for row, one in zip(rows, encoded, strict=True)]

    def read(self, rows: Sequence[int], channels: int) -> list[Tensor]:
        """Images as uint8 tensors (C, H, W), in grey for one channel and in colour for three.

        Raises:
            ValueError: if one of them cannot be read, or has more than 8 bits per channel.
        """
        return [self._to_tensor(row, image, channels) for row, image in zip(rows, self.open(rows), strict=True)]

    def probe(self) -> tuple[int, set[tuple[int, int]]]:
        """Looks at up to 64 images, evenly spread: the channels (3 if one has colours), and all (height, width)."""
        n = min(_N_PROBES, len(self))
        images = self.open([i * len(self) // n for i in range(n)])
        channels = 1 if all(image.mode in _GREY_MODES for image in images) else 3
        return channels, {(image.height, image.width) for image in images}

    def _to_tensor(self, row: int, image: Image, channels: int) -> Tensor:
        if image.mode not in _GREY_MODES + _COLOUR_MODES:
            raise ValueError(
                f"image {row} of the {self.name} split has the pixel format {image.mode!r}; expected 8 bits per "
                "channel. Convert it to grey or RGB first."
            )
        pixels = torch.from_numpy(np.array(image.convert("L" if channels == 1 else "RGB")))
        return pixels[None] if channels == 1 else pixels.permute(2, 0, 1)

    def _decode(self, row: int, encoded: dict[str, Any] | None) -> Image:
        try:
            image: Image = self._feature.decode_example(encoded)
        except (OSError, SyntaxError, ValueError, TypeError) as error:  # SyntaxError is PIL's word for a broken PNG
            path = encoded["path"] if encoded is not None else None
            where = f"image {row} of the {self.name} split" + (f" ({path})" if path else "")
            raise ValueError(f"{where} cannot be read ({error}); replace it or take it out.") from None
        return image


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Encoded images and their labels, int64 (N,)."""

    images: EncodedImages
    labels: Tensor


@dataclass(frozen=True, eq=False)
class ImageSplit:
    """Some samples of encoded images.

    Attributes:
        samples: may be shared with other splits.
        rows: which of the samples are in this split, int64.
        sample_shape: (channels, height, width) of the inputs.
        preparation: makes batches out of images.
    """

    samples: LabelledImages
    rows: Tensor
    sample_shape: tuple[int, int, int]
    preparation: Preparation

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, request: BatchRequest) -> tuple[Tensor, Tensor]:
        rows = self.rows[request.indices]
        channels, height, width = self.sample_shape
        images = self.samples.images.read(rows.tolist(), channels)
        if self.preparation.frame is None:
            check_sizes({(height, width), *((image.size(1), image.size(2)) for image in images)})
        return self.preparation(images, request.seed), self.samples.labels[rows]


def check_sizes(sizes: set[tuple[int, int]]) -> None:
    """Raises ValueError if images that are to stay as they are differ in (height, width)."""
    if len(sizes) > 1:
        some = ", ".join(f"{height} x {width}" for height, width in sorted(sizes)[:3])
        raise ValueError(
            f"the images have different sizes (height x width {some}{' …' if len(sizes) > 3 else ''}); expected one. "
            "Give the size to resize them to: --image-size, or image_size=."
        )
