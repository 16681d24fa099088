"""The strings that describe a ResNet, its heads and its cut, and errors that point at the place.

    architecture           64,3/128,4/256,6/512,3            planes,blocks of each superblock
    head                   conv128_bn_conv64_bn_gbpl_fc      layer by layer, from the component's output on
    blocks per component   1,1,rest                          counts in the order of depth, the last one "rest"

They are read once here, into plain data, so that nothing is built from a string that turns out wrong further on.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple


class Superblock(NamedTuple):
    """A row of blocks of the same width; all but the first superblock halve the resolution."""

    planes: int
    n_blocks: int


class AuxLayer(NamedTuple):
    """One word of a head's string; ``channels`` is that of a convolution, 0 for the others."""

    kind: Literal["conv", "bn", "gbpl", "fc"]
    channels: int = 0


def parse_architecture(text: str) -> tuple[Superblock, ...]:
    """Reads ``planes,blocks/planes,blocks/…``, e.g. ``64,3/128,4/256,6/512,3``.

    Raises:
        ValueError: if the string does not read, showing where.
    """
    reader = _Reader("architecture", text)
    superblocks = []
    while True:
        planes = reader.number("the planes of a superblock")
        reader.expect(",", "',' and the number of blocks of the superblock")
        superblocks.append(Superblock(planes, reader.number("the number of blocks of the superblock")))
        if reader.at_end():
            return tuple(superblocks)
        reader.expect("/", "'/' and the next superblock, or the end")


def parse_aux_net(text: str) -> tuple[AuxLayer, ...]:
    """Reads the layers of a head, e.g. ``conv128_bn_gbpl_fc``.

    ``conv<channels>`` and ``bn`` in any number and order, then ``gbpl`` (global average pooling) and ``fc``.

    Raises:
        ValueError: if the string does not read, showing where.
    """
    reader = _Reader("auxiliary net", text)
    layers: list[AuxLayer] = []
    while not layers or layers[-1].kind != "gbpl":
        if reader.take("conv"):
            layers.append(AuxLayer("conv", reader.number("the channels of the convolution")))
        elif reader.take("bn"):
            layers.append(AuxLayer("bn"))
        elif reader.take("gbpl"):
            layers.append(AuxLayer("gbpl"))
        elif reader.take("flt"):
            raise reader.error("gbpl in place of flt (flattening is left out, it ties the head to one image size)")
        else:
            raise reader.error("conv<channels>, bn or gbpl (fc comes right behind gbpl)")
        reader.expect("_", "'_' and the next layer; the string ends in gbpl_fc")
    reader.expect("fc", "fc, the only layer behind gbpl")
    if not reader.at_end():
        raise reader.error("the end, fc being the last layer")
    return (*layers, AuxLayer("fc"))


def parse_block_counts(counts: str | Sequence[int | str], n_blocks: int) -> list[int]:
    """Reads how many blocks each component takes, and works out the rest.

    Args:
        counts: ``"1,1,rest"`` or ``["1", "1", "rest"]``: at least 1 for each component but the last, then "rest".
        n_blocks: of the whole network.

    Returns:
        One count for each component; their sum is ``n_blocks``.

    Raises:
        ValueError: if the counts do not read or leave nothing for the last component, showing where.
    """
    text = counts if isinstance(counts, str) else ",".join(map(str, counts))
    reader = _Reader("blocks_per_component", text)
    sizes: list[int] = []
    while not reader.take("rest"):
        left = n_blocks - sum(sizes)
        sizes.append(reader.number("'rest' or a number of blocks"))
        if sizes[-1] > left:
            raise reader.error(f"at most {left}, which is what is left of the {n_blocks} blocks of the network")
        reader.expect(",", "',' and the next component; the last one is 'rest'")
    if sum(sizes) == n_blocks:
        raise reader.error(f"smaller counts before 'rest', which leave it one of the {n_blocks} blocks at least")
    if not reader.at_end():
        raise reader.error("the end, 'rest' being the last component")
    return [*sizes, n_blocks - sum(sizes)]


class _Reader:
    """Goes through a text word by word, blanks aside, and knows where it is."""

    def __init__(self, what: str, text: str) -> None:
        if not isinstance(text, str):
            raise ValueError(f"the {what} is {text!r}; expected a string.")
        self._what = what
        self._text = text
        self.position = 0
        self.start = 0

    def take(self, word: str) -> bool:
        """Steps over the word, if it comes next."""
        self._step_to_word()
        if not self._text.startswith(word, self.position):
            return False
        self.position += len(word)
        return True

    def expect(self, word: str, meaning: str) -> None:
        if not self.take(word):
            raise self.error(meaning)

    def number(self, meaning: str) -> int:
        self._step_to_word()
        digits = re.compile("[0-9]+").match(self._text, self.position)
        if digits is None or int(digits[0]) == 0:
            raise self.error(f"{meaning}, a whole number of at least 1")
        self.position = digits.end()
        return int(digits[0])

    def at_end(self) -> bool:
        self._step_to_word()
        return self.position == len(self._text)

    def error(self, expected: str) -> ValueError:
        """An error that points at the last word that was looked at."""
        place = f"  {self._text}\n  {' ' * self.start}^"
        return ValueError(f"{self._what} {self._text!r}: expected {expected}, at the mark:\n{place}")

    def _step_to_word(self) -> None:
        while self._text[self.position : self.position + 1].isspace():
            self.position += 1
        self.start = self.position
