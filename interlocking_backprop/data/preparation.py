"""What happens to images between storage and network: framing, augmentation, normalisation.

Augmentation comes before normalisation, so the border that a shifted image leaves is black, as in the example of Gomez
et al. that it follows: a random horizontal flip, then a random crop out of the image padded by 4 pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from interlocking_backprop.data.framing import CentreFrame, RandomFrame
from interlocking_backprop.data.split import Options

SMALLEST_PHOTOGRAPH = 64
"""From this side on, folder and hub images are framed as photographs are; below, as CIFAR's."""


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of each channel, in units in which white is 1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, images: Tensor) -> Tensor:  # (N, C, H, W), changed in place
        return images.sub_(_per_channel(self.mean)).div_(_per_channel(self.std))


# Of the training images. CIFAR-10's are those of the example of Gomez et al.; Fashion-MNIST's were computed.
FASHION_MNIST = Normalisation((0.2860,), (0.3530,))
CIFAR10 = Normalisation((0.4914, 0.4822, 0.4465), (0.2460, 0.2411, 0.2576))
CIFAR100 = Normalisation((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))
IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
GREY = Normalisation((0.449,), (0.226,))  # IMAGENET, averaged over its channels


@dataclass(frozen=True)
class Preparation:
    """Makes a batch for the network out of stored images.

    Attributes:
        normalisation: comes last.
        frame: makes any image a square of one size; None if all have the same size already.
        augmentation: random changes to a batch of float images in which white is 1; None for evaluation.
    """

    normalisation: Normalisation
    frame: CentreFrame | RandomFrame | None = None
    augmentation: nn.Module | None = None

    @torch.no_grad()
    def __call__(self, images: Tensor | Sequence[Tensor], seed: int) -> Tensor:
        """The batch, (N, C, H, W), float32.

        Args:
            images: uint8, either (N, C, H, W) or N times (C, H, W).
            seed: of all that is random in it. Torch's global generator is left as it was.
        """
        with torch.random.fork_rng(devices=[]):
            # torch.manual_seed would seed the accelerators too, whose generators are not restored here.
            torch.default_generator.manual_seed(seed)
            if self.frame is not None:
                images = [self.frame(image) for image in images]
            batch = images if isinstance(images, Tensor) else torch.stack(list(images))
            batch = batch.to(torch.float32, memory_format=torch.contiguous_format).div_(255)
            if self.augmentation is not None:
                batch = self.augmentation(batch).contiguous()
        return self.normalisation(batch)


def preparations(
    normalisation: Normalisation, height: int, width: int, options: Options, *, photographs: bool = False
) -> tuple[Preparation, Preparation]:
    """How images are prepared for training, and how for evaluation.

    Args:
        normalisation: of both.
        height: of the stored images; not used with ``options.image_size``.
        width: likewise.
        options: the user's.
        photographs: whether images of `SMALLEST_PHOTOGRAPH` pixels or more are cut out at random for training and,
            for evaluation, out of the middle (7/8 of the shorter side: 224 pixels out of 256).
    """
    size = options.image_size
    if photographs and size is not None and size >= SMALLEST_PHOTOGRAPH:
        evaluation = Preparation(normalisation, CentreFrame(size, share=7 / 8))
        if not options.augment:
            return evaluation, evaluation
        return Preparation(normalisation, RandomFrame(size), _augmentation(None)), evaluation
    frame = CentreFrame(size) if size is not None else None
    evaluation = Preparation(normalisation, frame)
    if not options.augment:
        return evaluation, evaluation
    crop = (height, width) if size is None else (size, size)
    return Preparation(normalisation, frame, _augmentation(crop)), evaluation


def _augmentation(crop: tuple[int, int] | None) -> nn.Module:
    from kornia import augmentation  # takes half a second, which only those who augment should wait for

    flip = augmentation.RandomHorizontalFlip(p=0.5)
    return nn.Sequential(flip) if crop is None else nn.Sequential(flip, augmentation.RandomCrop(crop, padding=4))


def _per_channel(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values).view(-1, 1, 1)
